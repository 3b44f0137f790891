"""Does the fit find what only images know? Users keep to one kind of film, and posters show the kind."""

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from recloop.encoders.items.fusion import FUSIONS
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.fitting import fit_state_encoder

KINDS, EACH, USERS, LENGTH = 6, 30, 60, 8
ITEMS = KINDS * EACH
KIND = np.arange(ITEMS) % KINDS
NEW = np.arange(ITEMS) >= ITEMS - 30
"""Items that nobody consumed: five of each kind."""
BARE = np.arange(ITEMS) % 7 == 3
"""Items without an image, some of them new."""


def _images() -> Tensor:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(KINDS, 512))[KIND] + 1.5 * rng.normal(size=(ITEMS, 512)) + 3
    images[BARE] = 0
    return torch.from_numpy(images).float()


@cache
def _fitted(fusion: str | None) -> StateEncoder:
    """Fitted on few users, with texts that say nothing and posters; None: without either."""
    rng = np.random.default_rng(2)
    items = [rng.choice(np.flatnonzero((u % KINDS == KIND) & ~NEW), LENGTH, replace=False) for u in range(USERS)]
    text = torch.from_numpy(rng.normal(size=(ITEMS, 64))).float()
    return fit_state_encoder(
        {} if fusion is None else {"text": text, "image": _images()}, None,
        np.concatenate(items), np.arange(USERS + 1) * LENGTH, np.ones((USERS * LENGTH, 1), np.float32), [(0.0, 1.0)],
        config=StateEncoderConfig(dim=32, hidden=32), catalogue_size=ITEMS,
        fitting=NextItemConfig(epochs=8, batch_users=8, patience=8),
        item_fusion=fusion or "concat",
    )  # fmt: skip


def _found(encoder: StateEncoder, among: npt.NDArray[np.bool_]) -> float:
    """Share of a user's kind among the five best of some items, over users of every kind who consumed four."""
    histories = torch.from_numpy(np.stack([np.flatnonzero((k == KIND) & ~NEW & ~BARE)[-4:] for k in range(KINDS)]))
    state = encoder.start(torch.zeros(KINDS, 0), histories, torch.ones(KINDS, 4, 1))
    scores = encoder.scores(encoder.vector(state))[:, torch.from_numpy(among)]
    best = torch.from_numpy(KIND[among])[scores.topk(5).indices]
    return float((best == torch.arange(KINDS)[:, None]).float().mean())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_posters_tell_what_users_want(fusion: str) -> None:
    posters, ids = _fitted(fusion), _fitted(None)
    assert posters.report is not None
    assert ids.report is not None
    assert posters.report.recall_at_10 > ids.report.recall_at_10 + 0.1
    assert _found(posters, ~NEW) > 0.9 > 0.7 > _found(ids, ~NEW)
    assert _found(posters, NEW & ~BARE) > 0.6  # nobody consumed these: chance, and ids alone, find a sixth


@pytest.mark.parametrize("fusion", FUSIONS)
def test_item_vectors_gather_by_kind(fusion: str) -> None:
    vectors = _fitted(fusion).item_vectors[:-1]
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(ITEMS))
    likeness, same = (vectors @ vectors.T).numpy(), KIND[:, None] == KIND
    seen = ~BARE[:, None] & ~BARE
    assert likeness[seen & same & ~np.eye(ITEMS, dtype=bool)].mean() > 0.4 > 0 > likeness[seen & ~same].mean()
