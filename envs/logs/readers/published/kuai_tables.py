"""What KuaiRand and KuaiRec share: sessions by pauses, watch ratios, tables of videos and users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.side_files import no_items, no_users
from recloop.envs.logs.readers.side_tables import ItemsTable, UsersTable, items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, read_text_table
from recloop.envs.logs.schema import Columns, Signal

Floats = npt.NDArray[np.float64]

WATCH_LIMIT = 2.0
"""Watch ratios above are clipped: a video left running in a loop says no more than one watched twice."""
SESSION_GAP = 1800.0
"""Seconds without a row after which the next row begins a session."""


def data_folder(path: Path, *names: str) -> Path | None:
    """The folder, or the `data` folder in it, that holds a file that matches each of `names`; else None."""
    folder = path if path.is_dir() else path.parent
    for place in (folder, folder / "data"):
        if place.is_dir() and all(any(place.glob(name)) for name in names):
            return place
    return None


def watch_ratio_signal(limit: float) -> Signal:
    """How much of a video was played, clipped at `limit` times its length."""
    if not limit > 0:
        raise LogError(f"watch_limit={limit} must be above 0; 2 is usual")
    return Signal("watch_ratio", "continuous", range=(0.0, float(limit)))


def sessions(users: pd.Series, seconds: Floats, gap: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Numbers of sessions (R,), unique over all users, and where the session is its user's last (R,), bool.

    A user's row begins a session where `gap` seconds or more have passed since the row before. A row without a
    time goes with what stands before it in the order of the file.

    >>> sessions(pd.Series(["a", "a", "a"]), np.array([0.0, 10.0, 5000.0]), 1800.0)[0].tolist()
    [0, 0, 1]
    """
    if not gap > 0:
        raise LogError(f"session_gap={gap} seconds must be above 0; 1800 is usual")
    owner = pd.factorize(users)[0]
    times = pd.Series(seconds).groupby(owner).ffill().fillna(-np.inf).to_numpy()
    order = np.lexsort((np.arange(len(times)), times, owner))
    begins = np.ones(len(order), dtype=bool)
    same = owner[order][1:] == owner[order][:-1]
    with np.errstate(invalid="ignore"):  # two rows before any time
        pause = np.diff(times[order])
    begins[1:] = ~same | (pause >= gap)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(begins) - 1
    newest = pd.Series(numbers).groupby(owner).transform("max").to_numpy()
    return numbers, numbers == newest


def read_users(path: Path, bad_rows: BadRows) -> UsersTable:
    """The users of a `user_features*.csv`."""
    if not path.is_file():
        return UsersTable(no_users())
    return users_of(read_text_table(path, separator=",", quoted=True, bad_rows=bad_rows), "user_id", bad_rows=bad_rows)


def read_videos(
    path: Path, tags: str, described: tuple[str, ...], relations: tuple[str, ...] | None, bad_rows: BadRows
) -> ItemsTable:
    """The items of a file of videos: title (the id), text (tags and `described`), category (the first tag)."""
    if not path.is_file():
        return ItemsTable(no_items())
    table = read_text_table(path, separator=",", quoted=True, bad_rows=bad_rows)
    table.require("video_id", tags, *described)
    table = table.with_ids("video_id", bad_rows, unique=True).renamed({tags: "tags"})
    table = replace(table, frame=table.frame.assign(title="Video " + table.frame["video_id"]))
    made = items_of(
        table,
        "video_id",
        title="title",
        text_columns=("tags", *described),
        relations=("tags", *described) if relations is None else relations,
        bad_rows=bad_rows,
    )
    first = made.frame["tags"].str.split("|").str[0] if "tags" in made.frame else ""
    category = pd.Series(first, made.frame.index, dtype="str")
    return replace(made, frame=made.frame.assign(**{Columns.category: category.where(category != "")}))
