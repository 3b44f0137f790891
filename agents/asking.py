"""How a policy is asked: plugged-in ones get observations of their own, and what comes back is checked."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.plug_ins import is_ours, returned, source_of
from recloop.envs.interaction.checked_slate import slate_fault
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw

Act = Callable[[Observation, Any, int, Draw], tuple[Tensor, Any]]


def asked(act: Act, policy: object, observation: Observation, carry: Any, k: int, draw: Draw) -> tuple[Tensor, Any]:
    """What the `act` of a policy gives: slates (B, k) and the next carry.

    Observations may share memory with the core. Our own policies leave them as they are, the others get copies.

    Raises:
        PolicyError: for anything but whole numbers (B, k) and a carry, or where a plugged-in policy writes into its
            observation.
    """
    lanes = len(next(iter(observation.values())))
    call = f"{source_of(policy)}.act(observation of {lanes} lanes, carry, k={k}, draw)"
    trusted = is_ours(type(policy))
    given = observation if trusted else {key: value.clone() for key, value in observation.items()}
    answer = act(dict(given), carry, k, draw)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise PolicyError(f"{call} returned {returned(answer)}; return the slates and the next carry")
    check_slate(answer[0], (lanes, k), call)
    if not trusted:
        for key, value in given.items():
            # Torch counts writes into a tensor, but not those into one made in inference mode.
            if not value.is_inference() and value._version:
                raise PolicyError(f"{call} wrote into observation['{key}']; change a clone() of it instead")
    return answer


def check_slate(slate: Any, shape: tuple[int, int], call: str) -> None:
    """Raise `PolicyError` for what is no slate; `call` is what returned it."""
    fault = slate_fault(slate, shape)
    if fault is not None:
        raise PolicyError(f"{call} returned {fault}; a slate is an int64 tensor {shape}")
