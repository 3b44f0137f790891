"""Episodes as tables of users and steps, logged or simulated, what they tell, and the world as it was before them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from recloop.envs.evidence.replay.strata import spans
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome
from recloop.envs.logs.sequences import Ints, Sequences, Slates, rows_of
from recloop.envs.logs.walk import LoggedSteps, past_before, session_starts, steps_between
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Pick, acting, rollout
from recloop.envs.world.world import World

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LoggedEpisodes:
    """One episode of each of B users, over T steps.

    Args:
        reward: float64 (B, T); 0 where there was no slate.
        alive: bool (B, T) a slate was shown.
        known: bool (B, T) it is known whether the session ended with it.
        left: bool (B, T) it did.
        policy: int64 (B, T) who showed it, a row of a list of names; -1 where nobody says.
    """

    reward: Table
    alive: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    left: npt.NDArray[np.bool_]
    policy: Ints


@dataclass(frozen=True)
class Starts:
    """Where the episodes of B users lie in the log.

    Args:
        users: int64 (B,) rows of the users table, each once.
        first: int64 (B,) rows of `Slates` that open them.
        lengths: int64 (B,) slates.
        limits: int64 (B,) slates after which nobody could have been seen any more: the log itself ends there.
        weight: float64 (B,) of how many sessions each was drawn. A user whose sessions are long has few of them in a
            log that ends at some time, so that sessions drawn by user, one of each, are longer than the log's.
    """

    users: Ints
    first: Ints
    lengths: Ints
    limits: Ints
    weight: Table


def choose_episodes(
    slates: Slates, users: Ints, most: int, steps: int, whole: bool, seed: int, profile_prefix: Ints | None = None
) -> Starts:
    """One logged episode of each of at most `most` of the users, cut after `steps` slates.

    Args:
        whole: all sessions from the user's first one on; else one session, drawn by chance, which counts as often as
            there were sessions to draw from.
        profile_prefix: int64 (U,) slates of each user before which no session may begin; default none.
    """
    generator = np.random.default_rng(seed)
    opens = session_starts(slates)
    ends = np.searchsorted(opens, slates.offsets[1:])  # (U,) every user opens a session of their own
    first = np.searchsorted(opens, slates.offsets[:-1] + (0 if profile_prefix is None else profile_prefix))
    users = generator.permutation(users[(ends > first)[users]])[:most]
    users.sort()
    end = slates.offsets[users + 1]
    seen_off = slates.left[end - 1] == 1  # the log goes on until they leave
    if whole:
        start = opens[first[users]]
        lengths, weight = end - start, np.ones(len(users))
        limits = np.where(seen_off, steps, lengths)
    else:
        weight = (ends - first)[users].astype(np.float64)
        number = first[users] + (generator.random(len(users)) * weight).astype(np.int64)
        start, lengths = opens[number], np.diff(np.append(opens, len(slates.items)))[number]
        limits = np.where(slates.left[start + lengths - 1] == 1, np.where(seen_off, steps, end - start), lengths)
    return Starts(users, start, np.minimum(lengths, steps), np.minimum(limits, steps), weight)


def logged_episodes(world: World, sequences: Sequences, starts: Starts) -> LoggedEpisodes:
    """What the log says of the episodes; a step's reward is the world's."""
    steps = episode_steps(sequences, starts)
    held = steps.held
    items = torch.from_numpy(steps.items[held])
    response = Response(
        signals=torch.from_numpy(steps.answers[held]),
        given=torch.from_numpy(steps.given[held]),
        left=torch.from_numpy(steps.left[held] == 1),
    )
    invalid = (items == len(world.catalogue)).sum(1)
    columns = world.catalogue.columns
    earned = world.reward(Outcome(items, response, invalid, world.item_vectors, world.signals, columns=columns))
    reward = np.zeros(held.shape)
    reward[held] = earned.numpy()
    return LoggedEpisodes(reward, held, steps.left >= 0, steps.left == 1, steps.policy)


def episode_steps(sequences: Sequences, starts: Starts) -> LoggedSteps:
    """The slates of the episodes by user and step, (B, T)."""
    begin = starts.first - sequences.step_offsets[starts.users]
    return steps_between(sequences, starts.users, begin, begin + starts.lengths)


def world_before(world: World, sequences: Sequences, starts: Starts) -> World:
    """The world with its users as they were before these episodes: what they had consumed and been shown by then."""
    table, users = world.users, starts.users
    begin, rows = starts.first - sequences.step_offsets[users], torch.from_numpy(users)
    past = past_before(sequences, users, begin, table.history.shape[1], table.shown.shape[1])
    shown = torch.full((len(table), *past.shown.shape[1:]), sequences.catalogue_size)
    answers = torch.zeros(len(table), *past.answers.shape[1:])
    then = replace(
        table,
        history=table.history.index_copy(0, rows, past.history),
        feedback=table.feedback.index_copy(0, rows, past.feedback),
        shown=shown.index_copy(0, rows, past.shown),
        answers=answers.index_copy(0, rows, past.answers),
    )
    ends = sequences.lengths.copy()
    ends[users] = sequences.consumed_after(users, begin)
    return replace(world, users=then, sequences=consumed_until(sequences, ends))


def consumed_until(sequences: Sequences, ends: Ints) -> Sequences:
    """Each user's first `ends` (U,) consumptions, without slates."""
    limits = np.stack([sequences.offsets[:-1], sequences.offsets[:-1] + ends], axis=1).ravel()
    rows = rows_of(limits, 2 * np.arange(sequences.users))
    return Sequences(
        catalogue_size=sequences.catalogue_size,
        offsets=np.concatenate([[0], np.cumsum(ends)]).astype(np.int64),
        items=sequences.items[rows],
        feedback=sequences.feedback[rows],
        given=sequences.given[rows],
    )


def played_episodes(core: Core, pick: Pick, names: tuple[str, ...], lengths: Ints) -> LoggedEpisodes:
    """One episode of each of the core's lanes under `pick`.

    Args:
        core: fresh after `reset`.
        names: of the policies, in the order that the numbers of the result follow.
        lengths: int64 (B,) steps after which nothing more can be shown.
    """
    shape = (core.batch, core.max_steps)
    reward, policy = np.zeros(shape), np.full(shape, -1, dtype=np.int64)
    alive, left = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    number = {name: place for place, name in enumerate(names)}
    limits = torch.from_numpy(lengths).to(core.device)
    for step in rollout(core, acting(pick), limits):
        going, transition = step.alive.cpu().numpy(), step.transition
        alive[:, step.number] = going
        reward[:, step.number] = transition.reward.cpu().numpy() * going
        left[:, step.number] = transition.response.left.cpu().numpy() & going
        if step.picked.policy is not None:
            policy[:, step.number] = [number.get(str(name), -1) for name in step.picked.policy]
    return LoggedEpisodes(reward, alive, alive, left, np.where(alive, policy, -1))


def joined(parts: Sequence[LoggedEpisodes]) -> LoggedEpisodes:
    """Several tables of episodes, one below the other."""
    return LoggedEpisodes(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(LoggedEpisodes)))


def in_both(one: LoggedEpisodes, other: LoggedEpisodes) -> tuple[LoggedEpisodes, LoggedEpisodes]:
    """Both, at the steps that both have alone.

    Where logged slates are shown again, simulated users are seen only as long as neither they nor the logged ones have
    left; were the logged ones then counted longer, those who like everything would be fewer among them.
    """
    shared = one.alive & other.alive
    first, second = (
        LoggedEpisodes(e.reward * shared, shared, e.known & shared, e.left & shared, np.where(shared, e.policy, -1))
        for e in (one, other)
    )
    return first, second


def measures(
    episodes: LoggedEpisodes, weights: Table, names: tuple[str, ...], fewest: int, single: bool, parts: bool = True
) -> dict[tuple[str, str], Table]:
    """What episodes tell, by (measure, policy), for each row of users' weights (R, B): (R,).

    Args:
        fewest: slates that a line takes at least.
        single: an episode is one session, which leaving ends.
        parts: whether the reward is told by place in the episode.
    """

    def rate(top: Table, bottom: Table) -> Table:
        return np.asarray((weights @ top) / np.maximum(weights @ bottom, 1e-9))

    alive = episodes.alive.astype(np.float64)
    found = {("reward a slate", ""): rate(episodes.reward.sum(1), alive.sum(1))}
    for begin, end in spans(alive.shape[1]) if parts else ():
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
