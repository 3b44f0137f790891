"""Fitting the state encoder: what do users consume next?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.fit import FitLoop, fit
from recloop.encoders.items.encoder import ItemEncoder, ItemKnowledge
from recloop.encoders.items.fusion import Fusion
from recloop.encoders.state.batches import Batch, Floats, Ints, Log, NextItemConfig, batches
from recloop.encoders.state.behavior import BehaviorEncoder
from recloop.encoders.state.config import EncoderFitReport, StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.next_item import NextItemModel


def fit_state_encoder(
    sources: Mapping[str, Tensor] | None,
    knowledge: ItemKnowledge | None,
    items: Ints,
    offsets: Ints,
    feedback: Floats,
    signal_bounds: Sequence[tuple[float, float]],
    profile_dim: int = 0,
    config: StateEncoderConfig | None = None,
    seed: int = 0,
    *,
    profiles: Floats | None = None,
    catalogue_size: int | None = None,
    fitting: NextItemConfig | None = None,
    behavior: BehaviorEncoder | None = None,
    item_fusion: Fusion = "concat",
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> StateEncoder:
    """Fit item vectors and the user's state together on what users consumed next.

    The loss is the softmax over the catalogue (Hidasi and Karatzoglou 2018); above `full_softmax_limit` items it
    is sampled, with the logQ correction (Bengio and Senécal 2008). No global generator is touched; equal
    arguments give equal bits on the CPU with one number of threads.

    Args:
        sources: what items are known by, float32 (N, width) by name, such as {"text": ..., "image": ...}; a zero
            row is an item without. None or empty: ids alone.
        knowledge: of the same N items, or None; its neighbours join the sources as "neighbours".
        items: int64 (M,) consumed item rows, oldest first within a user.
        offsets: int64 (U+1,): user u's are rows offsets[u] to offsets[u+1].
        feedback: float32 (M, S) their signals as logged; 0 where not given.
        signal_bounds: lowest and highest value of each signal.
        profile_dim: p.
        profiles: float32 (U, p); needed only where the state shall start from them.
        catalogue_size: N; needed only without sources and knowledge.
        behavior: reads whole histories as text; see `StateEncoder`. Fitting reads every user's history once every
            `behavior.refresh` items.
        item_fusion: how an item's sources become one vector; see `ItemEncoder`.

    Returns:
        The encoder on the CPU, frozen, with its `report`.

    Raises:
        EncoderError: where arrays do not fit each other, or no user consumed two items.
    """
    content = dict(sources or {})
    if knowledge is not None:
        if "neighbours" in content:
            raise EncoderError("a source is named 'neighbours', which is what the graph adds; give it another name")
        content["neighbours"] = knowledge.content
    n = _catalogue_size(content, catalogue_size)
    config, fitting = config or StateEncoderConfig(), fitting or NextItemConfig()
    if profiles is None:
        profiles = np.zeros((len(offsets) - 1, profile_dim), dtype=np.float32)
    _check(n, items, offsets, feedback, signal_bounds, profiles, profile_dim)
    encoder = StateEncoder(
        torch.ones(n, config.dim),
        signal_bounds,
        profile_dim,
        knowledge.relations if knowledge else (),
        knowledge.tables if knowledge else None,
        config,
        seed,
        behavior,
    )
    encoder.requires_grad_(True)
    draws = torch.Generator().manual_seed(seed + 1)
    item_encoder = ItemEncoder(n, config.dim, content, draws, item_fusion)
    read = None if behavior is None else behavior.prefixes(offsets, items, feedback, max(behavior.refresh, 1), progress)
    log = Log(items, offsets, feedback, profiles, read)
    model = NextItemModel(encoder, item_encoder, knowledge, log.popularity(n), fitting).to(device)
    report = _fit(model, log, fitting, torch.Generator().manual_seed(seed + 2), progress)
    model.cpu().freeze()
    encoder.report = report
    return encoder


def _fit(
    model: NextItemModel, log: Log, fitting: NextItemConfig, generator: torch.Generator, progress: bool
) -> EncoderFitReport:
    """Fit until held-out users are predicted no better; the best weights stay in the model."""
    device = model.residual.device
    train, held_out = _parts(log, fitting, generator)
    validation = NextItemValidation(log, held_out if len(held_out) else train, fitting, device)
    loop = FitLoop(
        passes=fitting.passes(np.diff(log.offsets)[train]),
        learning_rate=fitting.learning_rate,
        weight_decay=fitting.weight_decay,
        schedule="cosine",
        lowest_rate=fitting.learning_rate / 10,
        clip=1.0,
        patience=fitting.patience,
        summed=True,
    )
    history = fit(
        model,
        loop,
        lambda: batches(log, train, fitting, generator),
        lambda cut: model.loss(log.batch(cut[0], cut[1], fitting.window, cut[2], None, device), generator),
        lambda: validation.loss(model),
        name="state encoder",
        progress=progress,
        error=EncoderError,
    )
    recall, ndcg, popular = validation.figures(model)
    return EncoderFitReport(
        tuple(one.loss for one in history.passes), tuple(one.held_out for one in history.passes), history.best,
        recall, ndcg, popular, len(train), len(held_out),
    )  # fmt: skip


def _parts(log: Log, fitting: NextItemConfig, generator: torch.Generator) -> tuple[Ints, Ints]:
    """Users to fit on and users held out; those with fewer than two items are of no use."""
    users = np.flatnonzero(np.diff(log.offsets) >= 2).astype(np.int64)
    if len(users) == 0:
        raise EncoderError(
            f"none of the {len(log.offsets) - 1} users consumed two items, so there is no next item to learn; "
            "give a log with longer histories"
        )
    users = users[torch.randperm(len(users), generator=generator).numpy()]
    held_out = int(len(users) * fitting.validation_share)
    return np.sort(users[held_out:]), np.sort(users[:held_out])


def _catalogue_size(sources: Mapping[str, Tensor], given: int | None) -> int:
    """N, which all that is given must agree on."""
    known = {name: len(rows) for name, rows in sources.items()}
    if given is not None:
        known["catalogue_size"] = given
    if len(set(known.values())) != 1:
        raise EncoderError(
            "the number of items is not clear: "
            + (", ".join(f"{name} says {size}" for name, size in known.items()) or "pass catalogue_size")
        )
    return next(iter(known.values()))


def _check(
    n: int, items: Ints, offsets: Ints, feedback: Floats, bounds: Sequence[object], profiles: Floats, p: int
) -> None:
    """The arrays fit each other, or `EncoderError`."""
    if len(items) and (items.min() < 0 or items.max() >= n):
        raise EncoderError(
            f"items hold row {items.max() if items.max() >= n else items.min()}; rows go from 0 to {n - 1}"
        )
    if feedback.shape != (len(items), len(bounds)):
        raise EncoderError(f"feedback is {feedback.shape}; {len(items)} items and {len(bounds)} signals need as many")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
        raise EncoderError(f"offsets must rise from 0 to {len(items)}, the number of items")
    if profiles.shape != (len(offsets) - 1, p):
        raise EncoderError(f"profiles are {profiles.shape}; {len(offsets) - 1} users need ({len(offsets) - 1}, {p})")


class NextItemValidation:
    """The newest items of held-out users, each predicted from all before it."""

    def __init__(self, log: Log, users: Ints, fitting: NextItemConfig, device: torch.device) -> None:
        self.repeats = any(
            len(np.unique(log.items[a:b])) < b - a for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)
        )
        self.batches = []
        size = fitting.batch_users * 2
        for first in range(0, len(users), size):
            chosen = users[first : first + size]
            starts = np.maximum(log.offsets[chosen + 1] - log.offsets[chosen] - 2 * fitting.window, 0)
            self.batches.append(log.batch(chosen, starts, 2 * fitting.window, 1, fitting.validation_places, device))

    @torch.no_grad()
    def loss(self, model: NextItemModel) -> float:
        """Mean negative log-likelihood over the whole catalogue."""
        results = [model.loss(batch) for batch in self.batches]
        return sum(float(loss) for loss, _ in results) / sum(count for _, count in results)

    @torch.no_grad()
    def figures(self, model: NextItemModel) -> tuple[float, float, float]:
        """Recall@10, NDCG@10, and the Recall@10 of popularity."""
        table = model.out_items()
        sums, total = np.zeros(3), 0
        for batch in self.batches:
            inputs = F.embedding(batch.items, table)
            vectors = model.vectors(batch, inputs, None)
            where = batch.asked[..., 0].nonzero()  # (P, 2)
            scores = vectors[where[:, 0], where[:, 1]] @ table.T + model.popularity  # (P, N)
            popular = model.sampling.expand_as(scores).clone()
            if not self.repeats:
                seen = _seen_before(batch, where, scores.shape[1])
                scores, popular = scores.masked_fill(seen, -math.inf), popular.masked_fill(seen, -math.inf)
            target = batch.items[where[:, 0], where[:, 1], 0]
            rank, popular_rank = _rank(scores, target), _rank(popular, target)
            hit = rank < 10
            sums += [
                float(hit.sum()),
                float((hit / torch.log2(rank.float() + 2)).sum()),
                float((popular_rank < 10).sum()),
            ]
            total += len(where)
        recall, ndcg, popular_recall = (sums / total).tolist()
        return recall, ndcg, popular_recall


def _seen_before(batch: Batch, where: Tensor, n: int) -> Tensor:
    """What each asked place's user consumed before it: bool (P, N)."""
    items = batch.items[where[:, 0], :, 0]  # (P, T)
    before = torch.arange(items.shape[1], device=items.device) < where[:, 1:]
    seen = torch.zeros(len(where), n + 1, dtype=torch.bool, device=items.device)
    return seen.scatter_(1, torch.where(before, items, n), True)[:, :n]


def _rank(scores: Tensor, target: Tensor) -> Tensor:
    """How many items come before the target, ties by row: scores (P, N), target (P,) -> (P,)."""
    own = scores.gather(1, target[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < target[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(1)
