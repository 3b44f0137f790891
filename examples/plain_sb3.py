"""Plain Stable-Baselines3 in recloop's vector environment, and nothing else of recloop's.

python examples/plain_sb3.py
"""

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from recloop.envs import SB3VecEnv


def main(steps: int = 20_000, num_envs: int = 16) -> float:
    """Train PPO over a point in item space, whose nearest items are shown; the mean return afterwards."""
    env = SB3VecEnv(num_envs=num_envs, action_mode="proto", seed=0)  # without a world: the built-in truth world
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=128, seed=0)
    model.learn(steps)
    value, _ = evaluate_policy(model, SB3VecEnv(num_envs=num_envs, seed=1), n_eval_episodes=100)
    print(f"mean return {value:.2f}")
    return float(value)


if __name__ == "__main__":
    main()
