"""What episodes tell of the users in them: rewards by place and policy, leaving, and what an episode comes to."""

import numpy as np

from recloop.envs.evidence.replay.episodes import LoggedEpisodes, Table


def measures(
    episodes: LoggedEpisodes, weights: Table, names: tuple[str, ...], fewest: int, single: bool
) -> dict[tuple[str, str], Table]:
    """What episodes tell, by (measure, policy), for each row of users' weights (R, B): (R,).

    Args:
        fewest: slates that a line takes at least.
        single: an episode is one session, which leaving ends.
    """

    def rate(top: Table, bottom: Table) -> Table:
        return np.asarray((weights @ top) / np.maximum(weights @ bottom, 1e-9))

    alive = episodes.alive.astype(np.float64)
    found = {("reward a slate", ""): rate(episodes.reward.sum(1), alive.sum(1))}
    for begin, end in _spans(alive.shape[1]):
        part = slice(begin, end)
        if alive[:, part].sum() >= fewest:
            span = f"slate {begin + 1}" if end == begin + 1 else f"slates {begin + 1} to {end}"
            found[f"reward, {span}", ""] = rate(episodes.reward[:, part].sum(1), alive[:, part].sum(1))
    for number, name in enumerate(names):
        mine = episodes.policy == number
        if mine.sum() >= fewest and len(names) > 1:
            found["reward a slate", name] = rate((episodes.reward * mine).sum(1), mine.sum(1).astype(np.float64))
    known = (episodes.known & episodes.alive).astype(np.float64)
    left = (episodes.left & episodes.known & episodes.alive).astype(np.float64)
    if not known.any():
        return found
    found["chance to leave after a slate", ""] = rate(left.sum(1), known.sum(1))
    if single:
        hazard = rate(left, known)[:, :-1]  # (R, T-1)
        stayed = np.concatenate([np.ones((len(weights), 1)), np.cumprod(1 - hazard, axis=1)], axis=1)
        found["slates an episode", ""] = stayed.sum(1)
        found["return an episode", ""] = (stayed * rate(episodes.reward, alive)).sum(1)
    return found


def _spans(steps: int) -> list[tuple[int, int]]:
    """Steps in spans that double: 0, 1-2, 3-6, 7-14, ..."""
    spans, begin, width = [], 0, 1
    while begin < steps:
        spans.append((begin, min(begin + width, steps)))
        begin, width = begin + width, 2 * width
    return spans
