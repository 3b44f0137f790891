"""Columns of the items table that rewards and rules read: prices and margins as numbers, brands as labels."""

import numpy as np
import pandas as pd
import torch

from recloop.envs.interaction.item_columns import ItemColumns, Labels
from recloop.envs.logs.schema import Columns

MOST_ALIKE = 0.5
"""A column of words is one of labels where it has at most this many different words an item: others are names."""
_TEXTS = (Columns.title, Columns.text, Columns.entity)


def item_columns(items: pd.DataFrame) -> ItemColumns:
    """The columns of numbers and of labels of an items table (N rows); title, text and entity are neither.

    A column all of whose filled cells are finite numbers is one of numbers. A column of words (or of true and false)
    is one of labels where items share words. Everything else, as lists, is left out.
    """
    numbers: dict[str, torch.Tensor] = {}
    labels: dict[str, Labels] = {}
    for name in map(str, items.columns):
        column = items[name]
        if name in _TEXTS or not column.notna().any():
            continue
        values = _numbers(column)
        if values is not None:
            numbers[name] = torch.from_numpy(np.append(values, 0.0).astype(np.float32))
        elif (words := _words(column)) is not None:
            codes, names = pd.factorize(words, sort=True)
            codes = np.where(codes < 0, len(names), codes)
            labels[name] = Labels(torch.from_numpy(np.append(codes, len(names))).to(torch.int64), tuple(names))
    return ItemColumns(numbers, labels)


def _numbers(column: "pd.Series[float]") -> np.ndarray | None:
    """float64 (N,), NaN where missing; None where a filled cell is no finite number."""
    if pd.api.types.is_bool_dtype(column):
        return None
    try:
        values = pd.to_numeric(column.astype(object).where(column.notna(), np.nan)).to_numpy(np.float64)
    except (TypeError, ValueError):
        return None
    return values if np.isfinite(values[column.notna().to_numpy()]).all() else None


def _words(column: "pd.Series[str]") -> "pd.Series[str] | None":
    """The cells as text, missing ones None; None where they are no words, or hardly two items share one."""
    held = column.dropna()
    if not all(isinstance(value, str | bool | np.bool_) for value in held):
        return None
    words = column.map(str, na_action="ignore").astype(object)
    return words if held.nunique() <= max(MOST_ALIKE * len(held), 1) else None
