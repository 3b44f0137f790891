"""Users who look at a slate together, each of whom answers for themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.past import remember
from recloop.envs.interaction.randomness import Draw, absorb
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import SpreadFreeUsers
from recloop.envs.users.together.members import each_alone, group_signals, of_group, of_members, own_histories
from recloop.envs.world.data import WorldData
from recloop.envs.world.world import World


@dataclass(frozen=True)
class GroupResponse(Response):
    """A group's answer to a slate.

    Args:
        before: float32 (B, g) how many items each member had taken in this episode before the slate.
    """

    before: Tensor | None = None


@dataclass(frozen=True)
class GroupState(State):
    """Groups of g members: B groups, whose members are B g lanes of the inner simulator.

    Args:
        inner: the inner simulator's state of B g users.
        history, feedback: int64 (B g, H), float32 (B g, H, S) what each member consumed; see `Past`.
        shown, answers: (B g, L, W), (B g, L, W, S) the slates each was shown alone before the episode, from the log.
        enough: bool (B, g) who has wanted to leave in this session.
        got: float32 (B, g) items each has taken in this episode.
    """

    inner: Any
    history: Tensor
    feedback: Tensor
    shown: Tensor
    answers: Tensor
    enough: Tensor
    got: Tensor

    def where(self, mask: Tensor, other: Self) -> Self:
        """See `TensorStruct.where`."""
        size = self.got.shape[1]

        def pick(mine: Any, theirs: Any) -> Any:
            if not isinstance(mine, Tensor):
                return mine.where(mask.repeat_interleave(size), theirs)
            lanes = mask if len(mine) == len(mask) else mask.repeat_interleave(size)
            return torch.where(lanes.view(-1, *[1] * (mine.dim() - 1)), theirs, mine)

        return replace(self, **{name: pick(mine, getattr(other, name)) for name, mine in self.held().items()})

    def rows(self, index: Tensor) -> Self:
        """See `TensorStruct.rows`."""
        groups, size = self.got.shape
        own = (index.unsqueeze(1) * size + torch.arange(size, device=index.device)).flatten()

        def pick(mine: Any) -> Any:
            if not isinstance(mine, Tensor):
                return mine.rows(own)
            return mine.index_select(0, index if len(mine) == groups else own)

        return replace(self, **{name: pick(mine) for name, mine in self.held().items()})

    def put(self, index: Tensor, other: Self) -> Self:
        """See `TensorStruct.put`."""
        lanes = torch.zeros(len(self.got), dtype=torch.int64, device=index.device)
        place = lanes.index_copy(0, index, torch.arange(len(index), device=index.device))
        return self.where(lanes.index_fill(0, index, 1).bool(), other.rows(place))


class GroupUsers(SpreadFreeUsers, Artifact):
    """g users of a world before one slate: each answers as the inner simulator has them answer alone.

    A lane of this simulator is g lanes of the inner one. Members do not see each other: nobody is talked into anything,
    and nobody's answer depends on who sits beside them. Each keeps their own past, warm from the log, and goes on
    taking while the group stays. The group consumes an item (`signals[0]`) where at least half of the members took it;
    it leaves once **more than half** of them have wanted to leave in this session, and comes back when the last of them
    would. In a world where nobody consumes an item twice a member passes over what they have consumed. The luck of
    member 1 is that of the lane, so that a group of one is the user alone.

    Args:
        world: of single users.
        simulator: the name of one of its simulators.
        members: int64 (G, g) rows of its users table; row u is group u.
        fast: step the inner users without what serves their spread alone, see `SpreadFreeUsers`.
    """

    artifact_file = "group"
    artifact_error = UserSimulatorError

    kind: ClassVar[str] = "group"

    def __init__(self, world: World, simulator: str, members: Tensor, *, fast: bool = False) -> None:
        if members.dim() != 2 or members.shape[1] < 1:
            raise UserSimulatorError(
                f"members are {tuple(members.shape)}; give (G, g), a row a group, with g at least 1"
            )
        self.world, self.name, self.members = world, simulator, members
        inner = world.simulator(simulator)
        self.inner = inner.without_spread() if fast and isinstance(inner, SpreadFreeUsers) else inner
        self.size, self.empty = members.shape[1], len(world.catalogue)
        self.signals = group_signals(world.signals, self.size)

    def without_spread(self) -> UserSimulator:
        """The same groups with the same answers."""
        return GroupUsers(self.world, self.name, self.members, fast=True)

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare the inner users, in their own world, and the tables of what members did alone."""
        self.device = torch.device(device)
        self.inner.prepare(self.world, device)
        users = self.world.users
        self._rows = self.members.to(self.device)
        self._tables = [t.to(self.device) for t in (users.history, users.feedback, users.shown, users.answers)]

    def arrive(self, users: Tensor, draw: Draw) -> GroupState:
        """The members as each would arrive alone."""
        rows = self._rows[users].flatten()  # (B g,)
        inner = self.inner.arrive(rows, self._each(draw))
        return self._begun(inner, *(table[rows] for table in self._tables))

    def respond(self, state: GroupState, past: Past, slate: Tensor, draw: Draw) -> tuple[GroupState, GroupResponse]:
        """See the class."""
        size, (b, k) = self.size, slate.shape
        own = self.own_pasts(state, past, k)
        shown = each_alone(slate, size)
        if not self.world.consumes_twice:
            had = (shown.unsqueeze(2) == own.history.unsqueeze(1)).any(2)
            shown = shown.masked_fill(had, self.empty)
        inner, answer = self.inner.respond(state.inner, own, shown, self._each(draw))
        took = (answer.signals[..., 0] > 0.5) & answer.given[..., 0]  # (B g, K)
        grown = remember(own, shown, shown.masked_fill(~took, self.empty), answer.signals, self.empty)
        taken = took.view(b, size, k)
        together = (2 * taken.sum(1) >= size).to(torch.float32)  # (B, K)
        held = slate < self.empty
        enough = state.enough | answer.left.view(b, size)
        after = replace(
            state,
            inner=inner,
            history=grown.history,
            feedback=grown.feedback,
            enough=enough,
            got=state.got + taken.sum(2),
        )
        return after, GroupResponse(
            signals=of_group(together * held, self._by_place(answer.signals * answer.given, b)),
            given=of_group(held, self._by_place(answer.given, b)),
            left=2 * enough.sum(1) > size,
            days_away=None if answer.days_away is None else answer.days_away.view(b, size).amax(1),
            before=state.got,
        )

    def resume(self, state: GroupState, days_away: Tensor, draw: Draw) -> GroupState:
        """Every member's next session; nobody has had enough of it yet."""
        inner = self.inner.resume(state.inner, each_alone(days_away, self.size), self._each(draw))
        return replace(state, inner=inner, enough=torch.zeros_like(state.enough))

    def infer(self, past: Past, profile: Tensor) -> GroupState:
        """The inner simulator's guess of every member, from what the group's past tells of them."""
        size = self.size
        history, feedback = own_histories(past.history, past.feedback, size, self.empty)
        b, length, k = past.shown.shape
        shown = past.shown.new_full((b * size, length, k), self.empty)
        answers = past.answers.new_zeros(*shown.shape, len(self.world.signals))
        blank = self._begun(None, history, feedback, shown, answers)
        inner = self.inner.infer(self.own_pasts(blank, past, k), profile.view(b * size, -1))
        return replace(blank, inner=inner)

    def expected(self, state: GroupState, past: Past, slate: Tensor) -> Expected | None:
        """What the inner simulator expects of every member, as if they were independent; no spread."""
        b, size = len(slate), self.size
        own = self.own_pasts(state, past, slate.shape[1])
        found = self.inner.expected(state.inner, own, each_alone(slate, size))
        if found is None:
            return None
        mean = self._by_place(found.mean, b)  # (B, K, g, S)
        leave = None
        if found.leave is not None:
            leave = at_least(found.leave.view(b, size).masked_fill(state.enough, 1.0), size // 2 + 1)
        return Expected(of_group(at_least(mean[..., 0], -(-size // 2)), mean), leave=leave)

    def utility(self, state: GroupState, past: Past, items: Tensor) -> Tensor | None:
        """The members' mean utility, (B, C)."""
        found = self.utility_of_members(state, past, items)
        return None if found is None else found.mean(1)

    def utility_of_members(self, state: GroupState, past: Past, items: Tensor) -> Tensor | None:
        """How much each member wants each item: (B, C) or (C,) -> (B, g, C), or None."""
        own = self.own_pasts(state, past, past.shown.shape[2])
        found = self.inner.utility(state.inner, own, each_alone(items, self.size) if items.dim() == 2 else items)
        return None if found is None else found.view(len(past.step), self.size, -1)

    def own_pasts(self, state: GroupState, past: Past, k: int) -> Past:
        """What each member knows of the past, B g lanes: their own history, and slates of k places.

        The newest slates are those of the episode, which all saw; before them come those that each was shown alone.
        """
        size, width, length = self.size, state.shown.shape[2], past.shown.shape[1]
        alone, told = state.shown[..., :k], state.answers[..., :k, :]
        if width < k:
            alone = torch.nn.functional.pad(alone, (0, k - width), value=self.empty)
            told = torch.nn.functional.pad(told, (0, 0, 0, k - width))
        shown = each_alone(past.shown, size)
        answers = self._by_member(of_members(past.answers, size))
        place = torch.arange(length, device=shown.device) + each_alone(past.step, size).unsqueeze(1)  # (B g, L)
        before = (place < length).view(*place.shape, 1)
        row = place.clamp(max=length - 1).view(*place.shape, 1).expand_as(alone)
        deep = row.unsqueeze(3).expand_as(told)
        return Past(
            history=state.history,
            feedback=state.feedback,
            shown=torch.where(before, alone.gather(1, row), shown),
            answers=torch.where(before.unsqueeze(3), told.gather(1, deep), answers),
            step=each_alone(past.step, size),
            days_away=each_alone(past.days_away, size),
        )

    def _begun(self, inner: Any, history: Tensor, feedback: Tensor, shown: Tensor, answers: Tensor) -> GroupState:
        got = torch.zeros(len(history) // self.size, self.size, device=history.device)
        return GroupState(inner, history, feedback, shown, answers, got.bool(), got)

    def _each(self, draw: Draw) -> Draw:
        """Draws of every member's own, (B g,)."""
        member = torch.arange(self.size, device=draw.key.device)
        lane = draw.key.unsqueeze(1).expand(-1, self.size)
        return Draw(torch.where(member == 0, lane, absorb(lane, member)).flatten())

    def _by_place(self, values: Tensor, groups: int) -> Tensor:
        """(B g, K, S) of members -> (B, K, g, S)."""
        return values.view(groups, self.size, *values.shape[1:]).transpose(1, 2)

    @staticmethod
    def _by_member(values: Tensor) -> Tensor:
        """(B, L, K, g, S) -> (B g, L, K, S)."""
        return values.permute(0, 3, 1, 2, 4).flatten(0, 1)

    def stored_facts(self) -> dict[str, Any]:
        """Which simulator, and of which world."""
        return {"simulator": self.name, "world": self.world.fingerprint}

    def stored_tensors(self) -> dict[str, Tensor]:
        """Who sits together."""
        return {"members": self.members}

    def write(self, folder: Path) -> None:
        """The world of single users goes along, once for every simulator of a world of groups."""
        super().write(folder)
        self.world.save(folder / "world")

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        return cls(World.load(folder / "world"), facts["simulator"], tensors["members"])


def at_least(chance: Tensor, many: int) -> Tensor:
    """The chance that at least so many of g independent events happen: (..., g) -> (...).

    >>> at_least(torch.tensor([0.5, 0.5]), 1)
    tensor(0.7500)
    """
    count = torch.zeros(*chance.shape[:-1], chance.shape[-1] + 1, dtype=chance.dtype, device=chance.device)
    count[..., 0] = 1.0
    for one in chance.unbind(-1):
        happens = torch.nn.functional.pad(count[..., :-1], (1, 0))
        count = count * (1 - one).unsqueeze(-1) + happens * one.unsqueeze(-1)
    return count[..., many:].sum(-1)
