"""Users' features as numbers: what the log's users table says, coded by what the train users show."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints

MOST_CATEGORIES = 24
"""Of a categorical column, at most so many values get a feature of their own."""
_MANY_VALUES = 0.5
"""A text column with more distinct values than this share of the users (a zip code) is left out."""


def profile_features(users: pd.DataFrame, train: Ints) -> tuple[Tensor, tuple[str, ...]]:
    """Features of all users: float32 (U, p), and their names.

    Numeric columns are standardised by the train users, missing ones are 0. Text columns become one feature a
    value, for the values most common among the train users.
    """
    columns: list[np.ndarray] = []
    names: list[str] = []
    for column in users.columns:
        numbers = pd.to_numeric(users[column], errors="coerce").to_numpy(dtype=np.float64)
        known = users[column].notna().to_numpy()
        if known[train].any() and np.isfinite(numbers[known]).all() and len(np.unique(numbers[known])) > 2:
            mine = numbers[train][known[train]]
            scaled = (numbers - mine.mean()) / max(float(mine.std()), 1e-6)
            columns.append(np.where(known, scaled.clip(-5, 5), 0.0))
            names.append(str(column))
            continue
        values = users[column].astype(str).to_numpy()
        counts = pd.Series(values[train][known[train]]).value_counts(sort=False)
        if len(counts) > _MANY_VALUES * len(train):
            continue
        common = sorted(counts.index, key=lambda value: (-counts[value], value))[:MOST_CATEGORIES]
        columns += [(values == value) & known for value in common]
        names += [f"{column}={value}" for value in common]
    if not columns:
        return torch.zeros(len(users), 0), ()
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)), tuple(names)
