"""The conformance kit of user simulators: what Gymnasium's `check_env` is to environments."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.check_answers import TOLERANCE, AnswerChecks, Notes
from recloop.envs.users.check_moments import Moment, close, rows_of, tensors_of
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
        state = self.notes.called("arrive", lambda: self.simulator.arrive(users, draw))
        if state is None or not self._state(state):
            return
        self._same("arrive", state, self.simulator.arrive(users, draw))
        self._arrives_alone(users, draw, state)
        for step in range(steps):
            slate = self._slate(step)
            moment = Moment(state, replace(past, step=past.step + step), slate, self._draw(step))
            found = self._answers(moment)
            if found is None:
                return
            if step == 0:
                self._alone(moment, *found)
                self._luck(moment, found[1])
                self._optional(moment, found[1])
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
        for name, tensor in tensors_of(state):
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
            close(mixed, picked, 0.0), "the state's `where` and `rows` mix up lanes; pick lane by lane"
        )

    def _answers(self, moment: Moment) -> tuple[Any, Response] | None:
        """One response: well-formed, pure, and the same again."""
        before = copy.deepcopy((moment.state, moment.past, moment.slate, moment.draw))
        found = self.notes.called("respond", moment.respond(self.simulator))
        if found is None:
            return None
        if not self.notes.expect(
            isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Response),
            "respond does not return (state, Response); return both",
        ):
            return None
        state, response = found
        after = (moment.state, moment.past, moment.slate, moment.draw)
        for name, old, new in zip(("state", "past", "slate", "draw"), before, after, strict=True):
            self.notes.expect(
                close(old, new, 0.0), f"respond changes the {name} it is given; copy before you change anything"
            )
        if not self.answers.response(response, moment.slate) or not self._state(state):
            return None
        self._same("respond", found, moment.respond(self.simulator)())
        return state, response

    def _same(self, name: str, once: Any, twice: Any) -> None:
        self.notes.expect(
            close(once, twice, 0.0),
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
                close(found, state.rows(index), TOLERANCE),
                f"a user arrives otherwise alone than among {self.lanes}; no value may depend on other lanes",
            )

    def _alone(self, moment: Moment, state: Any, response: Response) -> None:
        """A lane alone behaves as among many."""
        for lane in (0, self.lanes - 1):
            index = torch.tensor([lane], device=self.device)
            found = self.notes.called("respond to one lane", moment.rows(index).respond(self.simulator))
            if found is None:
                return
            self.notes.expect(
                close(found[1], rows_of(response, index), TOLERANCE) and close(found[0], state.rows(index), TOLERANCE),
                f"lane {lane} alone answers otherwise than among {self.lanes}; no value may depend on other lanes",
            )

    def _luck(self, moment: Moment, response: Response) -> None:
        """The item at place 0 is answered alike whatever stands beside it, where it is as likely."""
        if self.k < 2:
            return
        other = moment.slate.clone()
        other[:, 1:] = torch.where(other[:, 1:] < self.n, (other[:, 1:] + 1) % self.n, self.n)
        clash = other[:, 1:] == other[:, :1]
        other[:, 1:] = torch.where(clash, self.n, other[:, 1:])
        changed = replace(moment, slate=other)
        found = self.notes.called("respond", changed.respond(self.simulator))
        if found is None:
            return
        alike = torch.ones(self.lanes, dtype=torch.bool, device=self.device)
        one = self.simulator.expected(moment.state, moment.past, moment.slate)
        two = self.simulator.expected(moment.state, moment.past, other)
        if one is not None and two is not None:
            alike = (one.mean[:, 0, 0] - two.mean[:, 0, 0]).abs() < TOLERANCE
        differs = (response.signals[:, 0, 0] != found[1].signals[:, 0, 0]) & alike
        self.notes.expect(
            not bool(differs.any()),
            "one item at one place gets two answers when its neighbours change; draw luck by item with "
            "draw.uniform(purpose, slate), and where items compete say so in `expected`",
        )

    def _optional(self, moment: Moment, response: Response) -> None:
        """What may be left unwritten."""
        days = torch.ones(self.lanes, device=self.device)
        resumed = self.notes.called("resume", lambda: self.simulator.resume(moment.state, days, moment.draw))
        if resumed is not None:
            self._state(resumed)
        rows = torch.arange(self.lanes) % len(self.world.users.part)
        profile = self.world.users.profile[rows].to(self.device)
        try:
            guess = self.simulator.infer(moment.past, profile)
        except NotImplementedError:
            guess = None
        if guess is not None and self._state(guess):
            self.notes.called("respond to an inferred state", replace(moment, state=guess).respond(self.simulator))
        expected = self.notes.called(
            "expected", lambda: self.simulator.expected(moment.state, moment.past, moment.slate) or Expected(days)
        )
        if expected is not None and expected.mean is not days:
            self.answers.expected(expected, moment.slate)
            self.answers.leaving(expected, response)
        self._utility(moment)

    def _utility(self, moment: Moment) -> None:
        items = torch.arange(min(self.n, 7), device=self.device)
        shared = self.notes.called("utility", lambda: self.simulator.utility(moment.state, moment.past, items))
        if shared is None or not self.answers.tensor("utility", shared, (self.lanes, len(items)), torch.float32):
            return
        each = self.notes.called(
            "utility of items (B, C)",
            lambda: self.simulator.utility(moment.state, moment.past, items.expand(self.lanes, -1).contiguous()),
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
