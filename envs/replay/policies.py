"""Logging policies of whom only the log is known: replayed slate by slate, or estimated from what they showed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints, Sequences, Slates, rows_of
from recloop.envs.observation import Observation
from recloop.envs.randomness import Draw
from recloop.envs.replay.episodes import Starts, step_rows
from recloop.envs.users.recording import Picked

_FEWEST = 20
"""Fewer slates than this in a situation stand for nothing; a wider likeness is taken then."""


class LoggedSlates:
    """Shows every lane what the log showed its user, whatever the lane answers. The carry counts steps.

    Args:
        slates: the log's.
        starts: the lanes' episodes.
        names: of the logging policies, if the log says who showed what.
    """

    def __init__(self, slates: Slates, starts: Starts, names: tuple[str, ...]) -> None:
        rows, self.held = step_rows(starts)
        self.items = torch.from_numpy(slates.items[rows])  # (B, T, K)
        self.names = None
        if slates.policy is not None and names:
            self.names = np.array(names)[slates.policy[rows]]  # (B, T)

    def __call__(self, observation: Observation, carry: int | None, draw: Draw) -> Picked:
        step = min(carry or 0, self.items.shape[1] - 1)
        policy = None if self.names is None else self.names[:, step]
        return Picked(self.items[:, step].to(draw.key.device), policy=policy, carry=step + 1)


class EstimatedPolicies:
    """Named policies, each as a draw from the slates that it showed in a like situation.

    Alike are users whose last consumption was of one group, and whose last slate held most of one group. Whole slates
    are drawn, so composition and order are the policy's own. What it makes of older consumption or of the user's
    profile is lost: a policy that adapts to more is estimated too blunt. The carry counts steps.

    Args:
        sequences: the log.
        users: int64 whose slates are drawn from.
        groups: int64 (N+1,) one grouping of the items.
        kinds: int64 (B, T) the policy in force by lane and step, rows of `sequences.policies`.
    """

    def __init__(self, sequences: Sequences, users: Ints, groups: Tensor, kinds: Ints) -> None:
        slates = sequences.slates
        if slates is None or slates.policy is None:
            raise ValueError("policies are estimated from slates whose policy is known")
        rows = rows_of(slates.offsets, users)
        owner = np.repeat(users, np.diff(slates.offsets)[users])
        last, _ = sequences.last(owner, 1, slates.consumed_before[rows])
        first = np.isin(rows, slates.offsets[users])
        before = np.where(first[:, None], sequences.catalogue_size, slates.items[np.maximum(rows - 1, 0)])
        self.groups, self.size = groups, int(groups[-1]) + 1  # the last one is for nothing consumed or shown yet
        self.names, self.kinds = np.array(sequences.policies), kinds
        kind = torch.from_numpy(slates.policy[rows])
        keys = self._keys(kind, groups[last[:, 0]], torch.from_numpy(before))
        sizes = [len(self.names) * self.size**more for more in (2, 1, 0)]
        self.pools = [_Pool(slates.items[rows], key.numpy(), n) for key, n in zip(keys, sizes, strict=True)]

    def _keys(self, kind: Tensor, after: Tensor, before: Tensor) -> list[Tensor]:
        """Situations (B,), the closest likeness first: kind (B,), last consumed group (B,), last slate (B, K)."""
        counts = torch.nn.functional.one_hot(self.groups[before], self.size).sum(1)  # (B, groups + 1)
        some = counts[:, :-1].amax(1) > 0
        most = torch.where(some, counts[:, :-1].argmax(1), self.size - 1) if self.size > 1 else torch.zeros_like(kind)
        with_after = kind * self.size + after
        return [with_after * self.size + most, with_after, kind]

    def __call__(self, observation: Observation, carry: int | None, draw: Draw) -> Picked:
        step = carry or 0
        kind = torch.from_numpy(self.kinds[:, min(step, self.kinds.shape[1] - 1)])
        after = self.groups[observation["history"][:, -1].cpu()]
        luck = draw.uniform("estimated policy").cpu()
        keys = self._keys(kind, after, observation["shown"][:, -1].cpu())
        slate = self.pools[-1].draw(kind, luck)
        for key, pool in reversed(list(zip(keys, self.pools, strict=True))[:-1]):
            enough = (pool.counts[key] >= _FEWEST).unsqueeze(1)
            slate = torch.where(enough, pool.draw(key, luck), slate)
        return Picked(slate.to(draw.key.device), policy=self.names[kind.numpy()], carry=step + 1)


class _Pool:
    """Slates (Q, K) by key (Q,) in 0 to `keys` - 1."""

    def __init__(self, items: Ints, key: Ints, keys: int) -> None:
        order = np.argsort(key, kind="stable")
        counts = np.bincount(key, minlength=keys)
        self.items, self.counts = torch.from_numpy(items[order]), torch.from_numpy(counts)
        self.starts = torch.from_numpy(np.cumsum(counts) - counts)

    def draw(self, key: Tensor, luck: Tensor) -> Tensor:
        """A slate of each key (B,), by luck (B,) in (0, 1); any slate where a key has none."""
        place = self.starts[key] + (luck * self.counts[key]).long().clamp(max=self.counts[key].sub(1).clamp_min(0))
        return self.items[place.clamp(max=len(self.items) - 1)]


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
