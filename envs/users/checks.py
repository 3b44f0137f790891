"""The conformance kit of user simulators: what Gymnasium's `check_env` is to environments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recloop.encoders.errors import UserSimulatorError
from recloop.envs.logs.schema import Signal
from recloop.envs.randomness import Draw
from recloop.envs.users.contract import Expected, Past, Response, UserSimulator

if TYPE_CHECKING:
    from recloop.envs.world import World

TOLERANCE = 1e-5
"""How far floats may lie apart between one lane alone and the same lane among many."""


def check_users(
    simulator: UserSimulator,
    world: World,
    *,
    lanes: int = 16,
    slate_size: int | None = None,
    steps: int = 3,
    device: torch.device | str = "cpu",
) -> None:
    """Hold a simulator against its contract on a few users of a world.

    Looked at: declared signals; shapes, dtypes and devices; values in range; where signals exist; empty places;
    NaN; purity (arguments unchanged); determinism; independence of the batch; luck that belongs to the item; `where`
    and `rows` of states; `resume`, `infer`, `expected` and `utility` where they are written.

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
    if checks.broken:
        listed = "; ".join(f"({n}) {what}" for n, what in enumerate(checks.broken, start=1))
        raise UserSimulatorError(f"{type(simulator).__name__} breaks its contract: {listed}")


class _Checks:
    """Notes every broken promise once; stops early where going on makes no sense."""

    def __init__(
        self, simulator: UserSimulator, world: World, lanes: int, slate_size: int, device: torch.device
    ) -> None:
        self.simulator, self.world, self.device = simulator, world, device
        self.lanes, self.k = lanes, min(slate_size, len(world.item_vectors) - 1)
        self.n = len(world.item_vectors) - 1
        self.broken: list[str] = []

    def run(self, steps: int) -> None:
        """All checks, in the order in which a simulator is used."""
        if not self._signals():
            return
        self.simulator.prepare(self.world, self.device)
        table = self.world.users
        users = torch.arange(self.lanes, device=self.device) % len(table.part)
        past = self._past(users)
        draw = self._draw(-1)
        state = self._called("arrive", lambda: self.simulator.arrive(users, draw))
        if state is None or not self._state(state):
            return
        self._same("arrive", state, self.simulator.arrive(users, draw))
        for step in range(steps):
            slate = self._slate(step)
            moment = _Moment(state, replace(past, step=past.step + step), slate, self._draw(step))
            found = self._answers(moment)
            if found is None:
                return
            if step == 0:
                self._alone(moment, *found)
                self._luck(moment, found[1])
                self._optional(moment)
            state = found[0]

    def _expect(self, held: bool, message: str) -> bool:
        if not held and message not in self.broken:
            self.broken.append(message)
        return held

    def _called(self, name: str, call: Callable[[], Any]) -> Any:
        """What a method returns; None and a note where it raises anything but a `UserSimulatorError`."""
        try:
            return call()
        except UserSimulatorError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else "no message"
            self._expect(False, f"{name} raises {type(error).__name__}: {reason}; make it answer any slate")
            return None

    def _signals(self) -> bool:
        signals = getattr(self.simulator, "signals", None)
        if not self._expect(
            isinstance(signals, tuple) and len(signals) > 0 and all(isinstance(s, Signal) for s in signals),
            "`signals` is no tuple of Signal; declare what an answer carries",
        ):
            return False
        wanted = [s.name for s in self.world.signals]
        declared = [s.name for s in self.simulator.signals]
        self._expect(
            declared == wanted,
            f"its signals are {declared}, the world's are {wanted}; declare the same in the same order",
        )
        first = self.simulator.signals[0]
        self._expect(
            first.kind == "binary" and first.given_on is None,
            f"signals[0] '{first.name}' is not the binary consumption of every place; put that first",
        )
        return not self.broken

    def _state(self, state: Any) -> bool:
        """`where` and `rows` restart single lanes."""
        if not self._expect(
            callable(getattr(state, "where", None)) and callable(getattr(state, "rows", None)),
            f"its state is a {type(state).__name__} without `where` and `rows`; "
            "derive it from recloop.envs.State (every field a tensor with leading dimension B)",
        ):
            return False
        index = torch.arange(self.lanes - 1, -1, -1, device=self.device)
        mask = torch.arange(self.lanes, device=self.device) % 2 == 0
        mixed = self._called("the state's where or rows", lambda: state.where(mask, state.rows(index)).rows(index))
        if mixed is None:
            return False
        want = [lane if lane % 2 == 1 else self.lanes - 1 - lane for lane in reversed(range(self.lanes))]
        picked = state.rows(torch.tensor(want, device=self.device))
        return self._expect(
            _close(mixed, picked, 0.0), "the state's `where` and `rows` mix up lanes; pick lane by lane"
        )

    def _answers(self, moment: _Moment) -> tuple[Any, Response] | None:
        """One response: well-formed, pure, and the same again."""
        before = copy.deepcopy((moment.state, moment.past, moment.slate, moment.draw))
        found = self._called("respond", moment.respond(self.simulator))
        if found is None:
            return None
        if not self._expect(
            isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Response),
            "respond does not return (state, Response); return both",
        ):
            return None
        state, response = found
        after = (moment.state, moment.past, moment.slate, moment.draw)
        for name, old, new in zip(("state", "past", "slate", "draw"), before, after, strict=True):
            self._expect(
                _close(old, new, 0.0), f"respond changes the {name} it is given; copy before you change anything"
            )
        if not self._response(response, moment.slate) or not self._state(state):
            return None
        self._same("respond", found, moment.respond(self.simulator)())
        return state, response

    def _same(self, name: str, once: Any, twice: Any) -> None:
        self._expect(
            _close(once, twice, 0.0),
            f"{name} differs between two equal calls; draw all randomness from `draw`, keep nothing in between",
        )

    def _response(self, response: Response, slate: Tensor) -> bool:
        """Shapes and dtypes first, then values."""
        b, k, s = self.lanes, self.k, len(self.simulator.signals)
        wanted = (
            ("signals", response.signals, (b, k, s), torch.float32),
            ("given", response.given, (b, k, s), torch.bool),
            ("left", response.left, (b,), torch.bool),
        )
        sound = True
        for name, tensor, shape, dtype in wanted:
            sound &= self._tensor(f"Response.{name}", tensor, shape, dtype)
        if response.days_away is not None and self._tensor(
            "Response.days_away", response.days_away, (b,), torch.float32
        ):
            self._expect(bool((response.days_away >= 0).all()), "Response.days_away is negative; give days from 0")
        if not sound:
            return False
        values, given = response.signals, response.given
        held = (slate < self.n).unsqueeze(2)  # (B, K, 1)
        self._expect(not bool((given & ~held).any()), "it answers empty places (slate == N); set given False there")
        self._expect(not bool((values[~given] != 0).any()), "signals are not 0 where not given; set them to 0 there")
        names = [signal.name for signal in self.simulator.signals]
        for i, signal in enumerate(self.simulator.signals):
            possible = held.squeeze(2)
            if signal.given_on is not None:
                parent = names.index(signal.given_on)
                possible = possible & given[..., parent] & (values[..., parent] > 0.5)
                self._expect(
                    not bool((given[..., i] & ~possible).any()),
                    f"'{signal.name}' is given where '{signal.given_on}' is not positive; set given False there",
                )
            elif i == 0:
                self._expect(
                    bool((given[..., 0] | ~possible).all()),
                    f"'{signal.name}' is not given at every shown place; consumption is always known",
                )
            self._values(signal, values[..., i][given[..., i]])
        return True

    def _values(self, signal: Signal, values: Tensor) -> None:
        levels = (0.0, 1.0) if signal.kind == "binary" else signal.levels
        if levels:
            wrong = ~torch.isin(values, values.new_tensor(levels))
            limit = f"{list(levels)}"
        else:
            low, high = signal.bounds
            wrong = (values < low) | (values > high)
            limit = f"{low} to {high}"
        if bool(wrong.any()):
            self._expect(
                False, f"'{signal.name}' takes {float(values[wrong][0]):g}; its values are {limit}, keep to them"
            )

    def _alone(self, moment: _Moment, state: Any, response: Response) -> None:
        """A lane alone behaves as among many."""
        for lane in (0, self.lanes - 1):
            index = torch.tensor([lane], device=self.device)
            found = self._called("respond to one lane", moment.rows(index).respond(self.simulator))
            if found is None:
                return
            self._expect(
                _close(found[1], _rows(response, index), TOLERANCE) and _close(found[0], state.rows(index), TOLERANCE),
                f"lane {lane} alone answers otherwise than among {self.lanes}; no value may depend on other lanes",
            )

    def _luck(self, moment: _Moment, response: Response) -> None:
        """The item at place 0 is answered alike whatever stands beside it, where it is as likely."""
        if self.k < 2:
            return
        other = moment.slate.clone()
        other[:, 1:] = torch.where(other[:, 1:] < self.n, (other[:, 1:] + 1) % self.n, self.n)
        clash = other[:, 1:] == other[:, :1]
        other[:, 1:] = torch.where(clash, self.n, other[:, 1:])
        changed = replace(moment, slate=other)
        found = self._called("respond", changed.respond(self.simulator))
        if found is None:
            return
        alike = torch.ones(self.lanes, dtype=torch.bool, device=self.device)
        one = self.simulator.expected(moment.state, moment.past, moment.slate)
        two = self.simulator.expected(moment.state, moment.past, other)
        if one is not None and two is not None:
            alike = (one.mean[:, 0, 0] - two.mean[:, 0, 0]).abs() < TOLERANCE
        differs = (response.signals[:, 0, 0] != found[1].signals[:, 0, 0]) & alike
        self._expect(
            not bool(differs.any()),
            "one item at one place gets two answers when its neighbours change; draw luck by item with "
            "draw.uniform(purpose, slate), and where items compete say so in `expected`",
        )

    def _optional(self, moment: _Moment) -> None:
        """What may be left unwritten."""
        days = torch.ones(self.lanes, device=self.device)
        resumed = self._called("resume", lambda: self.simulator.resume(moment.state, days, moment.draw))
        if resumed is not None:
            self._state(resumed)
        rows = torch.arange(self.lanes) % len(self.world.users.part)
        profile = self.world.users.profile[rows].to(self.device)
        try:
            guess = self.simulator.infer(moment.past, profile)
        except NotImplementedError:
            guess = None
        if guess is not None and self._state(guess):
            self._called("respond to an inferred state", replace(moment, state=guess).respond(self.simulator))
        expected = self._called(
            "expected", lambda: self.simulator.expected(moment.state, moment.past, moment.slate) or Expected(days)
        )
        if expected is not None and expected.mean is not days:
            self._expected(expected, moment.slate)
        self._utility(moment)

    def _expected(self, expected: Expected, slate: Tensor) -> None:
        shape = (*slate.shape, len(self.simulator.signals))
        if self._tensor("Expected.mean", expected.mean, shape, torch.float32):
            held = slate < self.n
            for i, signal in enumerate(self.simulator.signals):
                low, high = signal.bounds
                mean = expected.mean[..., i][held]
                self._expect(
                    bool(((mean >= low - TOLERANCE) & (mean <= high + TOLERANCE)).all()),
                    f"Expected.mean of '{signal.name}' lies outside {low} to {high}; give a mean of its values",
                )
        if expected.spread is not None:
            self._tensor("Expected.spread", expected.spread, shape, torch.float32)
        if expected.leave is not None and self._tensor("Expected.leave", expected.leave, (self.lanes,), torch.float32):
            self._expect(
                bool(((expected.leave >= 0) & (expected.leave <= 1)).all()),
                "Expected.leave is no probability; give 0 to 1",
            )

    def _utility(self, moment: _Moment) -> None:
        items = torch.arange(min(self.n, 7), device=self.device)
        shared = self._called("utility", lambda: self.simulator.utility(moment.state, moment.past, items))
        if shared is None or not self._tensor("utility", shared, (self.lanes, len(items)), torch.float32):
            return
        each = self._called(
            "utility of items (B, C)",
            lambda: self.simulator.utility(moment.state, moment.past, items.expand(self.lanes, -1).contiguous()),
        )
        self._expect(
            each is not None and each.shape == shared.shape and bool(torch.allclose(each, shared, atol=1e-4)),
            "utility of items (C,) and of the same items (B, C) differ; score them alike",
        )

    def _tensor(self, name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
        if not self._expect(
            isinstance(value, Tensor), f"{name} is a {type(value).__name__}; give a tensor of shape {shape}"
        ):
            return False
        sound = self._expect(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}; give {shape}")
        sound &= self._expect(value.dtype == dtype, f"{name} is {value.dtype}; give {dtype}")
        sound &= self._expect(
            value.device.type == self.device.type,
            f"{name} lies on {value.device}, it was prepared for {self.device}; keep to self.device",
        )
        if value.dtype.is_floating_point:
            sound &= self._expect(
                bool(torch.isfinite(value).all()), f"{name} holds NaN or infinite numbers; check the inputs to it"
            )
        return sound

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


@dataclass(frozen=True)
class _Moment:
    """The arguments of one call of `respond`."""

    state: Any
    past: Past
    slate: Tensor
    draw: Draw

    def respond(self, simulator: UserSimulator) -> Callable[[], Any]:
        return lambda: simulator.respond(self.state, self.past, self.slate, self.draw)

    def rows(self, index: Tensor) -> _Moment:
        return _Moment(self.state.rows(index), _rows(self.past, index), self.slate[index], Draw(self.draw.key[index]))


def _rows(record: Any, index: Tensor) -> Any:
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
