"""The state encoder while it is fitted: items' content, relation tables before projection, and the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.items.encoder import ItemEncoder, ItemKnowledge
from recloop.encoders.state.batches import Batch, NextItemConfig
from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.state.layers import running_sums

RIDGES = tuple(10.0 ** (k / 2) for k in range(-4, 9))
_FEWEST_SEEN = 20
_LEAST_EXPLAINED = 0.05


class NextItemModel(nn.Module):
    """The state encoder with what it needs to be fitted: items' content and the tables before projection."""

    relation_tables: Tensor | None
    sampling: Tensor
    counts: Tensor

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
        self.residual = nn.Parameter(torch.zeros(n, d), requires_grad=fitting.ids or not items.sources)
        self.scale = nn.Parameter(torch.ones(()))
        share = (counts + 0.5) / (counts.sum() + 0.5 * n)
        self.popularity = nn.Parameter(share.log())
        self.register_buffer("relation_tables", knowledge.tables.float() if knowledge else None)
        # What nobody consumed was perhaps not there: it is no negative, and its content is not pushed away.
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("sampling", F.normalize(share**0.75 * (counts > 0), p=1, dim=0), persistent=False)

    def out_items(self, rows: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """Items as inputs and scores read them: content, scaled, and a learned residual, where `kept` (N,) keeps it."""
        residual = self.residual if kept is None else self.residual * kept.unsqueeze(1)
        residual = residual if rows is None else F.embedding(rows, residual)
        table: Tensor = self.items(rows) * self.scale + residual
        return table

    def vectors(self, batch: Batch, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """The user before each of T steps, (B, T, d), from the vectors of the batch's items (B, T, g, d)."""
        e = self.encoder
        blank = e.blank(batch.profiles)
        if generator is not None:
            inputs = _drop(inputs, self.fitting.dropout, generator)
        weight = e.gate(batch.signals) * batch.held  # (B, T, g)
        looks = e.looks(inputs) * weight.unsqueeze(-1)  # (B, T, g, M)
        decay = weight.new_full((e.config.pooled,), e.config.decay)
        patterns = running_sums(torch.einsum("btgm,btgd->btmd", looks, inputs), decay)
        mass = running_sums(looks.sum(2).unsqueeze(-1), decay).squeeze(-1)
        hidden = blank.hidden.unsqueeze(1).expand(-1, inputs.shape[1], -1)
        if e.recurrent:
            steps = e.cell_input(e.step_input(inputs, batch.signals, batch.held), patterns, mass)[:, :-1]
            hidden = blank.hidden.unsqueeze(1)
            if steps.shape[1]:
                hidden = torch.cat([hidden, e.sequence(steps, e.memory(blank))[0]], dim=1)  # (B, T, dh)
        keys, values, presence = self._running_relations(batch, weight)
        behavior = None if batch.behavior is None else e.behavior_token(batch.behavior)
        count = torch.arange(inputs.shape[1], device=inputs.device)
        before = EncoderState(
            hidden, keys, values, presence, count, _before(patterns), _before(mass), behavior=behavior
        )
        vector = e.read(before)[0]
        return vector if generator is None else _drop(vector, self.fitting.dropout, generator)

    def _running_relations(self, batch: Batch, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The decayed relation sums before each step: (B, T, R, dk), (B, T, R, dv), (B, T, R)."""
        e, (b, t, g) = self.encoder, batch.items.shape
        if self.relation_tables is None or e.fusion is None:
            none, r = batch.signals.new_zeros, len(e.relations)
            return none(b, t, r, e.config.key_dim), none(b, t, r, e.config.value_dim), none(b, t, r)
        rows = F.embedding(batch.items, self.relation_tables.flatten(1)).view(b, t, g, *self.relation_tables.shape[1:])
        present = (rows != 0).any(-1).to(rows.dtype)  # (B, T, g, R)
        decay = weight.new_full((rows.shape[3],), e.config.decay)
        # Projections are linear: sum first, project once.
        running = running_sums(torch.einsum("btg,btgre->btre", weight, rows), decay)
        held = running_sums(torch.einsum("btg,btgr->btr", weight, present).unsqueeze(-1), decay).squeeze(-1)
        return e.key_projection(_before(running)), e.value_projection(_before(running)), _before(held)

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, int]:
        """Summed negative log-likelihood of every item of every step given the steps before, and how many."""
        n = self.items.catalogue_size
        if generator is not None and n > self.fitting.full_softmax_limit:
            return self._sampled_loss(batch, generator)
        table = self.out_items(kept=self._kept(generator))
        inputs = F.embedding(batch.items.clamp_max(n - 1), table)
        vectors = self.vectors(batch, inputs, generator)
        asked = batch.asked.any(-1)
        popularity = self.popularity.masked_fill(self.counts == 0, -math.inf)
        log_p = F.log_softmax(vectors[asked] @ table.T + popularity, dim=-1)  # (P, N)
        targets = torch.where(batch.asked, batch.items, -100)[asked]  # (P, g)
        parts = [F.nll_loss(log_p, targets[:, j], reduction="sum") for j in range(targets.shape[1])]
        return torch.stack(parts).sum(), int(batch.asked.sum())

    def _sampled_loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, int]:
        """`loss` over the target and shared negatives, each logit less the log of how often it is sampled."""
        device, m = batch.items.device, self.fitting.negatives
        draws = torch.rand(m, generator=generator, dtype=torch.float64).to(device)
        edges = self.sampling.double().cumsum(0)
        negatives = torch.searchsorted(edges, draws * edges[-1], right=True).clamp_max(self.items.catalogue_size - 1)
        used = torch.cat([negatives, batch.items[batch.held]])
        rows, places = torch.unique(used, return_inverse=True)
        table = self.out_items(rows, self._kept(generator))
        local = torch.zeros_like(batch.items)
        local[batch.held] = places[m:]
        vectors = self.vectors(batch, F.embedding(local, table), generator)
        where = batch.asked.nonzero()  # (P, 3)
        # Looked up as an embedding, whose gradient adds up in a fixed order; that of plain indexing does not.
        users = F.embedding(where[:, 0] * vectors.shape[1] + where[:, 1], vectors.flatten(0, 1))  # (P, d)
        target = batch.items[batch.asked]  # (P,)
        correction = torch.log(m * self.sampling)
        popularity = self.popularity - correction
        own = (users * F.embedding(local[batch.asked], table)).sum(-1) + F.embedding(target, popularity[:, None])[:, 0]
        other = users @ F.embedding(places[:m], table).T + F.embedding(negatives, popularity[:, None])[:, 0]
        other = other.masked_fill(negatives == target[:, None], -math.inf)
        logits = torch.cat([own[:, None], other], dim=1)
        return -torch.log_softmax(logits, dim=1)[:, 0].sum(), len(where)

    def _kept(self, generator: torch.Generator | None) -> Tensor | None:
        """Which items keep their residual in this batch: float32 (N,), or None where all do.

        Items whose residual is gone are known by their content alone, as those that nobody consumed will be
        (DropoutNet, Volkovs et al. 2017).
        """
        share = self.fitting.ids_dropout
        if generator is None or share <= 0 or not self.items.sources or not self.residual.requires_grad:
            return None
        return (torch.rand(len(self.residual), generator=generator) >= share).to(self.residual)

    @torch.no_grad()
    def freeze(self) -> None:
        """Write the fitted items into the encoder's tables and stop all gradients."""
        popularity = popularity_of_unseen(self.items(), self.popularity, self.counts)
        self.encoder.set_items(self.items(), self.relation_tables, self.out_items(), popularity)
        self.encoder.requires_grad_(False)
        self.encoder.eval()


def _before(running: Tensor) -> Tensor:
    """Sums after each of T steps (B, T, ...) -> those before it."""
    return torch.cat([torch.zeros_like(running[:, :1]), running[:, :-1]], dim=1)


def _drop(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout from a generator of its own."""
    if share <= 0:
        return x
    keep = torch.rand(x.shape, generator=generator).to(x.device) >= share
    return x * keep / (1 - share)


def popularity_of_unseen(item_vectors: Tensor, popularity: Tensor, counts: Tensor) -> Tensor:
    """Give items that nobody consumed in the fit the log-popularity that their content predicts.

    A fitted popularity of an item without a single interaction says that it was held out or is new, not that nobody
    wants it. It becomes the logarithm of the popularity to be expected of such content: what ridge regression from the
    vectors of seen items predicts, plus half the variance it leaves (the mean of a log-normal), within the range of
    what was seen. Where content explains less than a twentieth of the seen items' popularity, all such items get the
    expected popularity of any item; where fewer than 20 items were seen, nothing is changed.

    Args:
        item_vectors: float32 (N, d), what content says of the items.
        popularity: float32 (N,) log-popularity, fitted.
        counts: (N,) how often each item was consumed in the fit; 0 is unseen.

    Returns:
        float32 (N,): as given for seen items.
    """
    seen = counts > 0
    if int(seen.sum()) < _FEWEST_SEEN:
        return popularity
    known = popularity[seen]
    fit = fit_ridge(item_vectors[seen], known)
    if fit.explained >= _LEAST_EXPLAINED:
        predicted = fit(item_vectors) + known.double().var() * (1 - fit.explained) / 2
    else:
        predicted = known.double().exp().mean().log().expand(len(popularity))
    return torch.where(seen, popularity, predicted.to(popularity.dtype).clamp(known.min(), known.max()))


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression, in float64.

    Args:
        centre: (d,) mean of the inputs.
        mean: () mean of the targets.
        slope: (d,).
        explained: R² with every target predicted by the fit without it; 0 where all targets are equal.
    """

    centre: Tensor
    mean: Tensor
    slope: Tensor
    explained: float

    def __call__(self, x: Tensor) -> Tensor:
        """Predictions (b,) for inputs (b, d)."""
        return (x.double() - self.centre) @ self.slope + self.mean


def fit_ridge(x: Tensor, y: Tensor) -> Ridge:
    """Ridge regression (Hoerl and Kennard 1970) of y (M,) on x (M, d), with the ridge of `RIDGES` whose squared
    leave-one-out error, in closed form (PRESS, Allen 1974), is least."""
    x, y = x.double(), y.double()
    centre, mean = x.mean(0), y.mean()
    x, y = x - centre, y - mean
    size, axes = torch.linalg.eigh(x.T @ x)
    size, turned = size.clamp_min(0), x @ axes  # (M, d): orthogonal columns, of squared length `size`
    against = turned.T @ y
    errors = torch.stack([_left_out(turned, against, size, y, ridge) for ridge in RIDGES])
    best = int(errors.argmin())
    alone = (y * len(y) / (len(y) - 1)).square().sum()  # each less the mean of the others
    explained = 1 - float(errors[best] / alone) if alone > 0 else 0.0
    return Ridge(centre, mean, axes @ (against / (size + RIDGES[best])), explained)


def _left_out(turned: Tensor, against: Tensor, size: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Sum of squared errors of M targets, each predicted by the fit without it."""
    shrunk = turned / (size + ridge)
    lever = (shrunk * turned).sum(1) + 1 / len(y)
    return ((y - shrunk @ against) / (1 - lever).clamp_min(1e-6)).square().sum()
