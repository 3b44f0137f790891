"""What a policy sees: the observation's keys, their shapes, and the spaces that declare them."""

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.response import Past
from recloop.envs.logs.schema import Signal

Observation = dict[str, Tensor]
"""A batch of B lanes, by key; shapes in `ObservationSpec`."""

DEFAULT_KEYS = ("state", "history", "feedback", "shown", "answers", "context", "profile")
OPTIONAL_KEYS = ("instruction", "action_mask", "candidates", "picked")
INTERNAL_KEYS = ("seen", "allowed")
"""What retrieval reads in place of `action_mask` where a catalogue is large; no agent sees it. `allowed` (B, N) is what
rules allow, one row for all lanes."""
DENSE_ITEMS = 1 << 16
"""N above which nothing of size (B, N) is made unless somebody asks for `action_mask`."""
CONTEXT = ("step", "days_away")
"""What `context` holds: share of the time limit used, in [0, 1]; log(1 + days since the last session)."""

_LARGEST = float(np.finfo(np.float32).max)
"""Spaces have finite bounds: no float32 is larger."""


@dataclass(frozen=True)
class ObservationSpec:
    """Sizes of one lane's observation.

    | key | shape | dtype | range |
    |---|---|---|---|
    | `state` | (d,) | float32 | [-1, 1], the encoder's vector |
    | `history` | (H,) | int64 | item rows consumed, newest last; N is empty |
    | `feedback` | (H, S) | float32 | their signals; 0 where not given |
    | `shown` | (L, K) | int64 | the last L slates, newest last; N is empty |
    | `answers` | (L, K, S) | float32 | the answers to them |
    | `context` | (2,) | float32 | see `CONTEXT` |
    | `profile` | (p,) | float32 | the user's features |
    | `instruction` | (u,) | float32 | [-1, 1], what the user said last that they want; zero is nothing; on request |
    | `action_mask` | (N,) | int8 | 1 where an item may be shown; on request |
    | `candidates` | (C,) | int64 | item rows to choose from, the best guess first; N is empty; on request |
    | `picked` | (K,) | int64 | the slate so far where it is filled one item at a time; N is empty |

    Only users who speak (`recloop.envs.users.speaking`) answer by what they ask for; others by what they are, whatever
    `instruction` holds.
    """

    catalogue_size: int
    state_dim: int
    history_length: int
    shown_length: int
    slate_size: int
    profile_dim: int
    signals: tuple[Signal, ...]
    max_steps: int
    instruction_dim: int = 0

    def space(self, key: str, candidates: int = 0) -> gym.Space[np.ndarray]:
        """The space of one key for one lane; `candidates` is C."""
        n, k = self.catalogue_size, self.slate_size
        low = np.array([min(s.bounds[0], 0.0) for s in self.signals], dtype=np.float32)
        high = np.array([max(s.bounds[1], 0.0) for s in self.signals], dtype=np.float32)
        match key:
            case "state":
                return gym.spaces.Box(-1.0, 1.0, (self.state_dim,), np.float32)
            case "history":
                return gym.spaces.Box(0, n, (self.history_length,), np.int64)
            case "feedback":
                return _signals_box(low, high, (self.history_length,))
            case "shown":
                return gym.spaces.Box(0, n, (self.shown_length, k), np.int64)
            case "answers":
                return _signals_box(low, high, (self.shown_length, k))
            case "context":
                high = np.array([1.0, np.log1p(_LARGEST)], dtype=np.float32)
                return gym.spaces.Box(np.zeros_like(high), high, dtype=np.float32)
            case "profile":
                return gym.spaces.Box(-_LARGEST, _LARGEST, (self.profile_dim,), np.float32)
            case "instruction":
                self._check_instruction()
                return gym.spaces.Box(-1.0, 1.0, (self.instruction_dim,), np.float32)
            case "action_mask":
                return gym.spaces.Box(0, 1, (n,), np.int8)
            case "candidates":
                return gym.spaces.Box(0, n, (candidates,), np.int64)
            case "picked":
                return gym.spaces.Box(0, n, (k,), np.int64)
        raise RecloopError(unknown_name("observation key", key, (*DEFAULT_KEYS, *OPTIONAL_KEYS)))

    def observe(
        self,
        past: Past,
        state: Tensor,
        profile: Tensor,
        keys: Sequence[str] = DEFAULT_KEYS,
        instruction: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Observation:
        """The observation of B lanes from their past, encoder vectors (B, d), profiles (B, p), instructions (B, u).

        `allowed` (N,) is what rules allow to be shown; default everything.

        `candidates` and `picked` belong to the way an agent acts and are not made here: see `envs.simulation.driver`.
        """
        parts: dict[str, Tensor] = {
            "state": state,
            "history": past.history,
            "feedback": past.feedback,
            "shown": past.shown,
            "answers": past.answers,
            "profile": profile,
        }
        if "context" in keys:
            progress = past.step.to(torch.float32) / self.max_steps
            parts["context"] = torch.stack([progress.clamp(max=1.0), torch.log1p(past.days_away)], dim=1)
        if "instruction" in keys:
            self._check_instruction()
            if instruction is not None:
                parts["instruction"] = instruction
        if "seen" in keys and past.seen is not None:
            parts["seen"] = past.seen.listed()
        if "action_mask" in keys:
            parts["action_mask"] = self.action_mask(past, allowed)
        if "allowed" in keys and allowed is not None:
            parts["allowed"] = allowed.expand(len(past.step), -1)
        return {key: parts[key] for key in keys if key in parts}

    def _check_instruction(self) -> None:
        if not self.instruction_dim:
            raise RecloopError(
                "observation key 'instruction' needs a world with an instruction encoder and this one has none; build "
                "it with --encoder.instruction, or leave the key out"
            )

    def action_mask(self, past: Past, allowed: Tensor | None = None) -> Tensor:
        """Which items may be shown, bool (B, N), where rules allow all, or `allowed` (N,)."""
        if past.seen is not None:
            free = past.seen.admissible()
            return free if allowed is None else free & allowed
        if allowed is not None:
            return allowed.repeat(len(past.step), 1)
        return torch.ones(len(past.step), self.catalogue_size, dtype=torch.bool, device=past.step.device)


def past_of(observation: Observation) -> Past:
    """The past that an observation with the default keys tells of (its `step` as a share is not undone: 0)."""
    history = observation["history"]
    zeros = torch.zeros(len(history), dtype=torch.int64, device=history.device)
    return Past(
        history=history,
        feedback=observation["feedback"],
        shown=observation["shown"],
        answers=observation["answers"],
        step=zeros,
        days_away=torch.expm1(observation["context"][:, 1]),
    )


def _signals_box(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]) -> gym.spaces.Box:
    full = (*shape, len(low))
    return gym.spaces.Box(np.broadcast_to(low, full), np.broadcast_to(high, full), full, np.float32)
