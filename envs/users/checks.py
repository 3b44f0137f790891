"""The conformance kit of user simulators: what Gymnasium's `check_env` is to environments."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.check_answers import TOLERANCE, AnswerChecks, Notes
from recloop.envs.users.contract import UserSimulator

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


def check_users(
    simulator: UserSimulator,
    world: WorldData,
    *,
    lanes: int = 16,
    slate_size: int | None = None,
    steps: int = 3,
    device: torch.device | str = "cpu",
) -> None:
    """Hold a simulator against its contract on a few users of a world.

    Looked at: declared signals; shapes, dtypes and devices; values in range; where signals exist; empty places;
    NaN; purity (arguments and global generators unchanged); determinism; independence of the batch; luck that belongs
    to the item; leaving; `where` and `rows` of states; `resume`, `infer`, `expected` and `utility` where written.

    Args:
        lanes: users looked at.
        slate_size: K; default the world's.
        steps: slates shown in a row.

    Raises:
        UserSimulatorError: names each broken promise and how to mend it.
    """
    if not isinstance(simulator, UserSimulator):
        raise UserSimulatorError(
            f"{type(simulator).__name__} is no UserSimulator; derive it from recloop.envs.UserSimulator"
        )
    checks = _Checks(simulator, world, lanes, slate_size or world.slate_size, torch.device(device))
    checks.run(steps)
    if checks.notes.broken:
        listed = "; ".join(f"({n}) {what}" for n, what in enumerate(checks.notes.broken, start=1))
        raise UserSimulatorError(f"{type(simulator).__name__} breaks its contract: {listed}")


@dataclass(frozen=True)
class _AnswerCase:
    """The arguments of one call of `respond`."""

    state: Any
    past: Past
    slate: Tensor
    draw: Draw

    def respond(self, simulator: UserSimulator) -> Callable[[], Any]:
        """The call, to be made."""
        return lambda: simulator.respond(self.state, self.past, self.slate, self.draw)

    def rows(self, index: Tensor) -> _AnswerCase:
        """The same call for some lanes alone."""
        return _AnswerCase(self.state.rows(index), self.past.rows(index), self.slate[index], Draw(self.draw.key[index]))


class _Checks:
    """Notes every broken promise once; stops early where going on makes no sense."""

    def __init__(
        self, simulator: UserSimulator, world: WorldData, lanes: int, slate_size: int, device: torch.device
    ) -> None:
        self.simulator, self.world, self.device = simulator, world, device
        self.lanes, self.k = lanes, min(slate_size, len(world.item_vectors) - 1)
        self.n = len(world.item_vectors) - 1
        self.notes = Notes()

    def run(self, steps: int) -> None:
        """All checks, in the order in which a simulator is used."""
        if not self._signals():
            return
        self.answers = AnswerChecks(self.notes, self.simulator.signals, self.n, self.lanes, self.k, self.device)
        generators = _global_generators()
        self.notes.called("prepare", lambda: self.simulator.prepare(self.world, self.device))
        if self.notes.broken:
            return
        self._in_use(steps)
        self.notes.expect(
            generators == _global_generators(),
            "it draws from or seeds a global random generator; draw all randomness from `draw`",
        )

    def _in_use(self, steps: int) -> None:
        """Arrivals, then slates in a row."""
        table = self.world.users
        users = torch.arange(self.lanes, device=self.device) % len(table.part)
        past = self._past(users)
        draw = self._draw(-1)
        state = self._given("arrive", lambda: self.simulator.arrive(users, draw))
        if state is None or not self._state(state):
            return
        self._same("arrive", state, self.simulator.arrive(users, draw))
        self._arrives_alone(users, draw, state)
        for step in range(steps):
            slate = self._slate(step)
            case = _AnswerCase(state, replace(past, step=past.step + step), slate, self._draw(step))
            found = self._answers(case)
            if found is None:
                return
            if step == 0:
                self._alone(case, *found)
                self._luck(case, found[1])
                self._optional(case, found[1])
            state = found[0]

    def _signals(self) -> bool:
        signals = getattr(self.simulator, "signals", None)
        if not self.notes.expect(
            isinstance(signals, tuple) and len(signals) > 0 and all(isinstance(s, Signal) for s in signals),
            "`signals` is no tuple of Signal; declare what an answer carries",
        ):
            return False
        wanted = [s.name for s in self.world.signals]
        declared = [s.name for s in self.simulator.signals]
        self.notes.expect(
            declared == wanted,
            f"its signals are {declared}, the world's are {wanted}; declare the same in the same order",
        )
        first = self.simulator.signals[0]
        self.notes.expect(
            first.kind == "binary" and first.given_on is None,
            f"signals[0] '{first.name}' is not the binary consumption of every place; put that first",
        )
        return not self.notes.broken

    def _state(self, state: Any) -> bool:
        """`where` and `rows` restart single lanes."""
        if not self.notes.expect(
            callable(getattr(state, "where", None)) and callable(getattr(state, "rows", None)),
            f"its state is a {type(state).__name__} without `where` and `rows`; "
            "derive it from recloop.envs.State (every field a tensor with leading dimension B)",
        ):
            return False
        for name, tensor in _tensors_of(state):
            if not self.notes.expect(
                tensor.device.type == self.device.type,
                f"the state's {name.lstrip('.')} lies on {tensor.device}, it was prepared for {self.device}; keep to "
                "self.device",
            ):
                return False
            self.notes.expect(
                not bool(tensor.isnan().any()), f"the state's {name.lstrip('.')} holds NaN; check the inputs to it"
            )
        index = torch.arange(self.lanes - 1, -1, -1, device=self.device)
        mask = torch.arange(self.lanes, device=self.device) % 2 == 0
        mixed = self.notes.called("the state's where or rows", lambda: state.where(mask, state.rows(index)).rows(index))
        if mixed is None:
            return False
        want = [lane if lane % 2 == 1 else self.lanes - 1 - lane for lane in reversed(range(self.lanes))]
        picked = state.rows(torch.tensor(want, device=self.device))
        return self.notes.expect(
            _close(mixed, picked, 0.0), "the state's `where` and `rows` mix up lanes; pick lane by lane"
        )

    def _given(self, name: str, call: Callable[[], Any]) -> Any:
        """What a method gives; None and a note where it raises or gives nothing."""
        noted = len(self.notes.broken)
        found = self.notes.called(name, call)
        self.notes.expect(found is not None or len(self.notes.broken) > noted, f"{name} returns None; it must answer")
        return found

    def _answers(self, case: _AnswerCase) -> tuple[Any, Response] | None:
        """One response: well-formed, pure, and the same again."""
        before = copy.deepcopy((case.state, case.past, case.slate, case.draw))
        found = self._given("respond", case.respond(self.simulator))
        if found is None:
            return None
        if not self.notes.expect(
            isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Response),
            "respond does not return (state, Response); return both",
        ):
            return None
        state, response = found
        after = (case.state, case.past, case.slate, case.draw)
        for name, old, new in zip(("state", "past", "slate", "draw"), before, after, strict=True):
            self.notes.expect(
                _close(old, new, 0.0), f"respond changes the {name} it is given; copy before you change anything"
            )
        if not self.answers.response(response, case.slate) or not self._state(state):
            return None
        self._same("respond", found, case.respond(self.simulator)())
        return state, response

    def _same(self, name: str, once: Any, twice: Any) -> None:
        self.notes.expect(
            _close(once, twice, 0.0),
            f"{name} differs between two equal calls; draw all randomness from `draw`, keep nothing in between",
        )

    def _arrives_alone(self, users: Tensor, draw: Draw, state: Any) -> None:
        """A user arrives alone as among many."""
        index = torch.tensor([self.lanes - 1], device=self.device)
        found = self.notes.called(
            "arrive of one lane", lambda: self.simulator.arrive(users[index], Draw(draw.key[index]))
        )
        if found is not None:
            self.notes.expect(
                _close(found, state.rows(index), TOLERANCE),
                f"a user arrives otherwise alone than among {self.lanes}; no value may depend on other lanes",
            )

    def _alone(self, case: _AnswerCase, state: Any, response: Response) -> None:
        """A lane alone behaves as among many."""
        for lane in (0, self.lanes - 1):
            index = torch.tensor([lane], device=self.device)
            found = self.notes.called("respond to one lane", case.rows(index).respond(self.simulator))
            if found is None:
                return
            self.notes.expect(
                _close(found[1], _rows_of(response, index), TOLERANCE)
                and _close(found[0], state.rows(index), TOLERANCE),
                f"lane {lane} alone answers otherwise than among {self.lanes}; no value may depend on other lanes",
            )

    def _luck(self, case: _AnswerCase, response: Response) -> None:
        """The item at place 0 is answered alike whatever stands beside it, where it is as likely."""
        if self.k < 2:
            return
        other = case.slate.clone()
        other[:, 1:] = torch.where(other[:, 1:] < self.n, (other[:, 1:] + 1) % self.n, self.n)
        clash = other[:, 1:] == other[:, :1]
        other[:, 1:] = torch.where(clash, self.n, other[:, 1:])
        changed = replace(case, slate=other)
        found = self.notes.called("respond", changed.respond(self.simulator))
        if found is None:
            return
        alike = torch.ones(self.lanes, dtype=torch.bool, device=self.device)
        one = self.simulator.expected(case.state, case.past, case.slate)
        two = self.simulator.expected(case.state, case.past, other)
        if one is not None and two is not None:
            alike = (one.mean[:, 0, 0] - two.mean[:, 0, 0]).abs() < TOLERANCE
        differs = (response.signals[:, 0, 0] != found[1].signals[:, 0, 0]) & alike
        self.notes.expect(
            not bool(differs.any()),
            "one item at one place gets two answers when its neighbours change; draw luck by item with "
            "draw.uniform(purpose, slate), and where items compete say so in `expected`",
        )

    def _optional(self, case: _AnswerCase, response: Response) -> None:
        """What may be left unwritten."""
        days = torch.ones(self.lanes, device=self.device)
        resumed = self.notes.called("resume", lambda: self.simulator.resume(case.state, days, case.draw))
        if resumed is not None:
            self._state(resumed)
        rows = torch.arange(self.lanes) % len(self.world.users.part)
        profile = self.world.users.profile[rows].to(self.device)
        try:
            guess = self.simulator.infer(case.past, profile)
        except NotImplementedError:
            guess = None
        if guess is not None and self._state(guess):
            self.notes.called("respond to an inferred state", replace(case, state=guess).respond(self.simulator))
        expected = self.notes.called(
            "expected", lambda: self.simulator.expected(case.state, case.past, case.slate) or Expected(days)
        )
        if expected is not None and expected.mean is not days:
            self.answers.expected(expected, case.slate)
            self.answers.leaving(expected, response)
        self._utility(case)

    def _utility(self, case: _AnswerCase) -> None:
        items = torch.arange(min(self.n, 7), device=self.device)
        shared = self.notes.called("utility", lambda: self.simulator.utility(case.state, case.past, items))
        if shared is None or not self.answers.tensor("utility", shared, (self.lanes, len(items)), torch.float32):
            return
        each = self.notes.called(
            "utility of items (B, C)",
            lambda: self.simulator.utility(case.state, case.past, items.expand(self.lanes, -1).contiguous()),
        )
        self.notes.expect(
            each is not None and each.shape == shared.shape and bool(torch.allclose(each, shared, atol=1e-4)),
            "utility of items (C,) and of the same items (B, C) differ; score them alike",
        )

    def _past(self, users: Tensor) -> Past:
        table, zeros = self.world.users, torch.zeros_like(users)
        rows = users.cpu()
        shown, answers = table.shown[rows], table.answers[rows]
        return Past(
            history=table.history[rows].to(self.device),
            feedback=table.feedback[rows].to(self.device),
            shown=shown.to(self.device),
            answers=answers.to(self.device),
            step=zeros,
            days_away=zeros.to(torch.float32),
        )

    def _slate(self, step: int) -> Tensor:
        """Slates without repeats; every fourth lane has an empty place at its end, the second none but empty ones."""
        generator = torch.Generator().manual_seed(step)
        slate = torch.stack([torch.randperm(self.n, generator=generator)[: self.k] for _ in range(self.lanes)])
        if self.k > 1:
            slate[::4, -1] = self.n
        slate[1] = self.n
        return slate.to(self.device)

    def _draw(self, step: int) -> Draw:
        lane = torch.arange(self.lanes, device=self.device)
        return Draw.at(0, lane, torch.zeros_like(lane), torch.full_like(lane, step))


def _global_generators() -> tuple[Any, ...]:
    """The states of the generators that no simulator may touch."""
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - looked at, not used
    words = numpy["state"]
    return bytes(torch.get_rng_state().numpy()), random.getstate(), words["key"].tobytes(), words["pos"]


def _rows_of(record: Any, index: Tensor) -> Any:
    """Some lanes of a dataclass of tensors."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return replace(record, **{name: None if value is None else value[index] for name, value in values.items()})


def _close(one: Any, two: Any, tolerance: float) -> bool:
    """Whether two trees of tensors hold the same, floats within a tolerance."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape != two.shape or one.dtype != two.dtype:
            return False
        if one.dtype.is_floating_point:
            return bool(torch.allclose(one, two, rtol=tolerance, atol=tolerance, equal_nan=True))
        return bool(torch.equal(one, two))
    if is_dataclass(one) and type(one) is type(two):
        return all(_close(getattr(one, f.name), getattr(two, f.name), tolerance) for f in fields(one))
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return len(one) == len(two) and all(_close(a, b, tolerance) for a, b in zip(one, two, strict=True))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_close(one[key], two[key], tolerance) for key in one)
    if hasattr(one, "__dict__") and type(one) is type(two):
        return _close(vars(one), vars(two), tolerance)
    try:
        return bool(one == two)
    except (ValueError, TypeError, RuntimeError):
        return repr(one) == repr(two)


def _tensors_of(tree: Any) -> list[tuple[str, Tensor]]:
    """All tensors of a tree of dataclasses, tuples, dicts and plain objects, with where they stand."""
    if isinstance(tree, Tensor):
        return [("", tree)]
    if isinstance(tree, tuple | list):
        named = [(f"[{place}]", part) for place, part in enumerate(tree)]
    elif isinstance(tree, dict):
        named = [(f".{name}", part) for name, part in tree.items()]
    else:
        named = [(f".{name}", part) for name, part in getattr(tree, "__dict__", {}).items()]
    return [(f"{name}{rest}", tensor) for name, part in named for rest, tensor in _tensors_of(part)]
