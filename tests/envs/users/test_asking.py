"""What plugged-in users return is looked at before anything is computed from it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.simulation.core import Core
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World


class Mine(UserSimulator):
    """Answers with what it is told to."""

    def __init__(self, world: World, state: Any, **changes: Any) -> None:
        self.signals, self.state, self.changes = world.signals, state, changes

    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return self.state

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        if "answer" in self.changes:
            return self.changes["answer"]  # type: ignore[no-any-return]
        signals = torch.zeros(*slate.shape, len(self.signals))
        return state, replace(Response(signals, signals == 0, slate[:, 0] < 0), **self.changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, r"respond\(state, past, slate \(2, 4\), draw\) returned None; return the next state and a"),
        ({"answer": (torch.zeros(2), {"click": 1})}, "returned a tuple of 2; return the next state"),
        ({"signals": torch.zeros(2, 4)}, r"returned Response.signals as float32 \(2, 4\); give float32 \(2, 4, "),
        ({"left": torch.zeros(2)}, r"returned Response.left as float32 \(2,\); give bool \(2,\)"),
        ({"given": [[True]]}, "returned Response.given as a list of 1; give bool"),
    ],
)
def test_an_answer_of_another_kind_is_named(world: World, changes: dict[str, Any], message: str) -> None:
    core = Core(world, Mine(world, torch.zeros(2), **changes), batch=2, slate_size=4)
    with pytest.raises(UserSimulatorError, match=f"test_asking:Mine.*{message}"):
        core.step(torch.tensor([[0, 1, 2, 3]] * 2))


def test_a_state_of_another_kind_is_named(world: World) -> None:
    with pytest.raises(UserSimulatorError, match=r"test_asking:Mine.arrive\(users .* returned None as the state"):
        Core(world, Mine(world, None), batch=2)
