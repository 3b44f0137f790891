"""The parts of a world's folder that are tables: sequences as tensors, triples as Parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.sequences import Sequences, Slates


def sequence_tensors(sequences: Sequences) -> dict[str, Tensor]:
    """For safetensors; `sequences_from` undoes it."""
    arrays: dict[str, Any] = {
        "catalogue_size": np.array([sequences.catalogue_size]),
        "offsets": sequences.offsets,
        "items": sequences.items,
        "feedback": sequences.feedback,
        "given": sequences.given,
    }
    if sequences.slates is not None:
        arrays.update({f"slates.{name}": value for name, value in sequences.slates.arrays().items()})
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


def sequences_from(tensors: dict[str, Tensor], policies: tuple[str, ...]) -> Sequences:
    """Undo `sequence_tensors`; the names of the logging policies are kept elsewhere."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    size = int(arrays.pop("catalogue_size")[0])
    slates = {name.removeprefix("slates."): arrays.pop(name) for name in list(arrays) if name.startswith("slates.")}
    return Sequences(catalogue_size=size, slates=Slates(**slates) if slates else None, policies=policies, **arrays)


def save_knowledge(knowledge: KnowledgeGraph, path: Path) -> None:
    """Write triples by name as Parquet."""
    names = [np.array(knowledge.entities), np.array(knowledge.relations), np.array(knowledge.entities)]
    columns = {c: names[i][knowledge.triples[:, i]] for i, c in enumerate(("head", "relation", "tail"))}
    pd.DataFrame(columns).to_parquet(path)


def load_knowledge(path: Path) -> KnowledgeGraph | None:
    """Undo `save_knowledge`; None where there is no file."""
    if not path.exists():
        return None
    frame = pd.read_parquet(path)
    return KnowledgeGraph.from_names(list(frame["head"]), list(frame["relation"]), list(frame["tail"]))


def named_or_none(column: "pd.Series[str]") -> tuple[str | None, ...]:
    """A column of names with gaps as Python knows them."""
    return tuple(name if isinstance(name, str) else None for name in column)
