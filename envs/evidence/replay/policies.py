"""Logging policies of whom only the log is known: replayed slate by slate, or estimated from what they showed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.replay.episodes import Starts, episode_steps
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.logs.walk import steps_at
from recloop.envs.simulation.rollout import Picked

_RECENT = 10
"""Consumed items that make a situation."""
_LIKE = 10
"""Logged situations that a slate is drawn from."""
_MOST = 4000
"""Most logged situations of a policy that are looked at."""


class LoggedSlates:
    """Shows every lane what the log showed its user, whatever the lane answers. The carry counts steps.

    Args:
        sequences: the log.
        starts: the lanes' episodes; behind an episode's end its first slate is shown.
    """

    def __init__(self, sequences: Sequences, starts: Starts) -> None:
        slates, rows = sequences.slates, episode_steps(sequences, starts).rows
        assert slates is not None
        self.items = torch.from_numpy(slates.items[rows])  # (B, T, K)
        self.names = None
        if slates.policy is not None and sequences.policies:
            self.names = np.array(sequences.policies)[slates.policy[rows]]  # (B, T)

    def __call__(self, observation: Observation, carry: int | None, draw: Draw) -> Picked:
        step = min(carry or 0, self.items.shape[1] - 1)
        policy = None if self.names is None else self.names[:, step]
        return Picked(self.items[:, step].to(draw.key.device), policy=policy, carry=step + 1)


class EstimatedPolicies:
    """Named policies, each as a draw from the slates that it showed in like situations.

    A situation is what was consumed lately, what was consumed last and what was shown lately, as item vectors. A lane
    gets the whole slate of one of the policy's `_LIKE` nearest logged situations, so composition and order are the
    policy's own. What it makes of the user's profile, and of older or finer facts, is lost: a policy that adapts to
    more is estimated too blunt. The carry counts steps.

    Args:
        sequences: the log.
        users: int64 whose slates are drawn from.
        item_vectors: float32 (N+1, d), row N zero.
        kinds: int64 (B, T) the policy in force by lane and step, rows of `sequences.policies`.
        shown: L of the observations that will be seen.
        seed: of the sample of situations.
    """

    def __init__(
        self, sequences: Sequences, users: Ints, item_vectors: Tensor, kinds: Ints, shown: int, seed: int
    ) -> None:
        slates = sequences.slates
        if slates is None or slates.policy is None:
            raise RecloopError("policies are estimated from slates whose policy is known; this log does not name them")
        self.vectors = torch.nn.functional.normalize(item_vectors.detach().cpu(), dim=1)
        self.names, self.kinds = np.array(sequences.policies), kinds
        rows = rows_of(slates.offsets, users)
        generator = np.random.default_rng(seed)
        self.known: dict[int, tuple[Tensor, Tensor]] = {}
        for kind in np.unique(slates.policy[rows]).tolist():
            mine = generator.permutation(rows[slates.policy[rows] == kind])[:_MOST]
            steps = steps_at(sequences, mine)
            past = steps.past(_RECENT, shown)
            self.known[kind] = (self._situation(past.history, past.shown), torch.from_numpy(steps.items))

    def __call__(self, observation: Observation, carry: int | None, draw: Draw) -> Picked:
        step = carry or 0
        kind = self.kinds[:, min(step, self.kinds.shape[1] - 1)]
        here = self._situation(observation["history"][:, -_RECENT:].cpu(), observation["shown"].cpu())
        luck = draw.uniform("estimated policy").cpu()
        width = next(iter(self.known.values()))[1].shape[1]
        slate = torch.zeros(len(kind), width, dtype=torch.int64)
        for number in np.unique(kind).tolist():
            lanes = torch.from_numpy(np.flatnonzero(kind == number))
            there, slates = self.known[number]
            near = torch.cdist(here[lanes], there).topk(min(_LIKE, len(there)), dim=1, largest=False).indices
            chosen = (luck[lanes] * near.shape[1]).long().unsqueeze(1)
            slate[lanes] = slates[near.gather(1, chosen)[:, 0]]
        return Picked(slate.to(draw.key.device), policy=self.names[kind], carry=step + 1)

    def _situation(self, history: Tensor, shown: Tensor) -> Tensor:
        """Histories (B, H), slates (B, L, K) -> (B, 3 d)."""
        recent = self.vectors[history].sum(1)
        lately = self.vectors[shown.flatten(1)].sum(1)
        parts = [torch.nn.functional.normalize(total, dim=1) for total in (recent, lately)]
        return torch.cat([*parts, self.vectors[history[:, -1]]], dim=1)


def kinds_in_force(policy: Ints, steps: int, seed: int) -> Ints:
    """The policy of every lane at every step, (B, steps): as logged, and after the log's end drawn from the lane's own.

    >>> kinds_in_force(np.array([[2, -1], [0, -1]]), 3, seed=0).tolist()
    [[2, 2, 2], [0, 0, 0]]
    """
    b, t = policy.shape
    known: npt.NDArray[np.bool_] = policy >= 0
    counts = np.maximum(known.sum(1), 1)
    place = np.random.default_rng(seed).integers(0, np.repeat(counts[:, None], steps, axis=1))
    order = np.argsort(~known, axis=1, kind="stable")
    drawn = np.take_along_axis(np.take_along_axis(policy, order, axis=1), place, axis=1)
    full = np.full((b, steps), -1, dtype=np.int64)
    full[:, : min(t, steps)] = policy[:, :steps]
    kinds: Ints = np.maximum(np.where(full >= 0, full, drawn), 0)
    return kinds
