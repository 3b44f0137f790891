"""A simulator of your own in twenty lines: copy this file, change the class, check it, train in it.

    python experiments/template_users.py
    recloop check-users recloop.experiments.template_users:MoodyUsers
    recloop compare worlds/ml-100k --users my_module:MoodyUsers --policies random popularity ppo

Run as it stands, it checks `MoodyUsers` and trains PPO in them for a few thousand steps, beside random slates.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy, save_policy
from recloop.envs.logs.schema import Signal
from recloop.envs.users.checks import check_users
from recloop.envs.users.per_user import PerUserSimulator, item_luck
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import evaluate
from recloop.experiments.settings import at_least


class MoodyUsers(PerUserSimulator):
    """Users who like one half of the catalogue, the even or the odd rows, and leave once they are bored."""

    signals = (
        Signal("click"),
        Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="click"),
    )

    def arrive_one(self, user_row: int, profile: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        return {"likes": user_row % 5 == 0, "patience": 3}

    def respond_one(self, state: dict[str, Any], slate: list[int], rng: np.random.Generator) -> Any:
        luck = int(rng.integers(2**63))  # of this step; by item, so that it does not go by the order of places
        clicks: list[float | None] = []
        for item in slate:
            liked = item % 2 == state["likes"]
            shown = item < self.catalogue_size  # otherwise the place is empty
            clicks.append(float(item_luck(luck, item) < (0.7 if liked else 0.05)) if shown else None)
        ratings = [4.0 if click else None for click in clicks]
        state["patience"] += 1 if any(clicks) else -1
        return state, {"click": clicks, "rating": ratings}, state["patience"] <= 0


@dataclass(frozen=True)
class TemplateConfig:
    """Check the users above and train PPO in them."""

    world: Path | None = None
    """World folder whose catalogue and users to use; it must have the same signals. Default the built-in one."""
    steps: int = 6000
    """Environment steps of PPO."""
    episodes: int = 100
    """Users each policy is tried on."""
    seed: int = 0
    """Of all randomness."""
    out: Path | None = None
    """Policy folder to write."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(2, episodes=self.episodes)


def main(config: TemplateConfig) -> dict[str, float]:
    """Check, train, compare; returns the mean reward of each policy."""
    from recloop.envs.truth.built_in import built_in_world

    world = built_in_world() if config.world is None else World.load(config.world)
    users = MoodyUsers()
    check_users(users, world)
    print("MoodyUsers keep the contract")
    world = world.with_simulators(**{world.training_simulator: users})
    options = FitOptions(seed=config.seed, steps=config.steps)
    values = {}
    for name in ("random", "ppo"):
        policy = make_policy(name, world, options)
        values[name] = float(evaluate(policy, world, users, episodes=config.episodes, seed=config.seed).value.mean())
        print(f"{name}: {values[name]:.2f} clicks an episode")
        if name == "ppo" and config.out is not None:
            save_policy(policy, config.out)
    return values


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(TemplateConfig, main)
