"""What KuaiRand and KuaiRec share: sessions by pauses, watch ratios, tables of videos and users."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.item_text import texts
from recloop.envs.logs.readers.side_files import no_items, no_users
from recloop.envs.logs.readers.text_table import BadRows, as_ids, as_numbers, read_text_table
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


def first_tag(cell: str) -> str:
    """The first of a video's tags, its category; empty where it has none.

    >>> first_tag("[27,9]"), first_tag("12,65"), first_tag("")
    ('27', '12', '')
    """
    found = re.search(r"\d+", cell)
    return found.group() if found else ""


def read_users(path: Path, bad_rows: BadRows) -> pd.DataFrame:
    """The users table of a `user_features*.csv`: columns of numbers are numbers, the rest strings."""
    if not path.is_file():
        return no_users()
    table = read_text_table(path, separator=",", quoted=True, bad_rows=bad_rows).with_ids(
        "user_id", bad_rows, unique=True
    )
    frame = table.frame.set_index("user_id").rename_axis(Columns.user)
    for name in frame.columns:
        numbers = as_numbers(frame[name])
        if len(numbers) and np.isfinite(numbers).all():
            frame[name] = numbers
    return frame


def read_videos(path: Path, tags: str, described: tuple[str, ...], bad_rows: BadRows) -> pd.DataFrame:
    """The items table of a file of videos: title (the id), text (tags and `described`), category (the first tag)."""
    if not path.is_file():
        return no_items()
    table = read_text_table(path, separator=",", quoted=True, bad_rows=bad_rows)
    table.require("video_id", tags, *described)
    table = table.with_ids("video_id", bad_rows, unique=True)
    frame = table.frame.set_index("video_id").rename_axis(Columns.item).apply(as_ids)
    words = frame.assign(tags=frame[tags].str.strip("[]").str.replace(" ", ""))
    heads = pd.Series([f"Video {name}" for name in frame.index], index=frame.index, dtype="str")
    sentences = texts(words, heads, ("tags", *described), separator=",")
    category = pd.Series([first_tag(cell) for cell in frame[tags]], index=frame.index, dtype="str")
    return frame.assign(**{Columns.title: heads, Columns.text: sentences, Columns.category: category})


def with_known_categories(items: pd.DataFrame) -> pd.DataFrame:
    """The items table with a missing value, no empty word, where an item has no category."""
    if Columns.category not in items:
        return items
    cells = items[Columns.category]
    return items.assign(**{Columns.category: cells.where(cells != "")})
