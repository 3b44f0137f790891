"""Users who read what they felt: every signal, and leaving, is one model on these inputs, of trees or a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recloop.encoders.base.artifact import fitted_module
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw, absorb
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.config import AssumedLeaving
from recloop.envs.users.fitted.felt.forest import Forest
from recloop.envs.users.fitted.felt.labelled import Rows
from recloop.envs.users.fitted.felt.network import Network
from recloop.envs.users.fitted.heads import CONSUME, AnswerHeads, chosen, one_of, slate_summary
from recloop.envs.users.fitted.inputs.experience import Experience, ExperienceState, Felt
from recloop.envs.users.fitted.inputs.item_facts import PLACE
from recloop.envs.users.fitted.inputs.slate_context import Recalled
from recloop.envs.users.fitted.inputs.surroundings import alone as alone_at_top
from recloop.envs.users.fitted.inputs.surroundings import in_slates
from recloop.envs.users.fitted.inputs.tastes import default_prior
from recloop.envs.users.fitted.memory import Sizes

LEAVE, DAYS = "leave", "days away"
"""Names of the models that are of no signal."""
ABOVE = "answers above"
"""The inputs that are known only while a slate is being answered."""
_ROWS = 1 << 16
"""Rows whose inputs are laid out at once when a catalogue is scored."""
_SAMPLES = 8
"""Answers drawn where an expectation over them has no closed form."""


class Model(Protocol):
    """From inputs to raw scores."""

    @property
    def learned(self) -> bool:
        """Whether it is more than a constant."""

    @property
    def size(self) -> int:
        """Trees, or passes of its fit."""

    def scores(self, inputs: Tensor) -> Tensor:
        """Raw scores of rows (R, F) -> (R,): logits, or values."""

    def of(self, inputs: Rows) -> npt.NDArray[np.float64]:
        """The same of NumPy rows."""

    def tensors(self) -> dict[str, Tensor]:
        """For safetensors; `read` undoes it."""

    @classmethod
    def read(cls, stored: dict[str, Tensor]) -> Self:
        """From what `tensors` gave."""


class FeltUsers(FittedUsers):
    """Fitted users who read `Experience` through one model a signal; see `FittedUsers`.

    Args:
        signals, sizes, leaving: see `FittedUsers`.
        memory: of what was felt, with the facts of the items.
        models: by signal, `leave` and `days away`.
        hears: whether places know what was taken of those above.
    """

    artifact_format = 3
    memory: Experience
    model: ClassVar[type[Model]]

    def __init__(
        self,
        signals: Sequence[Signal],
        sizes: Sizes,
        leaving: AssumedLeaving | None,
        *,
        memory: Experience | None = None,
        models: Mapping[str, Model] | None = None,
        hears: bool = False,
    ) -> None:
        super().__init__(signals, sizes, leaving)
        self.memory = memory or Experience(self.signals, sizes, self.groups)
        self.groups = self.memory.groups
        self.heads = AnswerHeads(self.signals, sizes.catalogue_size)
        self.models, self.hears = dict(models or {}), hears

    def parts(self) -> nn.ModuleDict:
        """The facts of the items, and calibration; the models lie beside them."""
        return nn.ModuleDict({"memory": self.memory, "heads": self.heads})

    def read_items(self, vectors: Tensor) -> Tensor:
        """Table what is read of items (N+1, d), for users who are being fitted: (N+1, T)."""
        self._columns = self._table_items(vectors)
        return self._columns

    def _table_items(self, vectors: Tensor) -> Tensor:
        return self.memory.columns(vectors)

    def met(self, state: ExperienceState, draw: Draw) -> ExperienceState:
        """Each of them somebody whose taste stays."""
        return self.memory.met(state, draw)

    @torch.no_grad()
    def answer(self, state: ExperienceState, past: Past, slate: Tensor, draw: Draw) -> Response:
        """As `respond`, without the state that follows."""
        heads, held = self.heads, slate < self.sizes.catalogue_size
        felt, rows = self.memory.felt(state), self._columns_of(slate)
        inputs = self.item_inputs(felt, _recalled(past), slate, rows)
        luck = torch.logit(draw.uniform(CONSUME, slate)).masked_fill(~held, torch.inf)

        def decide(score: Tensor, place: int) -> Tensor:
            return (luck[:, place] < score).to(score.dtype)

        score, decided = self._consumption(inputs, slate, rows, decide)
        if bool(heads.one_at_most):
            consumed = one_of(score, held, draw, slate)
        else:
            consumed = (luck < score).to(score.dtype) if decided is None else decided
        scores = torch.stack([score, *self._others(inputs, held & (consumed > 0.5), held)], dim=-1)
        signals, given = heads.sample(scores, slate, draw, consumed)
        if self.leaving is not None and not self.sizes.days:
            chance = self._assumed_chance(consumed.amax(1))
            return Response(signals, given, draw.uniform("leave") < chance)
        appeal = chosen(score, held) if bool(heads.one_at_most) else torch.sigmoid(score)
        ended = self.slate_inputs(felt, slate, rows, signals, given, appeal)
        chance = self._assumed_chance(consumed.amax(1)) if self.leaving is not None else self._leave(ended)
        days = None
        if self.sizes.days:
            spread = torch.nn.functional.softplus(heads.gap_spread)
            mean = self.models[DAYS].scores(ended)
            days = torch.expm1(mean + spread * draw.normal(DAYS)).clamp_min(0)
        return Response(signals, given, draw.uniform("leave") < chance, days)

    @torch.no_grad()
    def expected(self, state: ExperienceState, past: Past, slate: Tensor) -> Expected:
        """Calibrated means with position effects; 0 at empty places. What leaving owes to the answers is a mean over
        eight of them, drawn by item; of users who are only watched, all of it is a mean over eight tastes."""
        if not self.memory.persons or bool(state.known.all()):
            return self._expected(state, past, slate)
        lanes = torch.arange(len(slate), device=slate.device)
        drawn = [self.memory.met(state, Draw(absorb(lanes, number))) for number in range(_SAMPLES)]
        found = [self._expected(one, past, slate) for one in drawn]
        leaves = torch.stack([one.leave for one in found if one.leave is not None])
        return Expected(mean=torch.stack([one.mean for one in found]).mean(0), leave=leaves.mean(0))

    def _expected(self, state: ExperienceState, past: Past, slate: Tensor) -> Expected:
        heads, held = self.heads, slate < self.sizes.catalogue_size
        felt, rows = self.memory.felt(state), self._columns_of(slate)
        inputs = self.item_inputs(felt, _recalled(past), slate, rows)

        def decide(score: Tensor, place: int) -> Tensor:
            return torch.sigmoid(score) * held[:, place]

        score, _ = self._consumption(inputs, slate, rows, decide)
        scores = torch.stack([score, *self._others(inputs, held, held)], dim=-1)
        mean = heads.means(scores, held) * held.unsqueeze(-1)
        appeal = mean[..., 0]
        anything = appeal.sum(-1) if bool(heads.one_at_most) else 1 - (1 - appeal).prod(-1)
        if self.leaving is not None:
            return Expected(mean=mean, leave=self._assumed_chance(anything))
        leave = torch.zeros_like(anything)
        for number in range(_SAMPLES):
            luck = Draw(torch.full_like(slate[:, 0], number))
            if bool(heads.one_at_most):
                consumed = one_of(score, held, luck, slate)
            else:
                consumed = ((luck.uniform(CONSUME, slate) < appeal) & held).to(score.dtype)
            signals, given = heads.sample(scores, slate, luck, consumed)
            leave += self._leave(self.slate_inputs(felt, slate, rows, signals, given, appeal)) / _SAMPLES
        return Expected(mean=mean, leave=leave)

    @torch.no_grad()
    def utility(self, state: ExperienceState, past: Past, items: Tensor) -> Tensor:
        """Consumption logits of items, each shown alone at the top: (B, C) or (C,) -> (B, C)."""
        items = items.expand(len(past.step), -1) if items.dim() == 1 else items
        lanes = max(_ROWS // max(items.shape[1], 1), 1)
        found = []
        for some in torch.split(torch.arange(len(items), device=items.device), lanes):
            felt = self.memory.felt(state.rows(some))
            lately = _recalled(replace(past, seen=None).rows(some))
            inputs = self.item_inputs(felt, lately, items[some], self._columns_of(items[some]), alone=True)
            raw = self.models[self.signals[0].name].scores(self._heard(inputs, None).flatten(0, 1))
            found.append(raw.view(inputs.shape[:2]))
        return torch.cat(found) * self.heads.scale[0] + self.heads.shift[0]

    def item_parts(
        self, felt: Felt, past: Recalled, items: Tensor, rows: Tensor, alone: bool = False
    ) -> dict[str, Tensor]:
        """What the models of signals read of items (B, K), by group of inputs, (B, K, n) each."""
        found = self.memory.of_items(felt, past, items, rows, self._read_columns)
        if self.sizes.exposures:
            if alone:
                found |= alone_at_top(self.groups, items, found)
            else:
                found |= in_slates(self.groups, self.sizes.positions, items, rows, found)
        k = items.shape[1]
        return found | {name: part.unsqueeze(1).expand(-1, k, -1) for name, part in felt.users.items()}

    @torch.no_grad()
    def read_inputs(self, state: ExperienceState, past: Past, slate: Tensor) -> dict[str, Tensor]:
        """What the models of signals read of slates (B, K) before these are answered, (B, K, n) by group of inputs."""
        return self.item_parts(self.memory.felt(state), _recalled(past), slate, self._columns_of(slate))

    def item_inputs(self, felt: Felt, past: Recalled, items: Tensor, rows: Tensor, alone: bool = False) -> Tensor:
        """The same side by side, (B, K, F)."""
        return torch.cat(list(self.item_parts(felt, past, items, rows, alone).values()), dim=-1)

    def above(
        self, slate: Tensor, rows: Tensor, consumed: Tensor, place: int | None = None, same: Tensor | None = None
    ) -> Tensor:
        """Of each place of slates (B, K), or of one, what was consumed (B, K) at those above it: (B, K or 1, n);
        `same` (B, K, K, G) is which items belong together."""
        k = slate.shape[1]
        same = self.groups.same(slate).to(rows.dtype) if same is None else same
        placed = rows[..., :PLACE]
        here = slice(None) if place is None else slice(place, place + 1)
        taken = consumed.unsqueeze(1) * torch.ones(k, k, device=slate.device).tril(-1)[here]  # (B, K or 1, K)
        by_group = (same[:, here] * taken.unsqueeze(-1)).sum(2)
        alike = (placed[:, here] @ placed.transpose(1, 2) * taken).sum(2, keepdim=True)
        return torch.cat([by_group, taken.sum(2, keepdim=True), alike], dim=-1)

    def slate_parts(
        self, felt: Felt, slate: Tensor, rows: Tensor, signals: Tensor, given: Tensor, appeal: Tensor
    ) -> dict[str, Tensor]:
        """What the model of leaving reads of answered slates (B, K), by group of inputs, (B, n) each."""
        held = slate < self.sizes.catalogue_size
        step = self.memory.inputs(rows, slate, signals, shown=True)
        after = self.memory.after(felt, step)
        summary = slate_summary(self.signals, signals, given.to(signals.dtype), appeal, held, felt.state.steps)
        users = {name: felt.users[name] for name in ("peaks over groups", "time", "profile")}
        return {"this slate": summary, **after, **users}

    def slate_inputs(
        self, felt: Felt, slate: Tensor, rows: Tensor, signals: Tensor, given: Tensor, appeal: Tensor
    ) -> Tensor:
        """The same side by side, (B, F)."""
        return torch.cat(list(self.slate_parts(felt, slate, rows, signals, given, appeal).values()), dim=-1)

    def stored_facts(self) -> dict[str, Any]:
        """Beside what all families keep: the models' names, and whether places hear those above."""
        more = {"models": sorted(self.models), "hears": self.hears, "persons": self.memory.persons}
        return {**super().stored_facts(), **more}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Facts, calibration, and the models' own."""
        own = {f"model.{name}.{part}": x for name, model in self.models.items() for part, x in model.tensors().items()}
        return {**super().stored_tensors(), **own}

    @classmethod
    def migrated(
        cls, facts: dict[str, Any], tensors: dict[str, Tensor], found: int
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Format 2 knew trees alone, under names of their own, and no taste that stays."""
        if found < 2:
            return super().migrated(facts, tensors, found)
        facts = {**facts, "models": facts["forests"], "persons": False}
        renamed = {
            f"model.{name.removeprefix('forest.')}.trees" if name.startswith("forest.") else name: value
            for name, value in tensors.items()
        }
        prior = default_prior(tensors["memory.rate"])
        return facts, {**renamed, **{f"memory.{name}": value for name, value in prior.items()}}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        signals, sizes, leaving = cls.stored_sizes(facts)
        wanted = {signal.name for signal in signals}
        wanted |= (set() if leaving else {LEAVE}) | ({DAYS} if sizes.days else set())
        if wanted - set(facts["models"]):
            lacking = ", ".join(sorted(wanted - set(facts["models"])))
            raise UserSimulatorError(f"{folder} lacks models of {lacking}; fit the users anew")
        models = {}
        for name in facts["models"]:
            prefix = f"model.{name}."
            mine = [key for key in tensors if key.startswith(prefix)]
            models[name] = cls.model.read({key.removeprefix(prefix): tensors.pop(key) for key in mine})
        users = cls(signals, sizes, leaving, models=models, hears=facts["hears"])
        users.memory.persons = facts["persons"]
        fitted_module(users.parts(), tensors)
        users.parts().requires_grad_(False)
        return users

    def _consumption(
        self, inputs: Tensor, slate: Tensor, rows: Tensor, decide: Callable[[Tensor, int], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Calibrated scores (B, K), and what was decided (B, K), place by place, where places hear those above."""
        model, heads = self.models[self.signals[0].name], self.heads
        b, k = slate.shape
        if not self.hears or bool(heads.one_at_most) or k == 1:
            raw = model.scores(self._heard(inputs, None).flatten(0, 1)).view(b, k)
            return raw * heads.scale[0] + heads.shift[0], None
        consumed, scores = torch.zeros_like(inputs[..., 0]), []
        same = self.groups.same(slate).to(rows.dtype)
        for place in range(k):
            above = self.above(slate, rows, consumed, place, same)[:, 0]
            raw = model.scores(torch.cat([inputs[:, place], above], dim=1))
            score = raw * heads.scale[0] + heads.shift[0]
            taken = decide(score, place)
            consumed = torch.cat([consumed[:, :place], taken.unsqueeze(1), consumed[:, place + 1 :]], dim=1)
            scores.append(score)
        return torch.stack(scores, dim=1), consumed

    def _heard(self, inputs: Tensor, above: Tensor | None) -> Tensor:
        """Inputs (B, K, F) of consumption, with what was consumed above where places hear it; by default nothing."""
        if not self.hears:
            return inputs
        if above is None:
            above = inputs.new_zeros(*inputs.shape[:2], len(self.groups.sizes) + 2)
        return torch.cat([inputs, above], dim=-1)

    def _others(self, inputs: Tensor, consumed: Tensor, held: Tensor) -> list[Tensor]:
        """Calibrated scores (B, K) of the signals after the first, at the places where they may be given."""
        found = []
        on_consumption = {0}
        for s, parent in self.heads.order:
            if parent in on_consumption:
                on_consumption.add(s)
        for s, signal in enumerate(self.signals[1:], start=1):
            where = consumed if s in on_consumption else held
            raw = torch.zeros_like(inputs[..., 0])
            raw[where] = self.models[signal.name].scores(inputs[where])
            found.append(raw * self.heads.scale[s] + self.heads.shift[s])
        return found

    def _leave(self, ended: Tensor) -> Tensor:
        heads = self.heads
        return torch.sigmoid(self.models[LEAVE].scores(ended) * heads.leave_scale + heads.leave_shift)


class TreeUsers(FeltUsers):
    """Users whose models are boosted trees. These are walked on the host: on a GPU every step waits for it."""

    kind = "trees"
    model = Forest


class NetworkUsers(FeltUsers):
    """Users whose models are small neural networks, on the device of the users."""

    kind = "network"
    model = Network


def _recalled(past: Past) -> Recalled:
    return Recalled(past.history, past.feedback, past.shown, past.answers)
