from typing import Any

import pytest
import torch
from torch_geometric.nn import kge

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.knowledge.triple_scores import Embeddings

LIBRARY = {"transe": kge.TransE, "distmult": kge.DistMult, "complex": kge.ComplEx, "rotate": kge.RotatE}


def _pair(kind: Any) -> tuple[Any, Embeddings]:
    """A fresh model of the library, and ours with its weights."""
    halved = kind in ("complex", "rotate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: Any = LIBRARY[kind](7, 3, 4 if halved else 8)
    parts = [model.node_emb.weight, *([model.node_emb_im.weight] if halved else [])]
    relations = [model.rel_emb.weight, *([model.rel_emb_im.weight] if kind == "complex" else [])]
    return model, Embeddings(kind, torch.cat(parts, 1).detach(), torch.cat(relations, 1).detach())


@pytest.mark.parametrize("kind", LIBRARY)
def test_scores_are_the_library_s(kind: Any) -> None:
    model, ours = _pair(kind)
    triples = torch.cartesian_prod(torch.arange(7), torch.arange(3), torch.arange(7))
    margin = model.margin if kind == "rotate" else 0.0
    with torch.no_grad():
        theirs = model(*triples.unbind(1)) - margin
    torch.testing.assert_close(ours.scores(triples), theirs, rtol=1e-5, atol=1e-5)
    table = theirs.view(7, 3, 7)  # head, relation, tail
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(3))
    torch.testing.assert_close(ours.tails(*pairs.unbind(1)).view(7, 3, 7), table, rtol=1e-5, atol=1e-5)
    by_tail = ours.heads(pairs[:, 1], pairs[:, 0]).view(7, 3, 7)  # tail, relation, head
    torch.testing.assert_close(by_tail.permute(2, 1, 0), table, rtol=1e-5, atol=1e-5)


def test_what_scores_nothing_is_refused() -> None:
    with pytest.raises(EncoderError, match="did you mean 'rotate'"):
        Embeddings("rotat", torch.eye(4), torch.ones(1, 2))  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="are no 'rotate'"):
        Embeddings("rotate", torch.eye(4), torch.ones(1, 4))
    with pytest.raises(EncoderError, match="lower learning rate"):
        Embeddings("transe", torch.full((2, 4), float("nan")), torch.ones(1, 4))
