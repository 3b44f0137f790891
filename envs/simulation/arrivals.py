"""What lanes start an episode from: tables by row of the users table, so that an arrival is a gather."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recloop.encoders.base.tensor_struct import tensors_of
from recloop.encoders.state.config import EncoderState
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.seen import LoggedItems
from recloop.envs.users.asking import arriving
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World


@dataclass(frozen=True)
class Arrival:
    """Users at the start of an episode, B lanes.

    Args:
        past: what is known of them.
        encoded: the state encoder's state.
        vector: float32 (B, d) that state as a vector.
        profile: float32 (B, p).
        instructions: float32 (B, u) what each asks for.
        state: the simulator's.
    """

    past: Past
    encoded: EncoderState
    vector: Tensor
    profile: Tensor
    instructions: Tensor
    state: Any


class ArrivalTables:
    """How every user of a world arrives, on the device.

    Args:
        world: the world.
        simulator: prepared.
        slate_size: K; slates of the log are cut to it, or filled with empty places.
        cold: whether nothing has happened yet; else all is warm from the log.
        device: where the tables live.
        shown_most: items shown in an episode at most: what `Past.seen` has room for.
    """

    @torch.no_grad()
    def __init__(
        self, world: World, simulator: UserSimulator, slate_size: int, cold: bool, device: torch.device, shown_most: int
    ) -> None:
        users, empty = world.users, len(world.catalogue)
        encoder = world.state_encoder
        self.simulator = simulator
        shown, answers = _fit_width(users.shown, users.answers, slate_size, empty)
        history, feedback = users.history, users.feedback
        if cold:
            history, shown = torch.full_like(history, empty), torch.full_like(shown, empty)
            feedback, answers = torch.zeros_like(feedback), torch.zeros_like(answers)
        zeros = torch.zeros(len(users), dtype=torch.int64)
        seen = None if world.consumes_twice else _consumed_in_log(world, cold).seen(shown_most)
        past = Past(history, feedback, shown, answers, zeros, zeros.to(torch.float32), seen)
        self._past = past.to(device)
        self._profile = users.profile.to(device)
        self._encoded = encoder.blank(self._profile) if cold else world.warm_states.to(device)
        self._vector = encoder.vector(self._encoded)  # (U, d)
        known = (
            users.instruction_vectors if users.instructions else torch.zeros(len(users), world.spec().instruction_dim)
        )
        self._instructions = known.to(device)
        self._strangers = self._inferred() if cold else None

    def of(self, users: Tensor, draw: Draw) -> Arrival:
        """Users (B,), rows of the users table, as they arrive; all tensors are new ones."""
        state = arriving(self.simulator, users, draw) if self._strangers is None else self._strangers.rows(users)
        return Arrival(
            self._past.rows(users),
            self._encoded.rows(users),
            self._vector[users],
            self._profile[users],
            self._instructions[users],
            state,
        )

    def everyone(self) -> dict[str, Any]:
        """All users as they arrive, (U, ...), named as in `Arrival`; `state` is None where it is the simulator's."""
        return {
            "past": self._past,
            "encoded": self._encoded,
            "vector": self._vector,
            "profile": self._profile,
            "instructions": self._instructions,
            "state": self._strangers,
        }

    def lane_bytes(self) -> int:
        """Bytes that a core keeps of a lane."""
        one = torch.zeros(1, dtype=torch.int64, device=self._vector.device)
        arrival = self.of(one, Draw(one))
        return sum(tensor.nbytes for tensor in tensors_of(list(vars(arrival).values())))

    def _inferred(self) -> Any:
        """Users of whom nothing but the profile is known, by row; None where a simulator cannot guess at anyone."""
        try:
            return self.simulator.infer(self._past, self._profile)
        except NotImplementedError:  # such users arrive as they are
            return None


def _consumed_in_log(world: World, cold: bool) -> LoggedItems:
    """What each user consumed in the log; nothing for a cold start."""
    users, n, sequences = len(world.users), len(world.catalogue), world.sequences
    if cold:
        return LoggedItems.nothing(users, n)
    owner = torch.repeat_interleave(torch.arange(sequences.users), torch.from_numpy(sequences.lengths))
    return LoggedItems.of(users, n, owner, torch.from_numpy(sequences.items))


def _fit_width(shown: Tensor, answers: Tensor, k: int, empty: int) -> tuple[Tensor, Tensor]:
    """Logged slates (U, L, W) as slates of k places: cut, or filled with empty places."""
    width = shown.shape[2]
    if width >= k:
        return shown[..., :k], answers[..., :k, :]
    more = k - width
    return (
        torch.nn.functional.pad(shown, (0, more), value=empty),
        torch.nn.functional.pad(answers, (0, 0, 0, more)),
    )
