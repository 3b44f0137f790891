"""How plugged-in users are asked: what they return is looked at before anything is computed from it."""

from typing import Any

from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.plug_ins import is_ours, returned, source_of
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import Respond


def answering(simulator: UserSimulator) -> Respond:
    """`respond`; of plugged-in users with a look at types and shapes. `check_users` looks at all they promise.

    Raises:
        UserSimulatorError: for anything but a state and a `Response` of these shapes, when it is called.
    """
    if is_ours(type(simulator)):
        return simulator.respond
    who = f"{source_of(simulator)}.respond"

    def respond(state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        answer: Any = simulator.respond(state, past, slate, draw)
        call = f"{who}(state, past, slate {tuple(slate.shape)}, draw) returned"
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Response)):
            raise UserSimulatorError(f"{call} {returned(answer)}; return the next state and a Response")
        after, response = answer
        _check_state(after, call)
        shape = (*slate.shape, len(simulator.signals))
        wanted = (("signals", shape, "float32"), ("given", shape, "bool"), ("left", shape[:1], "bool"))
        for name, size, kind in wanted:
            value = getattr(response, name)
            right = isinstance(value, Tensor) and value.shape == size
            if not right or str(value.dtype) != f"torch.{kind}":
                raise UserSimulatorError(f"{call} Response.{name} as {returned(value)}; give {kind} {size}")
        return after, response

    return respond


def arriving(simulator: UserSimulator, users: Tensor, draw: Draw) -> Any:
    """The state that `arrive` gives; `UserSimulatorError` for one whose lanes cannot be taken apart."""
    state = simulator.arrive(users, draw)
    if not is_ours(type(simulator)):
        _check_state(state, f"{source_of(simulator)}.arrive(users {tuple(users.shape)}, draw) returned")
    return state


def _check_state(state: Any, call: str) -> None:
    if not (isinstance(state, Tensor | TensorStruct) or (hasattr(state, "where") and hasattr(state, "rows"))):
        raise UserSimulatorError(
            f"{call} {returned(state)} as the state; a state derives from State, every field a tensor with a row a lane"
        )
