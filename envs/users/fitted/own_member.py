"""An ensemble stepped at the price of one member: in each lane the one who answers, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.simulation.compiling import Compiled
from recloop.envs.users.fast import CompiledUsers, NativeForm, NativeUsers, Respond
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.memory import FittedState
from recloop.envs.users.fitted.recurrent import recurrent_form

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData

_PIECE = 256
"""Lanes of one member that generated code answers at once: it is made for one size."""
_LANES = 2048
"""Lanes of one member that are answered at once on the CPU: more would not stay in its cache."""


@dataclass(frozen=True)
class OwnMemberState(State):
    """State of users each of whom is one member of an ensemble.

    Args:
        member: int64 (B,) who answers in this lane.
        own: that member's state of it.
    """

    member: Tensor
    own: FittedState


@dataclass(frozen=True)
class _StepInputs(TensorStruct):
    """What a member is asked in its lanes."""

    own: FittedState
    past: Past
    slate: Tensor
    draw: Draw


@dataclass(frozen=True)
class _Answered(TensorStruct):
    """What a member gives back of them."""

    own: FittedState
    response: Response


_Answerer = Callable[[_StepInputs], _Answered]


class OwnMemberUsers(CompiledUsers, NativeUsers):
    """The members of an ensemble, each answering in its lanes and following nothing else.

    The answers are those of `EnsembleUsers`; the members' disagreement is not known here. On the CPU the lanes are
    sorted by member; on a GPU and under `torch.compile`, where shapes must not depend on who drew whom, every member
    answers every lane and the lane's own answer is kept.

    Args:
        members: of one family and size.
    """

    def __init__(self, members: Sequence[FittedUsers]) -> None:
        self.members = tuple(members)
        self.signals = members[0].signals
        self._alone: list[Respond] = [partial(_alone, member) for member in self.members]

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare every member, and one table of arrivals."""
        self.device = torch.device(device)
        for member in self.members:
            member.prepare(world, device)
        tabled = [member.arrivals for member in self.members]
        self._arrivals: FittedState = tabled[0].concatenate(tabled)  # (M U) rows
        self._users = len(tabled[0].steps)

    def arrive(self, users: Tensor, draw: Draw) -> OwnMemberState:
        """Who answers, and that member's tabled state."""
        member = drawn_member(draw, len(self.members))
        return OwnMemberState(member, self._arrivals.rows(member * self._users + users))

    def respond(self, state: OwnMemberState, past: Past, slate: Tensor, draw: Draw) -> tuple[OwnMemberState, Response]:
        """The answer of each lane's member."""
        asked = _StepInputs(state.own, replace(past, seen=None), slate, draw)
        if slate.is_cuda or torch.compiler.is_compiling():
            found = _of_member(state.member, [_answered(member, asked) for member in self.members])
        else:
            found = self._sorted(state.member, asked, self._answerers, _LANES)
        return OwnMemberState(state.member, found.own), found.response

    def compiled(self) -> Respond | None:
        """On the CPU each member is compiled for pieces of one size, and lanes are sorted as ever."""
        if self.device.type != "cpu":
            return None
        answerers = [Compiled(answer, "a member of the ensemble", self.device) for answer in self._answerers]

        def respond(state: OwnMemberState, past: Past, slate: Tensor, draw: Draw) -> tuple[OwnMemberState, Response]:
            asked = _StepInputs(state.own, replace(past, seen=None), slate, draw)
            piece = min(max(len(slate) // len(self.members), 1), _PIECE)
            found = self._sorted(state.member, asked, answerers, piece, filled=True)
            return OwnMemberState(state.member, found.own), found.response

        return respond

    def native(self, slate_size: int) -> NativeForm | None:
        """Members that are recurrent and fitted on consumption, as loops."""
        member = torch.arange(len(self.members)).repeat_interleave(self._users)
        return recurrent_form(self.members, OwnMemberState(member, self._arrivals), slate_size)

    def answering(self, state: OwnMemberState) -> Respond:
        """The one member who answers in a single lane."""
        return self._alone[int(state.member)]

    def observe(self, state: OwnMemberState, slate: Tensor, signals: Tensor) -> OwnMemberState:
        """The state after the answers (B, K, S) to slates (B, K)."""
        followed = [member.observe(state.own, slate, signals) for member in self.members]
        return OwnMemberState(state.member, _of_member(state.member, followed))

    def resume(self, state: OwnMemberState, days_away: Tensor, draw: Draw) -> OwnMemberState:
        """Their new session: all members begin it alike."""
        return OwnMemberState(state.member, self.members[0].resume(state.own, days_away, draw))

    def infer(self, past: Past, profile: Tensor) -> OwnMemberState:
        """The guess of each lane's member; lanes go round the members."""
        member = torch.arange(len(profile), device=profile.device) % len(self.members)
        return OwnMemberState(member, _of_member(member, [one.infer(past, profile) for one in self.members]))

    def expected(self, state: OwnMemberState, past: Past, slate: Tensor) -> Expected:
        """What each lane's member expects; its spread is not known."""
        found = [member.expected(state.own, past, slate) for member in self.members]
        leaves = [one.leave for one in found if one.leave is not None]
        return Expected(
            _tensor_of_member(state.member, [one.mean for one in found]), None, _tensor_of_member(state.member, leaves)
        )

    def utility(self, state: OwnMemberState, past: Past, items: Tensor) -> Tensor:
        """That of each lane's member, (B, C)."""
        return _tensor_of_member(state.member, [one.utility(state.own, past, items) for one in self.members])

    def chances(self, state: OwnMemberState, past: Past, items: Tensor) -> Tensor:
        """That of each lane's member, (B, C): that each item is consumed if it is shown alone."""
        return _tensor_of_member(state.member, [one.chances(state.own, past, items) for one in self.members])

    def _sorted(
        self, member: Tensor, asked: _StepInputs, answerers: Sequence[_Answerer], piece: int, filled: bool = False
    ) -> _Answered:
        """Every member answers its own lanes alone, at most `piece` at a time; `filled` makes every piece that long."""
        if not self._looks_back:
            nothing = asked.past.step.new_zeros(len(member), 0)  # nobody reads it: not worth sorting
            asked = replace(asked, past=Past(nothing, nothing, nothing, nothing, nothing, nothing))
        if len(member) == 1:
            return answerers[int(member)](asked)
        order = torch.argsort(member, stable=True)
        counts = torch.bincount(member, minlength=len(self.members)).tolist()
        found = []
        for answer, mine in zip(answerers, torch.split(order, counts), strict=True):
            for lanes in torch.split(mine, piece):
                if len(lanes) == piece or (len(lanes) and not filled):
                    found.append(answer(asked.rows(lanes)))
                elif len(lanes):
                    more = lanes[:1].expand(piece - len(lanes))
                    answered = answer(asked.rows(torch.cat([lanes, more])))
                    found.append(answered.rows(torch.arange(len(lanes))))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        return found[0].concatenate(found).rows(place)

    @property
    def _answerers(self) -> list[_Answerer]:
        return [partial(_answered, member) for member in self.members]

    @property
    def _looks_back(self) -> bool:
        return self.members[0].memory.looks_back


def drawn_member(draw: Draw, members: int) -> Tensor:
    """int64 (B,): who answers in each lane."""
    return (draw.uniform("member") * members).long().clamp(max=members - 1)


def _answered(member: FittedUsers, asked: _StepInputs) -> _Answered:
    return _Answered(*member.respond(asked.own, asked.past, asked.slate, asked.draw))


def _alone(
    member: FittedUsers, state: OwnMemberState, past: Past, slate: Tensor, draw: Draw
) -> tuple[OwnMemberState, Response]:
    """`respond` where every lane is this member's."""
    own, response = member.respond(state.own, past, slate, draw)
    return OwnMemberState(state.member, own), response


L = TypeVar("L", bound=TensorStruct)


def _of_member(member: Tensor, found: Sequence[L]) -> L:
    """Lane by lane, what its own member found."""
    own = found[0]
    for number, other in enumerate(found[1:], start=1):
        own = own.where(member == number, other)
    return own


def _tensor_of_member(member: Tensor, found: Sequence[Tensor]) -> Tensor:
    """Likewise, of tensors (B, ...)."""
    lanes = torch.arange(len(member), device=member.device)
    return torch.stack(list(found))[member, lanes]
