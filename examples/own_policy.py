"""A policy of your own beside the baselines.

python examples/own_policy.py
recloop compare worlds/ml-100k --policies random popularity greedy sasrec own_policy:Nearest --out runs/nearest
"""

import recloop
from recloop.agents.slates import action_mask, best_slate
from recloop.experiments import evaluate


class Nearest(recloop.Policy):
    """Shows what lies nearest to the user's state, as the world's encoder scores it."""

    name = "nearest"

    def act(self, observation, carry, k, draw):
        scores = self.serving.world.state_encoder.scores(observation["state"])
        return best_slate(scores, action_mask(observation, scores.shape[1]), k), carry


def main(episodes: int = 300) -> dict[str, float]:
    """Mean return in the built-in truth world, everybody before the same users with the same luck."""
    world = recloop.built_in_world()
    values = {}
    for name in ("random", "popularity", f"{__name__}:Nearest"):
        found = evaluate(recloop.make_policy(name, world), world, "truth", episodes=episodes)
        values[name.rpartition(":")[2]] = float(found.value.mean())
    print(values)
    return values


if __name__ == "__main__":
    main()
