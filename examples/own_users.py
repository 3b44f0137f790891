"""Users of your own: check that they keep the contract, then train an agent in them.

python examples/own_users.py
recloop check-users own_users:MoodyUsers        # from this folder
"""

from typing import Any

import numpy as np

import recloop
from recloop.agents import FitOptions
from recloop.envs import Signal
from recloop.envs.users.per_user import item_luck
from recloop.experiments import evaluate


class MoodyUsers(recloop.PerUserSimulator):
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
        state["patience"] += 1 if any(clicks) else -1
        return state, {"click": clicks, "rating": [4.0 if c else None for c in clicks]}, state["patience"] <= 0


def main(steps: int = 6000, episodes: int = 100) -> dict[str, float]:
    """Mean clicks an episode of random slates and of PPO trained in these users."""
    world, users = recloop.built_in_world(), MoodyUsers()
    recloop.check_users(users, world)
    world = world.with_simulators(**{world.training_simulator: users})
    values = {}
    for name in ("random", "ppo"):
        policy = recloop.make_policy(name, world, FitOptions(steps=steps))
        values[name] = float(evaluate(policy, world, users, episodes=episodes).value.mean())
        print(f"{name}: {values[name]:.2f} clicks an episode")
    return values


if __name__ == "__main__":
    main()
