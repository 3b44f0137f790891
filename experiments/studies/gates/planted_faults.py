"""Simulators with one planted fault each: what a fidelity report must find.

`FAULTS` holds the five that a two-sample test is asked to find, and KuaiSim's second sigmoid on the click probability.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.data import WorldData


class FaultyUsers(UserSimulator):
    """Answers as other users do; a subclass spoils one thing.

    Args:
        users: whom to spoil; need `observe`.
    """

    def __init__(self, users: UserSimulator) -> None:
        self.users, self.signals = users, users.signals

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare the users."""
        self.users.prepare(world, device)
        self.device = self.users.device
        self.items = len(world.catalogue)

    def arrive(self, users: Tensor, draw: Draw) -> Any:
        """As the users do."""
        return self.users.arrive(users, draw)

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """As the users do."""
        return self.users.respond(state, past, slate, draw)

    def resume(self, state: Any, days_away: Tensor, draw: Draw) -> Any:
        """As the users do."""
        return self.users.resume(state, days_away, draw)

    def infer(self, past: Past, profile: Tensor) -> Any:
        """As the users do."""
        return self.users.infer(past, profile)

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """As the users do; `UserSimulatorError` where they cannot."""
        observe = getattr(self.users, "observe", None)
        if observe is None:
            raise UserSimulatorError(f"{type(self.users).__name__} has no `observe`; write it to plant a fault")
        return observe(state, slate, signals)

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """As the users do."""
        return self.users.expected(state, past, slate)

    def utility(self, state: Any, past: Past, items: Tensor) -> Tensor | None:
        """As the users do."""
        return self.users.utility(state, past, items)


class Reclicked(FaultyUsers):
    """Users whose click probability is another function of what it was; their leaving is not.

    Args:
        users: whom to spoil; they must say what they expect.
        change: probabilities (B, K) -> probabilities (B, K).
    """

    def __init__(self, users: UserSimulator, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(users)
        self.change = change

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """Clicks are drawn anew; other signals keep their values where given, else take the expected ones."""
        _, response = self.users.respond(state, past, slate, draw)
        expected = self.expected(state, past, slate)
        if expected is None:
            raise UserSimulatorError(f"{type(self.users).__name__} does not say what it expects; write `expected`")
        held = slate < self.items
        click = (draw.uniform("fault/click", slate) < expected.mean[..., 0]) & held
        signals, given = [click.to(torch.float32)], [held]
        for s, signal in enumerate(self.signals[1:], start=1):
            there = click if signal.given_on == self.signals[0].name else response.given[..., s]
            value = torch.where(response.given[..., s], response.signals[..., s], _level(signal, expected.mean[..., s]))
            signals.append(value * there)
            given.append(there)
        answers = torch.stack(signals, dim=2)
        spoiled = replace(response, signals=answers, given=torch.stack(given, dim=2))
        return self.observe(state, slate, answers), spoiled

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """With the changed probability."""
        expected = self.users.expected(state, past, slate)
        if expected is None:
            return None
        click = self.change(expected.mean[..., :1]) * (slate < self.items).unsqueeze(2)
        return replace(expected, mean=torch.cat([click, expected.mean[..., 1:]], dim=2))


class WithoutPositions(FaultyUsers):
    """Users who answer a slate as if its items stood in random order."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """The slate is shuffled before they see it, and their answers are put back."""
        order = torch.argsort(draw.uniform("fault/order", slate), dim=1)  # (B, K)
        state, response = self.users.respond(state, past, slate.gather(1, order), draw)
        back = torch.argsort(order, dim=1).unsqueeze(2).expand_as(response.signals)
        return state, replace(response, signals=response.signals.gather(1, back), given=response.given.gather(1, back))

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """The mean over the rotations of the slate."""
        k = slate.shape[1]
        turned = [self.users.expected(state, past, slate.roll(shift, dims=1)) for shift in range(k)]
        known = [x for x in turned if x is not None]
        if len(known) < k:
            return None
        means = [x.mean.roll(-shift, dims=1) for shift, x in enumerate(known)]
        return replace(known[0], mean=torch.stack(means).mean(0))


class FrozenUsers(FaultyUsers):
    """Users whose state never changes: nobody tires, learns or returns another."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """The state stays."""
        return state, self.users.respond(state, past, slate, draw)[1]

    def resume(self, state: Any, days_away: Tensor, draw: Draw) -> Any:
        """The state stays."""
        return state

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """The state stays."""
        return state


class ShuffledItems(FaultyUsers):
    """Users who take every item for another.

    Args:
        users: whom to spoil.
        seed: of the permutation.
    """

    def __init__(self, users: UserSimulator, seed: int = 0) -> None:
        super().__init__(users)
        self.seed = seed

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Draw the permutation."""
        super().prepare(world, device)
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.cat([torch.randperm(self.items, generator=generator), torch.tensor([self.items])])
        self.taken_for = order.to(self.device)

    def infer(self, past: Past, profile: Tensor) -> Any:
        """From the items they took what they saw for."""
        return self.users.infer(self._mistaken(past), profile)

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """To the items they take the slate's for."""
        return self.users.respond(state, self._mistaken(past), self.taken_for[slate], draw)

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """Of the items they take the slate's for."""
        return super().observe(state, self.taken_for[slate], signals)

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """Of the items they take the slate's for."""
        return self.users.expected(state, self._mistaken(past), self.taken_for[slate])

    def utility(self, state: Any, past: Past, items: Tensor) -> Tensor | None:
        """Of the items they take these for."""
        return self.users.utility(state, self._mistaken(past), self.taken_for[items])

    def _mistaken(self, past: Past) -> Past:
        return replace(past, history=self.taken_for[past.history], shown=self.taken_for[past.shown])


class NobodyLeaves(FaultyUsers):
    """Users who stay."""

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """`left` is never true."""
        state, response = self.users.respond(state, past, slate, draw)
        return state, replace(response, left=torch.zeros_like(response.left))

    def expected(self, state: Any, past: Past, slate: Tensor) -> Expected | None:
        """`leave` is 0."""
        expected = self.users.expected(state, past, slate)
        if expected is None or expected.leave is None:
            return expected
        return replace(expected, leave=torch.zeros_like(expected.leave))


def second_sigmoid(users: UserSimulator) -> Reclicked:
    """KuaiSim's fault: a probability is taken for a logit, so that none is below one half."""
    return Reclicked(users, torch.sigmoid)


FAULTS: dict[str, Callable[[UserSimulator], FaultyUsers]] = {
    "base rate + 50 %": lambda users: Reclicked(users, lambda chance: (1.5 * chance).clamp(max=0.999)),
    "no position effect": WithoutPositions,
    "frozen users": FrozenUsers,
    "shuffled items": ShuffledItems,
    "nobody leaves": NobodyLeaves,
}
"""The five faults that a two-sample test must find, by name."""


def _level(signal: Signal, value: Tensor) -> Tensor:
    """The nearest value that a signal can take."""
    if signal.kind == "continuous":
        return value
    levels = torch.tensor(signal.levels or (0.0, 1.0), dtype=value.dtype, device=value.device)
    return levels[(value.unsqueeze(-1) - levels).abs().argmin(-1)]
