"""What a policy did for groups of users: to each group, and to the segments that their members belong to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Floats, Rollout
from recloop.experiments.comparison.intervals import Interval, by_user, t_interval
from recloop.experiments.comparison.segments import FEWEST_USERS

Bools = npt.NDArray[np.bool_]

FEW = 0.2
"""Share of the users, those with the shortest logs, who make the segment of few interactions."""

MEASURES: dict[str, Callable[[Rollout, Floats], Floats]] = {
    "mean": lambda rollout, took: took.mean(1),
    "least-misery": lambda rollout, took: rollout.value,
    "fair": lambda rollout, took: np.log1p(took).mean(1),
    "worst-off": lambda rollout, took: took.min(1),
    "jain": lambda rollout, took: jain(took),
}
"""Name -> (rollout in a world rewarded by least misery, items that each member took (B, g)) -> what an episode was
worth to each group, (B,): the returns of the rewards `mean`, `least-misery` and `fair`; the items of the member who got
least of the whole episode; and Jain's index of who got how much."""


@dataclass(frozen=True)
class SegmentFigure:
    """What the members of one segment took in an episode under one policy.

    Args:
        segment: its name.
        users: how many members of the evaluated groups are in it.
        mean: items a member takes, mean over groups.
        value: its interval over groups; None for a segment of fewer than `FEWEST_USERS`.
    """

    segment: str
    users: int
    mean: float
    value: Interval | None


def items_taken(rollout: Rollout, size: int) -> Floats:
    """Items that each member took in each episode, (B, g)."""
    own = rollout.signals[:, 1:].reshape(len(rollout.value), size, -1)
    return np.asarray(own[:, :, 0], dtype=np.float64)


def jain(took: Floats) -> Floats:
    """Jain's index (Jain, Chiu and Hawe 1984) of what g members got: (B, g) -> (B,) in [1/g, 1]; 1 where all got none.

    >>> jain(np.array([[2.0, 2.0], [4.0, 0.0], [0.0, 0.0]])).tolist()
    [1.0, 0.5, 1.0]
    """
    squares = took.shape[1] * (took**2).sum(1)
    return np.where(squares > 0, took.sum(1) ** 2 / np.maximum(squares, 1e-12), 1.0)


def by_group(rollouts: Sequence[Rollout], size: int) -> dict[str, Floats]:
    """Measure -> what an episode is worth to each group, (G,), groups rising, mean over the rollouts."""
    found = {name: [] for name in MEASURES}  # type: dict[str, list[Floats]]
    for rollout in rollouts:
        took = items_taken(rollout, size)
        for name, measure in MEASURES.items():
            found[name].append(by_user(measure(rollout, took), rollout.users))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def segments_of(single: World) -> dict[str, Bools]:
    """Segments of a world's users by name, bool (U,): those of its patterns, or, where the users are written down, by
    the topic that they like most; and the users with the fewest interactions, where there is a log."""
    found: dict[str, Bools] = {}
    patterns, lengths = single.patterns, single.sequences.lengths
    truth = single.simulators.get("truth")
    if patterns is not None and patterns.segments is not None:
        member = patterns.segment.numpy()
        found = {name: member == place for place, name in enumerate(patterns.segments.names)}
    elif isinstance(truth, TasteUsers):
        best = truth.preference.argmax(1).cpu().numpy()
        found = {f"likes topic {topic} most": best == topic for topic in range(truth.topics)}
    if lengths.any():
        most = int(np.quantile(lengths, FEW))
        found[f"at most {most} interactions"] = lengths <= most
        found[f"more than {most} interactions"] = lengths > most
    return {name: mask for name, mask in found.items() if mask.any()}


def segment_figures(
    rollouts: Sequence[Rollout], members: torch.Tensor, segments: dict[str, Bools]
) -> list[SegmentFigure]:
    """What each segment's members took, mean over rollouts of the same lanes.

    Groups are what is independent: a group counts with the mean of its members in the segment.

    Args:
        rollouts: of one policy.
        members: int64 (G, g) who sits together.
        segments: by name, bool (U,).
    """
    lanes = members.numpy()[rollouts[0].users]  # (B, g)
    took = np.mean([items_taken(rollout, lanes.shape[1]) for rollout in rollouts], axis=0)
    figures = []
    for name, mask in segments.items():
        inside = mask[lanes]
        groups = inside.any(1)
        if not groups.any():
            continue
        mine = (took * inside).sum(1)[groups] / inside.sum(1)[groups]
        values = by_user(mine, rollouts[0].users[groups])
        users = len(np.unique(lanes[inside]))
        sure = t_interval(values) if users >= FEWEST_USERS and len(values) > 1 else None
        figures.append(SegmentFigure(name, users, float(values.mean()), sure))
    return figures
