"""Plain Stable-Baselines3 in recloop's vector environment, and nothing else of recloop's.

python examples/plain_sb3.py
"""

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from recloop.envs import SB3VecEnv


def main(steps: int = 20_000, num_envs: int = 16, folder: str = "runs/plain_sb3") -> float:
    """Train PPO over a point in item space, whose nearest items are shown; the mean return of the best model."""
    env = VecNormalize(SB3VecEnv(num_envs=num_envs, seed=0))  # without a world: the built-in truth world
    held_out = VecNormalize(SB3VecEnv(num_envs=num_envs, seed=1, users="evaluate"), training=False, norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=128, seed=0)
    each = max(steps // num_envs // 4, 1)
    model.learn(steps, EvalCallback(held_out, eval_freq=each, best_model_save_path=folder, verbose=0))
    model.save(f"{folder}/last_model")
    best = PPO.load(f"{folder}/best_model", env=held_out)
    value, _ = evaluate_policy(best, held_out, n_eval_episodes=100)
    print(f"mean return {value:.2f}")
    return float(value)


if __name__ == "__main__":
    main()
