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
