"""Graphs that keep their shape and lose their meaning: what a part that reads the graph must do worse on."""

from dataclasses import replace

import numpy as np

from recloop.encoders.knowledge.graph import KnowledgeGraph


def scrambled(kg: KnowledgeGraph, seed: int = 0) -> KnowledgeGraph:
    """The same graph with the tails of each relation dealt anew among its heads.

    Every entity keeps how often it is head and how often tail of each relation, so popularity and coverage survive and
    only who goes with whom is lost: the configuration model, relation by relation. Differences: a triple may come out
    twice, or as a loop, where chance deals it so; no triple is redrawn for it.

    Args:
        seed: of the deal; equal seeds give equal graphs.
    """
    draw = np.random.default_rng(seed)
    triples = kg.triples.copy()
    for relation in range(len(kg.relations)):
        rows = np.flatnonzero(triples[:, 1] == relation)
        triples[rows, 2] = triples[draw.permutation(rows), 2]
    return replace(kg, triples=triples)
