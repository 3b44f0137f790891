"""What happens beside training: curves, a progress bar, choosing the best weights, stopping on broken numbers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from torch import Tensor
from tqdm import tqdm

from recloop.agents.networks.policy import ActorPolicy
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError

Log = Callable[[str, float, int], None]
"""Takes (tag, value, step)."""

VALIDATION_TAG = "validation/return"
"""Mean return in the validation simulator."""


class ScalarWriter(KVWriter):
    """Hands the scalars of SB3's logger on, under SB3's own tags."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Pass on numbers that are not kept from TensorBoard."""
        for tag, value in sorted(key_values.items()):
            if "tensorboard" not in (key_excluded.get(tag) or ()) and isinstance(value, int | float | np.number):
                self.log(tag, float(value), step)

    def close(self) -> None:
        """Nothing to close."""


def logger_to(log: Log | None) -> Logger:
    """An SB3 logger that writes to `log`, or nowhere; never to the terminal or a folder."""
    return Logger(folder=None, output_formats=[ScalarWriter(log)] if log else [])


class Watch(BaseCallback):
    """Validates every so many steps, keeps the best weights, stops on NaN, moves the progress bar.

    Args:
        policy: acts with the very actor that is being trained.
        validation: where it is tried.
        every: environment steps between two tries.
        log: takes the validation curve.
        progress: show a bar over `steps`.
        steps: of the whole training.
    """

    def __init__(
        self, policy: ActorPolicy, validation: PolicyValidation, every: int, log: Log | None, progress: bool, steps: int
    ) -> None:
        super().__init__()
        self.policy, self.validation, self.every, self.log = policy, validation, every, log
        self.best_return, self.best_step = -math.inf, 0
        self.best_weights: dict[str, Tensor] = {}
        self.steps, self._next = steps, 0
        self._bar = tqdm(total=steps, desc=policy.name, unit="step", disable=not progress)

    def _on_rollout_start(self) -> None:
        self._check_numbers()
        if self.num_timesteps >= self._next:
            self._validate()
            self._next += self.every

    def _on_step(self) -> bool:
        self._bar.update(min(self.num_timesteps, self.steps) - self._bar.n)
        return True

    def _on_training_end(self) -> None:
        self._check_numbers()
        self._validate()
        self._bar.close()

    def _check_numbers(self) -> None:
        """After an update: is the loss a number, are the weights?"""
        loss = self.logger.name_to_value.get("train/loss", 0.0)
        weights = all(bool(torch.isfinite(p).all()) for p in self.model.policy.parameters())
        if not (math.isfinite(loss) and weights):
            self._bar.close()
            raise PolicyError(
                f"{self.policy.name}: the loss became {loss} at step {self.num_timesteps}; lower learning_rate "
                f"({self.model.learning_rate}) or check the reward's scale"
            )

    def _validate(self) -> None:
        found = self.validation.mean_return(self.policy)
        if self.log is not None:
            self.log(VALIDATION_TAG, found, self.num_timesteps)
        self._bar.set_postfix({"return": f"{found:.3f}"})
        if found > self.best_return:
            self.best_return, self.best_step = found, self.num_timesteps
            self.best_weights = {name: value.clone() for name, value in self.policy.tensors().items()}
