"""A reward and rules of your own: what a step earns, and what every slate keeps, whoever picks it.

python examples/own_reward.py
recloop train worlds/shop --reward own_reward:margin --out policies/margin      # from this folder
"""

from dataclasses import replace

import torch
from torch import Tensor

import recloop
from recloop.envs import Outcome, World, with_reward
from recloop.experiments import evaluate

RULES = {
    "never": ["category=jazz"],
    "at_most": {"category": 2},
    "at_least": {"category=space": 0.2},
}


def margin(outcome: Outcome) -> Tensor:
    """The margins of what was clicked, (B,); a user who leaves costs half a unit."""
    clicked = outcome.response.signals[..., 0] * outcome.response.given[..., 0]  # (B, K)
    return (clicked * outcome.items["margin"]).sum(1) - 0.5 * outcome.response.left


def with_margins(world: World) -> World:
    """The built-in world's clips with a margin each; a log of yours has such columns in its items table."""
    columns = world.catalogue.columns
    margins = torch.linspace(0.1, 2.0, len(world.catalogue))
    columns = replace(columns, numbers={"margin": torch.cat([margins, torch.zeros(1)])})
    return replace(world, catalogue=replace(world.catalogue, columns=columns))


def main(episodes: int = 100) -> dict[str, float]:
    """What a step of random slates earns, and the return of popular ones by terms and under rules."""
    world = with_margins(recloop.built_in_world())
    env = recloop.make(world=world, reward=margin, rules=RULES)
    env.reset(seed=0)
    reward = env.step(env.action_space.sample())[1]
    values = {"a random slate": float(reward)}
    priced = with_reward(world, "click*margin=1 leaving=-0.5")  # the same reward in terms
    for name, shop in (("free", priced), ("under rules", priced.with_rules(RULES))):
        policy = recloop.make_policy("popularity", shop)
        values[name] = float(evaluate(policy, shop, "truth", episodes=episodes).value.mean())
    for name, value in values.items():
        print(f"{name}: {value:.2f}")
    return values


if __name__ == "__main__":
    main()
