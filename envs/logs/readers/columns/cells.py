"""Cells of a column: missing ones, ids, numbers, and what they say of something else."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError

NULL_WORDS = ("null", "\\n", "none", "nan", "<na>", "#n/a")
"""What programs write for a missing cell, in any case; an id or an answer is never one of these."""
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def words(text: str) -> tuple[str, ...]:
    """Names between blanks."""
    return tuple(text.split())


def empty(cells: pd.Series) -> Mask:
    """True where a cell is missing, or a string of nothing but white space."""
    if not is_text(cells):
        return np.asarray(cells.isna(), dtype=bool)
    return np.asarray(cells.str.strip() == "", dtype=bool)


def is_text(cells: pd.Series) -> bool:
    """True for a column of strings; one of Python objects, such as lists, is none."""
    return isinstance(cells.dtype, pd.StringDtype)


def no_value(cells: pd.Series) -> Mask:
    """True where a cell is missing, empty, or one of `NULL_WORDS`."""
    if not is_text(cells):
        return empty(cells)
    words_of_none: Mask = np.asarray(cells.str.strip().str.lower().isin(NULL_WORDS), dtype=bool)
    return np.logical_or(empty(cells), words_of_none)


def as_ids(cells: pd.Series) -> pd.Series:
    """Cells as strings without white space around them; whole numbers lose their `.0`, missing ones are empty.

    Text loses it where every cell of the column has it: so programs write whole numbers of which one is missing. An
    infinite number is no id.

    >>> as_ids(pd.Series(["7.0", "", "12.0"])).tolist(), as_ids(pd.Series(["7.0", "7.5"])).tolist()
    (['7', '', '12'], ['7.0', '7.5'])
    """
    if pd.api.types.is_float_dtype(cells.dtype):
        cells = cells.where(np.isfinite(cells.to_numpy(dtype=np.float64, na_value=np.nan)))
        known = cells.dropna()
        if (known % 1 == 0).all():
            if (known.abs() >= 2.0**63).any():
                return cells.map(lambda value: "" if pd.isna(value) else f"{value:.0f}").astype("str")
            cells = cells.astype("Int64")
    if is_text(cells):
        words = cells.str.strip()
        filled = words[~no_value(words)]
        if len(filled) and filled.iloc[0].endswith(".0") and filled.str.fullmatch(r"-?\d+\.0").all():
            words = words.str.removesuffix(".0")
        return words
    if pd.api.types.is_object_dtype(cells.dtype):
        raise LogError("a list is no id; name the column of ids")
    return cells.astype("str").where(cells.notna(), "")


def as_numbers(cells: pd.Series) -> npt.NDArray[np.float64]:
    """Cells as float64; NaN where a cell is no number, infinities stay. A moment counts as no number."""
    if is_moment(cells) or pd.api.types.is_object_dtype(cells.dtype):
        return np.full(len(cells), np.nan)
    return np.asarray(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)


def is_moment(cells: pd.Series) -> bool:
    """True for a column of dates and times."""
    return isinstance(cells.dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_dtype(cells.dtype)


def codes(cells: pd.Series) -> npt.NDArray[np.int64]:
    """A number (rows,) for each different cell, a missing one too; lists are compared as they are printed."""
    cells = cells.map(str) if pd.api.types.is_object_dtype(cells.dtype) else cells
    return np.asarray(pd.factorize(cells, use_na_sentinel=False)[0], dtype=np.int64)


def one_value_each(values: pd.Series, ids: pd.Series, rows: int, least: int) -> bool:
    """True where each id with `rows` rows or more has one value alone, `least` ids have so many, and values differ:
    a birthday of users, a price of items."""
    frame = pd.DataFrame({"id": codes(ids), "value": codes(values)})
    counts = frame.groupby("id", sort=False)["value"].agg(["size", "nunique"])
    several = counts[counts["size"] >= rows]
    return len(several) >= least and bool((several["nunique"] == 1).all()) and frame["value"].nunique() > 1
