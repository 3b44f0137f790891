"""One model of boosted trees (Friedman 2001; LightGBM, Ke et al. 2017), kept as the library's own text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.users.fitted.felt.labelled import Labelled, Objective, Rows, constant_of, too_few


@dataclass(frozen=True)
class Forest:
    """Trees, or one number where there was nothing to learn from.

    Args:
        constant: the score of everybody where `text` is empty.
        text: the model as LightGBM writes it.
    """

    constant: float
    text: str = ""

    @cached_property
    def _booster(self) -> Any:
        from lightgbm import Booster  # slow to load
        from lightgbm.basic import LightGBMError

        try:
            return Booster(model_str=self.text)
        except LightGBMError as error:
            reason = " ".join(str(error).split())
            raise UserSimulatorError(f"the stored trees cannot be read ({reason}); fit the users anew") from None

    @property
    def learned(self) -> bool:
        """Whether there are any trees."""
        return bool(self.text)

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self._booster.num_trees()) if self.text else 0

    def scores(self, inputs: Tensor) -> Tensor:
        """Raw scores of rows (R, F) -> (R,): logits, or values. Worked out on the host, wherever the rows lie."""
        if not self.text or not len(inputs):
            return inputs.new_full((len(inputs),), self.constant)
        found = self.of(inputs.cpu().numpy())
        return torch.from_numpy(found).to(inputs.device, torch.float32)

    def of(self, inputs: Rows) -> npt.NDArray[np.float64]:
        """The same of NumPy rows."""
        if not self.text:
            return np.full(len(inputs), self.constant)
        found: npt.NDArray[np.float64] = self._booster.predict(
            inputs, raw_score=True, num_threads=torch.get_num_threads()
        )
        return found

    def tensors(self) -> dict[str, Tensor]:
        """For safetensors, as bytes; `Forest.read` undoes it."""
        head = np.frombuffer(np.float64(self.constant).tobytes(), dtype=np.uint8)
        return {"trees": torch.from_numpy(np.concatenate([head, np.frombuffer(self.text.encode(), dtype=np.uint8)]))}

    @classmethod
    def read(cls, stored: dict[str, Tensor]) -> Forest:
        """From what `tensors` gave."""
        raw = stored["trees"].numpy().tobytes()
        return cls(float(np.frombuffer(raw[:8])[0]), raw[8:].decode())


@dataclass(frozen=True)
class BoostConfig:
    """How trees are grown.

    Args:
        rounds: most trees; fewer by the held-out loss.
        rate: what is kept of each tree.
        leaves: most leaves of a tree.
        patience: trees without a better held-out loss before growing stops.
        least: fewest rows of a leaf, in large logs.
        shrink: rows by which a leaf's value is pulled to nothing.
    """

    rounds: int = 120
    rate: float = 0.1
    leaves: int = 24
    patience: int = 10
    least: int = 40
    shrink: float = 5.0


def grown(rows: Labelled, held_out: Labelled, objective: Objective, config: BoostConfig, seed: int) -> Forest:
    """Trees fitted on rows, stopped by the held-out loss; the same bits for the same rows, seed and threads."""
    constant = constant_of(rows, objective)
    if too_few(rows, objective) or not len(held_out.values) or not np.ptp(rows.inputs, axis=0).any():
        return Forest(constant)
    try:
        import lightgbm  # slow to load
    except OSError as missing:
        raise UserSimulatorError(
            f"LightGBM cannot be loaded ({missing}); install OpenMP (Debian: libgomp1, macOS: brew install libomp)"
        ) from None

    settings = {
        "objective": objective,
        "learning_rate": config.rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": int(np.clip(len(rows.values) / 100, 5, config.least)),
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "lambda_l2": config.shrink,
        "max_bin": 63,
        "boost_from_average": True,
        "num_threads": torch.get_num_threads(),
        "seed": seed % (2**31 - 1),
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    train = lightgbm.Dataset(rows.inputs, rows.values, weight=rows.weights, init_score=rows.start)
    held = lightgbm.Dataset(
        held_out.inputs, held_out.values, reference=train, weight=held_out.weights, init_score=held_out.start
    )
    stop = lightgbm.early_stopping(config.patience, verbose=False)
    booster = lightgbm.train(settings, train, config.rounds, valid_sets=[held], callbacks=[stop])
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return Forest(constant, text.split("\nparameters:")[0] + "\n" if "\nparameters:" in text else text)
