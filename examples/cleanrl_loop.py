"""A policy-gradient loop of one's own, in the manner of CleanRL, on the vector environment with torch tensors.

python examples/cleanrl_loop.py
"""

import gymnasium as gym
import torch
from torch import nn

ENV_ID = "recloop.envs:recloop/Recommend-v0"


def main(updates: int = 60, num_envs: int = 64, horizon: int = 8) -> list[float]:
    """REINFORCE with a running baseline over a point in item space; the mean reward a step of every update."""
    env = gym.make_vec(
        ENV_ID,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        action_mode="proto",
        observation="state",
        tensors=True,
    )
    torch.manual_seed(0)
    observation, _ = env.reset(seed=0)
    actor = nn.Sequential(
        nn.Linear(observation.shape[1], 64), nn.Tanh(), nn.Linear(64, env.single_action_space.shape[0])
    )
    optimizer = torch.optim.Adam(actor.parameters(), lr=3e-3)
    earned, baseline = [], 0.0
    for _ in range(updates):
        losses, rewards = [], []
        for _ in range(horizon):
            policy = torch.distributions.Normal(torch.tanh(actor(observation)), 0.3)
            action = policy.sample()
            observation, reward, _, _, _ = env.step(action.clamp(-1, 1))
            losses.append(-policy.log_prob(action).sum(1) * (reward - baseline))
            rewards.append(reward.mean())
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        earned.append(float(torch.stack(rewards).mean()))
        baseline = 0.9 * baseline + 0.1 * earned[-1]
    print(f"reward a step: {earned[0]:.3f} at first, {earned[-1]:.3f} at last")
    return earned


if __name__ == "__main__":
    main()
