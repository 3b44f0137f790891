"""How off-policy algorithms of Stable-Baselines3 explore here: among items that may be shown, around what is known."""

from typing import Any, cast

import numpy as np
import torch

from recloop.agents.networks.heads import admissible


class MaskedExploration:
    """Before DQN or QR-DQN: explores among admissible actions only, each lane by itself.

    Differences from SB3's: epsilon is drawn a lane instead of once for the whole batch; random actions keep to what may
    be shown; exploration has a generator of its own.
    """

    def _setup_model(self: Any) -> None:
        cast(Any, super())._setup_model()
        self._exploration = np.random.default_rng(self.seed)

    def _sample_action(
        self: Any, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        observation = self._last_obs
        mask = self._admissible(observation)  # (B, A)
        random = (mask * self._exploration.random(mask.shape, dtype=np.float32)).argmax(1)
        if self.num_timesteps < learning_starts:
            return random, random
        best, _ = self.policy.predict(observation, deterministic=True)
        explores = self._exploration.random(n_envs) < self.exploration_rate
        actions = np.where(explores, random, best)
        return actions, actions

    def _admissible(self: Any, observation: dict[str, np.ndarray]) -> np.ndarray:
        if "action_mask" in observation:
            return observation["action_mask"] > 0
        empty = int(self.observation_space["candidates"].high.max())
        return admissible({key: torch.as_tensor(value) for key, value in observation.items()}, empty).numpy()


class ActorExploration:
    """Before an algorithm on Box actions: its first actions are the actor's with its noise, not uniform.

    A fresh actor shows what the state encoder expects; uniform points of item space would fill the memory with slates
    that nobody likes.
    """

    def _sample_action(
        self: Any, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        found: tuple[np.ndarray, np.ndarray] = cast(Any, super())._sample_action(0, action_noise, n_envs)
        return found
