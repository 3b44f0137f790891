"""Where trajectories come from: somebody who acts in a world, or the world's log."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome
from recloop.envs.logs.sequences import Floats, Ints
from recloop.envs.logs.walk import LoggedSteps, every_step, past_before, steps_in_session
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Act, Picked, rollout
from recloop.envs.trajectories.episodes import Arrays, Trajectories, actions_of, keys_of, told_of
from recloop.envs.world.world import World

_PLACES = 20_000
"""Consumptions encoded at once: users times the longest history among them."""
_REWARDED = 65_536
"""Steps whose reward is worked out at once."""
LANES = 512
"""Episodes recorded at once."""


def recorded(
    world: World,
    act: Act,
    policy: str,
    episodes: int,
    seed: int = 0,
    observation: str | Sequence[str] = "dict",
    needs: Sequence[str] = (),
    **environment: Any,
) -> Trajectories:
    """Episodes in which somebody acts, one a lane from lane 0 on: their first.

    Args:
        world: where.
        act: who; `Picked.propensity` is kept, but for places that rules filled otherwise.
        policy: their name.
        episodes: how many.
        seed: of the users' luck, as `RecommendEnv.reset` takes it.
        observation: what is kept, as the environment's argument.
        needs: observation keys that `act` reads besides.
        environment: `users`, `simulator`, `slate_size`, `max_steps` or `device`, as `Core` takes them.
    """
    batch = min(episodes, LANES)
    rng, _ = gym.utils.seeding.np_random(seed)
    core = Core(world, batch=batch, seed=int(rng.integers(2**63)), **environment)  # as the environment draws it
    keys = keys_of(core.spec, observation)
    core.keys = tuple(dict.fromkeys((*keys, *needs)))
    steps: list[dict[str, Arrays]] = []
    moments: list[dict[str, Arrays]] = []
    users = np.zeros(episodes, dtype=np.int64)
    for first in range(0, episodes, batch):
        lanes = first + torch.arange(batch, device=core.device)
        core.reset(lanes=lanes)
        wanted = lanes < episodes  # the last batch may be too large
        users[first : first + batch] = core.users.cpu().numpy()[: episodes - first]
        seen = core.observe(keys)

        def acted(core: Core, carry: Any) -> Picked:
            nonlocal seen
            seen = core.observe(keys)
            return act(core, carry)

        for step in rollout(core, acted):
            rows = (step.alive & wanted).nonzero()[:, 0]
            after = step.transition
            over = rows[(after.terminated | after.truncated)[rows]]
            moments.append(_moments(lanes[rows], step.number, {key: seen[key][rows] for key in keys}))
            last = {key: after.next_observation[key][over] for key in keys}
            moments.append(_moments(lanes[over], step.number + 1, last))
            kept = {
                "actions": step.picked.slate,
                "slates": after.slate,
                "rewards": after.reward,
                "terminated": after.terminated,
                "truncated": after.truncated,
                "answers": after.response.signals * after.response.given,
                "given": after.response.given,
                "propensity": _propensity(step.picked, after.slate),
            }
            steps.append(_moments(lanes[rows], step.number, {name: value[rows] for name, value in kept.items()}))
    table = _in_order(steps)
    table["actions"] = actions_of(table["actions"], core.empty)
    count = np.bincount(table.pop("lane"), minlength=episodes)
    observations = _in_order(moments)
    observations.pop("lane")
    kwargs = {name: value for name, value in environment.items() if name != "device"}
    return Trajectories(
        about=told_of(world, "policy", observation, policy, seed=seed, environment=kwargs),
        offsets=np.concatenate([[0], np.cumsum(count)]),
        observations=observations,
        users=users,
        lanes=np.arange(episodes),
        **table,
    )


def logged(
    world: World, users: str = "train", observation: str | Sequence[str] = "dict", episodes: int | None = None
) -> Trajectories:
    """The sessions of a world's log, an episode each; without exposures all that a user consumed, one item a step.

    An episode is terminated where the log says that the user left, and truncated where the session ends otherwise.
    Steps that profiles tell of (`Sequences.profile_prefix`) are left out. The state is that of
    `StateEncoder.trajectory`: without what a language model reads in whole histories. No `action_mask` is kept.

    Args:
        world: whose log; rewards are the world's own.
        users: a part of its users.
        observation: what is kept, as the environment's argument.
        episodes: the first so many; default all.

    Raises:
        PolicyError: users without a logged step, or a key that a log cannot tell.
    """
    log, rows = world.sequences, world.users.rows(users).numpy()
    steps = every_step(log, rows)
    steps = some_steps(steps, steps.step >= log.first_scored[steps.users])
    if not len(steps.users):
        raise PolicyError(f"no user of '{users}' in world '{world.name}' has a logged step; there is nothing to write")
    number = steps.step if log.slates is None else steps_in_session(log.slates)[steps.rows]
    opens = np.ones(len(number), dtype=bool)
    opens[1:] = (steps.users[1:] != steps.users[:-1]) | (number[1:] != number[:-1] + 1)
    starts = np.append(np.flatnonzero(opens), len(number))
    starts = starts[: 1 + (len(starts) if episodes is None else episodes)]
    steps, number = some_steps(steps, slice(starts[-1])), number[: starts[-1]]
    spec = world.spec(steps.items.shape[1])
    ends = starts[1:] - 1
    place = np.insert(np.arange(len(number)), ends + 1, ends)  # of every moment, the step before or of it
    after = np.zeros(len(place), dtype=np.int64)
    after[starts[1:] + np.arange(len(ends))] = 1
    owner, step = steps.users[place], steps.step[place] + after
    past = past_before(log, owner, step, spec.history_length, spec.shown_length)
    if log.slates is not None:
        days = torch.from_numpy(np.where(after == 1, np.float32(0), days_before(steps, number)[place]))
        past = replace(past, step=torch.from_numpy(number[place] + after), days_away=days)
    states, first = logged_states(world, rows)
    of_user = np.zeros(len(world.users), dtype=np.int64)
    of_user[rows] = first
    state = states[torch.from_numpy(of_user[owner] + log.consumed_after(owner, step))]
    keys = keys_of(spec, observation)
    if "action_mask" in keys or "instruction" in keys:
        raise PolicyError("a log tells no 'action_mask' and no 'instruction'; leave these keys out")
    seen = spec.observe(past, state, world.users.profile[torch.from_numpy(owner)], keys)
    shape, slates = steps.items.shape, log.slates
    unknown = slates is None or slates.propensity is None
    left, last = steps.left == 1, np.isin(np.arange(len(number)), ends)
    return Trajectories(
        about=told_of(world, "log", observation, ", ".join(log.policies) or None),
        offsets=starts,
        observations={key: value.numpy() for key, value in seen.items()},
        actions=actions_of(steps.items, log.catalogue_size),
        slates=steps.items,
        rewards=logged_rewards(world, steps).astype(np.float32),
        terminated=left & last,
        truncated=last & ~left,
        answers=steps.answers,
        given=steps.given,
        propensity=np.full(shape, np.nan, np.float32) if unknown else slates.propensity[steps.rows],  # type: ignore
        users=steps.users[starts[:-1]],
        lanes=np.full(len(ends), -1),
    )


def some_steps(steps: LoggedSteps, rows: Any) -> LoggedSteps:
    """Some of the logged steps (Q,), by mask, slice or rows."""
    return LoggedSteps(steps.sequences, steps.users[rows], steps.step[rows], steps.held[rows])


def logged_rewards(world: World, steps: LoggedSteps) -> Arrays:
    """What the world's reward gives each of Q logged steps, float64 (Q,)."""
    vectors, columns = world.item_vectors.cpu(), world.catalogue.columns
    found = [np.zeros(0)]
    left = steps.left == 1
    for start in range(0, len(left), _REWARDED):
        some = slice(start, start + _REWARDED)
        slate = torch.from_numpy(steps.items[some])
        response = Response(*(torch.from_numpy(each[some]) for each in (steps.answers, steps.given, left)))
        invalid = torch.zeros(len(slate), dtype=torch.int64)
        outcome = Outcome(slate, response, invalid, vectors, world.signals, columns=columns)
        found.append(world.reward(outcome).double().numpy())
    return np.concatenate(found)


@torch.no_grad()
def logged_states(world: World, users: Ints) -> tuple[Tensor, Ints]:
    """The encoder's vector of each user before anything and after each consumption, one below the other, and the row
    where each user's begin."""
    encoder, log = world.state_encoder, world.sequences
    device, lengths = encoder.item_vectors.device, log.lengths[users]
    first = np.cumsum(lengths + 1) - (lengths + 1)
    table = torch.zeros(int((lengths + 1).sum()), encoder.dim)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        some = order[start : start + max(1, _PLACES // max(longest, 1))]
        start += len(some)
        profile = world.users.profile[torch.from_numpy(users[some])].to(device)
        table[torch.from_numpy(first[some])] = encoder.vector(encoder.blank(profile)).cpu()
        if not longest:
            continue
        history, feedback = (t.to(device) for t in log.last(users[some], longest))
        vectors = encoder.trajectory(profile, history, feedback)[0].cpu()
        count = torch.from_numpy(lengths[some])
        held = torch.arange(longest) < count.unsqueeze(1)
        rows = torch.from_numpy(first[some]).unsqueeze(1) + 1 + torch.arange(longest)
        table[rows[held]] = vectors[held]
    return table, first


def days_before(steps: LoggedSteps, number: Ints) -> Floats:
    """Days before each step (Q,) that starts a later session; 0 elsewhere and where nobody knows.

    Args:
        steps: in the order of users and time.
        number: int64 (Q,) of each step in its session.
    """
    days = np.zeros(len(number), dtype=np.float32)
    slates = steps.sequences.slates
    if slates is not None and slates.days_away is not None:
        back = np.flatnonzero((number == 0) & (steps.step > 0))
        days[back] = np.nan_to_num(slates.days_away[steps.rows[back] - 1]).clip(0)
    return days


def _propensity(picked: Picked, shown: Tensor) -> Tensor:
    """Of each place of what was shown; NaN where it is not what was picked."""
    if picked.propensity is None:
        return torch.full(shown.shape, torch.nan)
    return picked.propensity.masked_fill(picked.slate.to(shown.device) != shown, torch.nan)


def _moments(lanes: Tensor, number: int, tensors: dict[str, Tensor]) -> dict[str, Arrays]:
    """Some lanes at one step, as arrays."""
    held = {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
    return {"lane": lanes.cpu().numpy(), "number": np.full(len(lanes), number), **held}


def _in_order(parts: list[dict[str, Arrays]]) -> dict[str, Arrays]:
    """All parts one below the other, sorted by lane and step number; without the number."""
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((table.pop("number"), table["lane"]))
    return {name: value[order] for name, value in table.items()}
