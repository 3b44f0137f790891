"""The state encoder while it is fitted: items' content, relation tables before projection, and the loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.items import ItemEncoder, ItemKnowledge
from recloop.encoders.next_item_batches import Batch, NextItemConfig
from recloop.encoders.state import StateEncoder


class NextItemModel(nn.Module):
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

    def vectors(self, batch: Batch, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
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

    def _running_relations(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The decayed relation sums before each step: (B, T, R, dk), (B, T, R, dv), (B, T, R)."""
        e, (b, t, g) = self.encoder, batch.items.shape
        if self.relation_tables is None:
            none = batch.signals.new_zeros
            return none(b, t, 0, e.config.key_dim), none(b, t, 0, e.config.value_dim), none(b, t, 0)
        weight = e.gate(batch.signals) * batch.held  # (B, T, g)
        rows = F.embedding(batch.items, self.relation_tables.flatten(1)).view(b, t, g, *self.relation_tables.shape[1:])
        present = (rows != 0).any(-1).to(rows.dtype)  # (B, T, g, R)
        # Projections are linear: sum first, project once.
        total = torch.einsum("btg,btgre->btre", weight, rows).flatten(2)
        held = torch.einsum("btg,btgr->btr", weight, present)
        step = torch.arange(t, device=rows.device)
        age = step[:, None] - 1 - step[None, :]  # (T, T): steps between, negative from the step itself on
        decay = torch.where(age >= 0, e.config.decay ** age.clamp_min(0).to(rows.dtype), 0.0)
        running = (decay @ total).view(b, t, *self.relation_tables.shape[1:])
        return e.key_projection(running), e.value_projection(running), decay @ held

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, int]:
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

    def _sampled_loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, int]:
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
