"""Recorded episodes as arrays: what was observed, shown, earned and answered, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import ObservationSpec
from recloop.envs.logs.sequences import Floats, Ints
from recloop.envs.simulation.actions import ActionCodec, ItemCodec, SlateCodec
from recloop.envs.simulation.driver import observed_keys
from recloop.envs.world.world import World

Arrays = npt.NDArray[Any]


@dataclass(frozen=True)
class Trajectories(Described):
    """E episodes of Q steps in all. Observations and actions are those of `recloop/Recommend-v0`.

    Args:
        about: what they were made of, as JSON; see `told_of`.
        offsets: int64 (E+1,); episode e's steps are rows offsets[e] to offsets[e+1].
        observations: arrays (Q + E, ...) by key: an episode of T steps has T + 1, those of episode e begin at
            offsets[e] + e.
        actions: int64 (Q, K), or (Q,) where K is 1: the slates that were asked for, item rows; see `actions_of`.
        slates: int64 (Q, K) item rows that were shown; N at places that were left empty or struck.
        rewards: float32 (Q,).
        terminated: bool (Q,) the user left for good.
        truncated: bool (Q,) the episode was cut.
        answers: float32 (Q, K, S); 0 where not given.
        given: bool (Q, K, S) where an answer exists.
        propensity: float32 (Q, K) chance that whoever acted put the item there, given the places above; NaN where
            nobody knows.
        users: int64 (E,) rows of the users table.
        lanes: int64 (E,) what `reset(seed=about["seed"], options={"lanes": ...})` takes to meet the same user with the
            same luck; -1 for episodes of a log, which nothing repeats.
    """

    about: Mapping[str, Any]
    offsets: Ints
    observations: Mapping[str, Arrays]
    actions: Ints
    slates: Ints
    rewards: Floats
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    answers: Floats
    given: npt.NDArray[np.bool_]
    propensity: Floats
    users: Ints
    lanes: Ints

    def described(self) -> dict[str, Any]:
        """Where they are from, and how many."""
        names = ("world", "source", "policy", "seed")
        return {**{name: self.about[name] for name in names}, "episodes, steps": f"{len(self)}, {len(self.rewards)}"}

    def __len__(self) -> int:
        return len(self.users)

    @property
    def episode(self) -> Ints:
        """int64 (Q,) the episode of each step."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def flat(self) -> bool:
        """Whether the environment shows the vector `state` alone, a Box."""
        return bool(self.about["observation"] == "state")

    def check_world(self, world: World) -> None:
        """Raise `PolicyError` where they are of another world, or earn by another reward than it has now."""
        mine, theirs = world.observation_fingerprint, str(self.about["fingerprint"])
        if theirs != mine:
            raise PolicyError(
                f"the trajectories are of world '{self.about['world']}' ({theirs[:12]}), this is '{world.name}' "
                f"({mine[:12]}); record them anew in this world"
            )
        if self.about["reward"] != world.reward.in_words():
            raise PolicyError(
                f"the trajectories earn by the reward {self.about['reward']}, this world by {world.reward.in_words()}; "
                "record them anew, or take the world with their reward"
            )

    def check_propensities(self) -> None:
        """Raise `PolicyError` where no step tells its propensity."""
        if np.isnan(self.propensity).all():
            raise PolicyError(
                f"the trajectories of {self.about['policy'] or 'the log'} hold no propensities, which weights need; "
                "record a policy that draws its slates, or estimate them (--set propensity=estimated)"
            )


def actions_of(slates: Ints, empty: int) -> Ints:
    """Slates (Q, K) as the environment's actions: (Q, K), or (Q,) where K is 1.

    An empty place repeats the first item, which the environment strikes: what is shown stays the same.

    >>> actions_of(np.array([[3, 9, 9], [1, 2, 9]]), 9).tolist()
    [[3, 3, 3], [1, 2, 1]]
    """
    filled = np.where(slates < empty, slates, np.where(slates < empty, slates, 0)[:, :1])
    return filled[:, 0] if filled.shape[1] == 1 else filled


def told_of(
    world: World, source: str, observation: str | Sequence[str], policy: str | None = None, **others: Any
) -> dict[str, Any]:
    """What `Trajectories.about` holds: the world, its fingerprint and reward, and how the episodes came about.

    Args:
        source: `policy` or `log`.
        observation: as `TaskOptions` has it.
        policy: who acted.
        others: `seed` and `environment`, the arguments of the environment, where there is one.
    """
    return {
        "world": world.name,
        "fingerprint": world.observation_fingerprint,
        "reward": world.reward.in_words(),
        "rules": world.rules.as_dict(),
        "catalogue_size": len(world.catalogue),
        "signals": [signal.as_dict() for signal in world.signals],
        "source": source,
        "policy": policy,
        "observation": observation if isinstance(observation, str) else list(observation),
        "seed": None,
        "environment": {},
        **others,
    }


def spaces_of(spec: ObservationSpec, observation: str | Sequence[str]) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """The environment's spaces of observations and of actions, in mode `slate`, or `item` where K is 1."""
    codec: ActionCodec = ItemCodec(spec) if spec.slate_size == 1 else SlateCodec(spec)
    spaces = {key: spec.space(key) for key in keys_of(spec, observation)}
    return (spaces["state"] if observation == "state" else gym.spaces.Dict(spaces)), codec.space


def keys_of(spec: ObservationSpec, observation: str | Sequence[str]) -> tuple[str, ...]:
    """The observation's keys; candidates, which belong to a way of acting, cannot be asked for."""
    keys = ("state",) if observation == "state" else observed_keys(observation, spec)
    for key in ("candidates", "picked"):
        if key in keys:
            raise PolicyError(f"trajectories hold no '{key}', which belong to one way of acting; leave the key out")
    return keys
