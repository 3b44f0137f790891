"""An ensemble of fitted users: each lane meets one member, and the members' disagreement says what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import SpreadFreeUsers
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.memory import FittedState
from recloop.envs.users.fitted.own_member import OwnMemberUsers, drawn_member

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


@dataclass(frozen=True)
class EnsembleState(State):
    """State of an ensemble: every member's guess of the same user.

    Args:
        member: int64 (B,) who answers in this lane.
        states: one a member, each of B lanes.
    """

    member: Tensor
    states: tuple[FittedState, ...]

    def where(self, mask: Tensor, other: Self) -> Self:
        """See `TensorStruct.where`."""
        states = tuple(mine.where(mask, theirs) for mine, theirs in zip(self.states, other.states, strict=True))
        return type(self)(torch.where(mask, other.member, self.member), states)

    def rows(self, index: Tensor) -> Self:
        """See `TensorStruct.rows`."""
        return type(self)(self.member[index], tuple(state.rows(index) for state in self.states))

    def put(self, index: Tensor, other: Self) -> Self:
        """See `TensorStruct.put`."""
        states = tuple(mine.put(index, theirs) for mine, theirs in zip(self.states, other.states, strict=True))
        return type(self)(self.member.index_copy(0, index, other.member), states)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """See `TensorStruct.concatenate`."""
        columns = zip(*(part.states for part in parts), strict=True)
        states = tuple(column[0].concatenate(list(column)) for column in columns)
        return cls(torch.cat([part.member for part in parts]), states)


class EnsembleUsers(SpreadFreeUsers, Artifact):
    """Users fitted several times on bootstrapped users of one log (Efron 1979; Lakshminarayanan et al. 2017).

    A lane's user is one of the members for the whole episode, drawn at arrival, so that what the log leaves open is
    met as several worlds rather than as their average. All members follow every answer: `expected` returns the mean
    over them, and their standard deviation as the spread. Whoever does not need that steps `without_spread()`.

    Args:
        members: fitted alike, of one log.
    """

    artifact_file = "ensemble"
    artifact_error = UserSimulatorError

    kind: ClassVar[str] = "ensemble"

    def __init__(self, members: Sequence[FittedUsers]) -> None:
        if not members:
            raise UserSimulatorError("an ensemble of no members cannot answer; give one or more")
        if any(member.signals != members[0].signals for member in members):
            raise UserSimulatorError("the members of an ensemble answer with different signals; fit them on one log")
        self.members = tuple(members)
        self.signals = members[0].signals

    def without_spread(self) -> UserSimulator:
        """The same users with the same answers, each lane followed by its own member alone.

        These users are left as they are, so that two cores may step them in two ways.
        """
        alike = len({(member.kind, member.sizes) for member in self.members}) == 1
        return OwnMemberUsers(self.members) if alike else self

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare every member."""
        self.device = torch.device(device)
        for member in self.members:
            member.prepare(world, device)

    def arrive(self, users: Tensor, draw: Draw) -> EnsembleState:
        """Every member's tabled state, and who answers."""
        return EnsembleState(
            drawn_member(draw, len(self.members)), tuple(member.arrive(users, draw) for member in self.members)
        )

    def respond(self, state: EnsembleState, past: Past, slate: Tensor, draw: Draw) -> tuple[EnsembleState, Response]:
        """The answer of each lane's member; every member sees it."""
        states = tuple(m.met(s, draw) for m, s in zip(self.members, state.states, strict=True))
        state = EnsembleState(state.member, states)
        answers = [m.answer(s, past, slate, draw) for m, s in zip(self.members, state.states, strict=True)]
        response = answers[0]
        for number, other in enumerate(answers[1:], start=1):
            response = response.where(state.member == number, other)
        return self.observe(state, slate, response.signals), response

    def observe(self, state: EnsembleState, slate: Tensor, signals: Tensor) -> EnsembleState:
        """The state after the answers (B, K, S) to slates (B, K)."""
        followed = [m.observe(s, slate, signals) for m, s in zip(self.members, state.states, strict=True)]
        return EnsembleState(state.member, tuple(followed))

    def resume(self, state: EnsembleState, days_away: Tensor, draw: Draw) -> EnsembleState:
        """Every member's new session."""
        resumed = [m.resume(s, days_away, draw) for m, s in zip(self.members, state.states, strict=True)]
        return EnsembleState(state.member, tuple(resumed))

    def infer(self, past: Past, profile: Tensor) -> EnsembleState:
        """Every member's guess; lanes go round the members."""
        lanes = torch.arange(len(profile), device=profile.device) % len(self.members)
        return EnsembleState(lanes, tuple(member.infer(past, profile) for member in self.members))

    def expected(self, state: EnsembleState, past: Past, slate: Tensor) -> Expected:
        """Mean over the members, their standard deviation (0 for one member), and how far the farthest of them is."""
        found = [m.expected(s, past, slate) for m, s in zip(self.members, state.states, strict=True)]
        means = torch.stack([one.mean for one in found])
        leaves = torch.stack([one.leave for one in found if one.leave is not None])
        mean = means.mean(0)
        return Expected(mean, means.std(0, unbiased=False), leaves.mean(0), (means - mean).abs().amax(0))

    def utility(self, state: EnsembleState, past: Past, items: Tensor) -> Tensor:
        """Mean over the members."""
        found = [m.utility(s, past, items) for m, s in zip(self.members, state.states, strict=True)]
        return torch.stack(found).mean(0)

    def chances(self, state: EnsembleState, past: Past, items: Tensor) -> Tensor:
        """Mean over the members of the probability that each item is consumed if it is shown alone, (B, C)."""
        found = [m.chances(s, past, items) for m, s in zip(self.members, state.states, strict=True)]
        return torch.stack(found).mean(0)

    def stored_facts(self) -> dict[str, Any]:
        """The members' kinds."""
        return {"kinds": [member.kind for member in self.members]}

    def stored_children(self) -> dict[str, Artifact]:
        """The members."""
        return {f"member-{number}": member for number, member in enumerate(self.members)}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        from recloop.envs.users.fitted.fitting.fit import FAMILIES

        return cls([FAMILIES[kind].load(folder / f"member-{n}") for n, kind in enumerate(facts["kinds"])])
