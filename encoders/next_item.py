"""Fitting the state encoder: what do users consume next?"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from recloop.encoders.errors import EncoderError
from recloop.encoders.items import ItemEncoder, ItemKnowledge
from recloop.encoders.state import StateEncoder, StateEncoderConfig

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NextItemConfig:
    """How a `StateEncoder` is fitted.

    Args:
        epochs: most passes over the users.
        patience: passes without a better validation loss before stopping.
        batch_users: users a batch.
        learning_rate: of AdamW, falling to a tenth by a cosine.
        weight_decay: of AdamW; holds the items' learned residual near what their content says.
        dropout: share of inputs set to zero while fitting.
        window: items of a user a pass looks at; a random window of longer histories.
        group_sizes: neighbouring items made one step, drawn anew a batch, so that a slate's sum is no news.
        validation_share: users held out to stop early.
        validation_places: how many of their newest items are predicted.
        full_softmax_limit: the catalogue size above which negatives are sampled.
        negatives: negatives a batch in a sampled softmax.
    """

    epochs: int = 30
    patience: int = 4
    batch_users: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    dropout: float = 0.2
    window: int = 100
    group_sizes: tuple[int, ...] = (1, 2, 3)
    validation_share: float = 0.1
    validation_places: int = 10
    full_softmax_limit: int = 20_000
    negatives: int = 4_096


@dataclass(frozen=True)
class FitReport:
    """How a fit went.

    Args:
        train_loss: mean negative log-likelihood of the next item, a value a pass; from sampled
            negatives where the catalogue is large.
        validation_loss: the same on held-out users, over the whole catalogue.
        best_epoch: the pass whose weights were kept, from 0.
        recall_at_10: share of held-out next items among the ten best; items already consumed are left out
            where no user of the log consumes an item twice.
        ndcg_at_10: the same, discounted by rank.
        popularity_recall_at_10: what ranking by popularity gives there.
        users: users fitted on.
        validation_users: users held out; 0 where there were too few: the figures are then of fitted users.
        seconds: wall time.
    """

    train_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int
    recall_at_10: float
    ndcg_at_10: float
    popularity_recall_at_10: float
    users: int
    validation_users: int
    seconds: float


def fit_state_encoder(
    text_vectors: Tensor | None,
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
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> StateEncoder:
    """Fit item vectors and the user's state together on what users consumed next.

    The loss is the softmax over the catalogue (Hidasi and Karatzoglou 2018); above `full_softmax_limit` items it
    is sampled, with the logQ correction (Bengio and Senécal 2008). No global generator is touched; equal
    arguments give equal bits on one device with one number of threads.

    Args:
        text_vectors: float32 (N, t), or None; a zero row is an item without text.
        knowledge: of the same N items, or None.
        items: int64 (M,) consumed item rows, oldest first within a user.
        offsets: int64 (U+1,): user u's are rows offsets[u] to offsets[u+1].
        feedback: float32 (M, S) their signals as logged; 0 where not given.
        signal_bounds: lowest and highest value of each signal.
        profile_dim: p.
        profiles: float32 (U, p); needed only where the state shall start from them.
        catalogue_size: N; needed only without text and knowledge.

    Returns:
        The encoder on the CPU, frozen, with its `report`.

    Raises:
        EncoderError: where arrays do not fit each other, or no user consumed two items.
    """
    n = _catalogue_size(text_vectors, knowledge, catalogue_size)
    config, fitting = config or StateEncoderConfig(), fitting or NextItemConfig()
    if profiles is None:
        profiles = np.zeros((len(offsets) - 1, profile_dim), dtype=np.float32)
    _check(n, items, offsets, feedback, signal_bounds, profiles, profile_dim)
    generator = torch.Generator().manual_seed(seed)
    encoder = StateEncoder(
        torch.ones(n, config.dim),
        signal_bounds,
        profile_dim,
        knowledge.relations if knowledge else (),
        knowledge.tables if knowledge else None,
        config,
        seed,
    )
    encoder.requires_grad_(True)
    item_encoder = ItemEncoder(
        n, config.dim, text_vectors, knowledge.vectors if knowledge else None, generator
    )
    log = _Log(items, offsets, feedback, profiles)
    model = _NextItem(encoder, item_encoder, knowledge, log.popularity(n), fitting).to(device)
    report = _fit(model, log, fitting, generator, progress)
    model.cpu().freeze()
    encoder.report = report
    return encoder


# ---- the model while it is fitted


class _NextItem(nn.Module):
    """The state encoder with what it needs to be fitted: items' content and the tables before projection."""

    relation_tables: Tensor | None
    sampling: Tensor

    def __init__(
        self,
        encoder: StateEncoder,
        items: ItemEncoder,
        knowledge: ItemKnowledge | None,
        counts: Tensor,
        fitting: NextItemConfig,
    ) -> None:
        super().__init__()
        self.encoder, self.items, self.fitting = encoder, items, fitting
        n, d = items.catalogue_size, items.dim
        self.residual = nn.Parameter(torch.zeros(n, d))
        self.scale = nn.Parameter(torch.ones(()))
        share = (counts + 0.5) / (counts.sum() + 0.5 * n)
        self.popularity = nn.Parameter(share.log())
        self.register_buffer("relation_tables", knowledge.tables.float() if knowledge else None)
        self.register_buffer("sampling", F.normalize(share**0.75, p=1, dim=0), persistent=False)

    def out_items(self, rows: Tensor | None = None) -> Tensor:
        """Items as inputs and scores read them: content, scaled, and a learned residual."""
        residual = self.residual if rows is None else F.embedding(rows, self.residual)
        table: Tensor = self.items(rows) * self.scale + residual
        return table

    def vectors(self, batch: _Batch, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """The user before each of T steps, (B, T, d), from the vectors of the batch's items (B, T, g, d)."""
        e = self.encoder
        blank = e.blank(batch.profiles)
        if generator is not None:
            inputs = _drop(inputs, self.fitting.dropout, generator)
        steps = e.step_input(inputs, batch.signals, batch.held)[:, :-1]  # (B, T-1, d)
        hidden = blank.hidden.unsqueeze(1)
        if steps.shape[1]:
            hidden = torch.cat([hidden, e.gru(steps, blank.hidden.unsqueeze(0))[0]], dim=1)  # (B, T, dh)
        keys, values, presence = self._running_relations(batch)
        vector = e.read(hidden, keys, values, presence)[0]
        return vector if generator is None else _drop(vector, self.fitting.dropout, generator)

    def _running_relations(self, batch: _Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The decayed relation sums before each step: (B, T, R, dk), (B, T, R, dv), (B, T, R)."""
        e, (b, t, g) = self.encoder, batch.items.shape
        if self.relation_tables is None:
            none = batch.signals.new_zeros
            return none(b, t, 0, e.config.key_dim), none(b, t, 0, e.config.value_dim), none(b, t, 0)
        weight = e.gate(batch.signals) * batch.held  # (B, T, g)
        rows = F.embedding(batch.items, self.relation_tables.flatten(1)).view(
            b, t, g, *self.relation_tables.shape[1:]
        )
        present = (rows != 0).any(-1).to(rows.dtype)  # (B, T, g, R)
        # Projections are linear: sum first, project once.
        total = torch.einsum("btg,btgre->btre", weight, rows).flatten(2)
        held = torch.einsum("btg,btgr->btr", weight, present)
        step = torch.arange(t, device=rows.device)
        age = step[:, None] - 1 - step[None, :]  # (T, T): steps between, negative from the step itself on
        decay = torch.where(age >= 0, e.config.decay ** age.clamp_min(0).to(rows.dtype), 0.0)
        running = (decay @ total).view(b, t, *self.relation_tables.shape[1:])
        return e.key_projection(running), e.value_projection(running), decay @ held

    def loss(self, batch: _Batch, generator: torch.Generator | None = None) -> tuple[Tensor, int]:
        """Summed negative log-likelihood of every item of every step given the steps before, and how many."""
        n = self.items.catalogue_size
        if generator is not None and n > self.fitting.full_softmax_limit:
            return self._sampled_loss(batch, generator)
        table = self.out_items()
        inputs = F.embedding(batch.items.clamp_max(n - 1), table)
        vectors = self.vectors(batch, inputs, generator)
        asked = batch.asked.any(-1)
        log_p = F.log_softmax(vectors[asked] @ table.T + self.popularity, dim=-1)  # (P, N)
        targets = torch.where(batch.asked, batch.items, -100)[asked]  # (P, g)
        parts = [F.nll_loss(log_p, targets[:, j], reduction="sum") for j in range(targets.shape[1])]
        return torch.stack(parts).sum(), int(batch.asked.sum())

    def _sampled_loss(self, batch: _Batch, generator: torch.Generator) -> tuple[Tensor, int]:
        """`loss` over the target and shared negatives, each logit less the log of how often it is sampled."""
        device, m = batch.items.device, self.fitting.negatives
        draws = torch.rand(m, generator=generator, dtype=torch.float64).to(device)
        edges = self.sampling.double().cumsum(0)
        negatives = torch.searchsorted(edges, draws * edges[-1]).clamp_max(self.items.catalogue_size - 1)
        used = torch.cat([negatives, batch.items[batch.held]])
        rows, places = torch.unique(used, return_inverse=True)
        table = self.out_items(rows)
        local = torch.zeros_like(batch.items)
        local[batch.held] = places[m:]
        vectors = self.vectors(batch, F.embedding(local, table), generator)
        where = batch.asked.nonzero()  # (P, 3)
        users, target = vectors[where[:, 0], where[:, 1]], batch.items[batch.asked]  # (P, d), (P,)
        correction = torch.log(m * self.sampling)
        popularity = self.popularity - correction
        own = (users * F.embedding(local[batch.asked], table)).sum(-1) + F.embedding(
            target, popularity[:, None]
        )[:, 0]
        other = users @ F.embedding(places[:m], table).T + F.embedding(negatives, popularity[:, None])[:, 0]
        other = other.masked_fill(negatives == target[:, None], -math.inf)
        logits = torch.cat([own[:, None], other], dim=1)
        return -torch.log_softmax(logits, dim=1)[:, 0].sum(), len(where)

    @torch.no_grad()
    def freeze(self) -> None:
        """Write the fitted items into the encoder's tables and stop all gradients."""
        self.encoder.set_items(self.items(), self.relation_tables, self.out_items(), self.popularity)
        self.encoder.requires_grad_(False)
        self.encoder.eval()


def _drop(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout from a generator of its own."""
    if share <= 0:
        return x
    keep = torch.rand(x.shape, generator=generator).to(x.device) >= share
    return x * keep / (1 - share)


# ---- data


@dataclass(frozen=True)
class _Batch:
    """B users, T steps of up to g items: `asked` (B, T, g) are the places whose item is to be predicted."""

    items: Tensor
    signals: Tensor
    held: Tensor
    asked: Tensor
    profiles: Tensor


@dataclass(frozen=True)
class _Log:
    items: Ints
    offsets: Ints
    feedback: Floats
    profiles: Floats

    def popularity(self, n: int) -> Tensor:
        """How often each item was consumed, (N,)."""
        return torch.from_numpy(np.bincount(self.items, minlength=n).astype(np.float32))

    def batch(
        self,
        users: Ints,
        starts: Ints,
        window: int,
        group: int,
        asked_places: int | None,
        device: torch.device,
    ) -> _Batch:
        """`window` items of each user from `starts` (B,) on, in groups; empty places at the end.

        `asked_places` asks for that many of the newest items instead of all.
        """
        counts = np.minimum(self.offsets[users + 1] - self.offsets[users] - starts, window)
        steps = -(-int(counts.max()) // group)
        place = np.arange(steps * group)
        held = place < counts[:, None]  # (B, T g)
        rows = np.where(held, (self.offsets[users] + starts)[:, None] + place, 0)
        asked = held if asked_places is None else held & (place >= counts[:, None] - asked_places)

        def tensor(values: npt.NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values.reshape(len(users), steps, group, *values.shape[2:])).to(device)

        signals = np.where(held[..., None], self.feedback[rows], np.float32(0))
        items = np.where(held, self.items[rows], 0)
        profiles = torch.from_numpy(self.profiles[users]).to(device)
        return _Batch(tensor(items), tensor(signals), tensor(held), tensor(asked), profiles)


def _batches(
    log: _Log, users: Ints, fitting: NextItemConfig, generator: torch.Generator
) -> Iterator[tuple[Ints, Ints, int]]:
    """Users, where their windows start and the group size, batch by batch; like lengths come together."""
    size = fitting.batch_users
    users = users[torch.randperm(len(users), generator=generator).numpy()]
    lengths = np.minimum(log.offsets[users + 1] - log.offsets[users], fitting.window)
    pool = size * 8
    order = np.concatenate(
        [
            start + np.argsort(lengths[start : start + pool], kind="stable")
            for start in range(0, len(users), pool)
        ]
    )
    firsts = torch.randperm(-(-len(users) // size), generator=generator) * size
    for first in firsts.tolist():
        chosen = users[order[first : first + size]]
        spare = np.maximum(log.offsets[chosen + 1] - log.offsets[chosen] - fitting.window, 0)
        starts = (torch.rand(len(chosen), generator=generator).numpy() * (spare + 1)).astype(np.int64)
        pick = int(torch.randint(len(fitting.group_sizes), (1,), generator=generator))
        yield chosen, np.minimum(starts, spare), fitting.group_sizes[pick]


# ---- fitting


def _fit(
    model: _NextItem, log: _Log, fitting: NextItemConfig, generator: torch.Generator, progress: bool
) -> FitReport:
    began = time.perf_counter()
    device = model.residual.device
    train, held_out = _parts(log, fitting, generator)
    validation = _Validation(log, held_out if len(held_out) else train, fitting, device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=fitting.learning_rate, weight_decay=fitting.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, fitting.epochs, fitting.learning_rate / 10
    )
    train_loss: list[float] = []
    validation_loss: list[float] = []
    best, kept = 0, copy.deepcopy(model.state_dict())
    bar = tqdm(range(fitting.epochs), desc="state encoder", unit="pass", disable=not progress)
    for epoch in bar:
        train_loss.append(_pass(model, log, train, fitting, optimiser, generator))
        schedule.step()
        validation_loss.append(validation.loss(model))
        bar.set_postfix(loss=f"{train_loss[-1]:.3f}", validation=f"{validation_loss[-1]:.3f}")
        if validation_loss[-1] <= min(validation_loss):
            best, kept = epoch, copy.deepcopy(model.state_dict())
        elif epoch - best >= fitting.patience:
            break
    bar.close()
    model.load_state_dict(kept)
    recall, ndcg, popular = validation.figures(model)
    return FitReport(
        tuple(train_loss), tuple(validation_loss), best, recall, ndcg, popular,
        len(train), len(held_out), round(time.perf_counter() - began, 3),
    )  # fmt: skip


def _pass(
    model: _NextItem, log: _Log, users: Ints, fitting: NextItemConfig,
    optimiser: torch.optim.Optimizer, generator: torch.Generator,
) -> float:  # fmt: skip
    """One pass over the users; the mean loss."""
    total, asked = 0.0, 0
    for chosen, starts, group in _batches(log, users, fitting, generator):
        batch = log.batch(chosen, starts, fitting.window, group, None, model.residual.device)
        loss, count = model.loss(batch, generator)
        optimiser.zero_grad(set_to_none=True)
        (loss / count).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        total, asked = total + float(loss.detach()), asked + count
    return total / max(asked, 1)


def _parts(log: _Log, fitting: NextItemConfig, generator: torch.Generator) -> tuple[Ints, Ints]:
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


class _Validation:
    """The newest items of held-out users, each predicted from all before it."""

    def __init__(self, log: _Log, users: Ints, fitting: NextItemConfig, device: torch.device) -> None:
        self.repeats = any(
            len(np.unique(log.items[a:b])) < b - a
            for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)
        )
        self.batches = []
        size = fitting.batch_users * 2
        for first in range(0, len(users), size):
            chosen = users[first : first + size]
            starts = np.maximum(log.offsets[chosen + 1] - log.offsets[chosen] - 2 * fitting.window, 0)
            self.batches.append(
                log.batch(chosen, starts, 2 * fitting.window, 1, fitting.validation_places, device)
            )

    @torch.no_grad()
    def loss(self, model: _NextItem) -> float:
        """Mean negative log-likelihood over the whole catalogue."""
        results = [model.loss(batch) for batch in self.batches]
        return sum(float(loss) for loss, _ in results) / sum(count for _, count in results)

    @torch.no_grad()
    def figures(self, model: _NextItem) -> tuple[float, float, float]:
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


def _seen_before(batch: _Batch, where: Tensor, n: int) -> Tensor:
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


def _catalogue_size(text: Tensor | None, knowledge: ItemKnowledge | None, given: int | None) -> int:
    """N, which all that is given must agree on."""
    sizes = {"text_vectors": len(text) if text is not None else None}
    sizes["knowledge"] = len(knowledge.vectors) if knowledge is not None else None
    sizes["catalogue_size"] = given
    known = {name: size for name, size in sizes.items() if size is not None}
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
        raise EncoderError(
            f"feedback is {feedback.shape}; {len(items)} items and {len(bounds)} signals need as many"
        )
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
        raise EncoderError(f"offsets must rise from 0 to {len(items)}, the number of items")
    if profiles.shape != (len(offsets) - 1, p):
        raise EncoderError(
            f"profiles are {profiles.shape}; {len(offsets) - 1} users need ({len(offsets) - 1}, {p})"
        )
