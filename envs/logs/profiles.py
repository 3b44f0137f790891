"""Users' features as numbers: what the log's users table says, coded by what the train users show."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.envs.logs.readers.columns.kinds import MANY_VALUES, holds_numbers
from recloop.envs.logs.readers.columns.labels import is_given
from recloop.envs.logs.sequences import Ints

MOST_CATEGORIES = 24
"""Of a categorical column, at most so many values get a feature of their own."""


class ProfileFeatures(NamedTuple):
    """Features of all users: float32 (U, p), their names, and columns of the users table that gave none."""

    values: Tensor
    names: tuple[str, ...]
    left_out: tuple[str, ...]


def profile_features(users: pd.DataFrame, train: Ints) -> ProfileFeatures:
    """Users' columns as features.

    Columns of numbers are standardised by the train users, missing ones are 0. Columns of words become one feature a
    value, for the values most common among the train users; one that has more than half as many different values as
    train users (a zip code) is left out.
    """
    columns: list[np.ndarray] = []
    names: list[str] = []
    left_out: list[str] = []
    for column in users.columns:
        cells = users[column]
        values = cells.astype("str").fillna("").str.strip()
        known = (cells.notna() & values.map(is_given).astype(bool)).to_numpy(dtype=bool)
        if holds_numbers(str(column), cells) and known[train].any() and cells[known].nunique() > 2:
            numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            mine = numbers[train][known[train]]
            scaled = (numbers - mine.mean()) / max(float(mine.std()), 1e-6)
            columns.append(np.where(known, scaled.clip(-5, 5), 0.0))
            names.append(str(column))
            continue
        words = values.to_numpy()
        counts = pd.Series(words[train][known[train]]).value_counts(sort=False)
        if not len(counts) or len(counts) > MANY_VALUES * len(train):
            left_out.append(str(column))
            continue
        common = sorted(counts.index, key=lambda value: (-counts[value], value))[:MOST_CATEGORIES]
        columns += [(words == value) & known for value in common]
        names += [f"{column}={value}" for value in common]
    features = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)) if columns else torch.zeros(len(users), 0)
    return ProfileFeatures(features, tuple(names), tuple(left_out))
