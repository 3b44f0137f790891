"""MovieLens as GroupLens publishes it: ml-100k (`u.data`), ml-1m, ml-10m (`ratings.dat`), later (`ratings.csv`).

Formats: the README of each release, https://grouplens.org/datasets/movielens/. Older releases are latin-1.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.atomic import known_entry_times
from recloop.envs.logs.readers.interactions import ColumnMapping, build_interactions
from recloop.envs.logs.readers.item_text import texts, titles
from recloop.envs.logs.readers.side_files import no_items, no_users, with_missing
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, read_text_table
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times

GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The 19 flags at the end of a row of `u.item`, in their order."""
RATINGS = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True)
class Release:
    """How one family of releases is laid out; None where it has no such file or header names the columns."""

    ratings: str
    films: str
    people: str | None
    separator: str
    encoding: str
    ratings_columns: tuple[str, ...] | None
    films_columns: tuple[str, ...] | None
    people_columns: tuple[str, ...] | None = None
    films_separator: str | None = None


RELEASES = (
    Release(
        *("u.data", "u.item", "u.user", "\t", "latin-1", RATINGS),
        films_columns=("item_id", "title", "release_date", "video_date", "url", *GENRES_100K),
        people_columns=("user_id", "age", "gender", "occupation", "zip_code"),
        films_separator="|",
    ),
    Release(
        *("ratings.dat", "movies.dat", "users.dat", "::", "latin-1", RATINGS),
        films_columns=("item_id", "title", "genres"),
        people_columns=("user_id", "gender", "age", "occupation", "zip_code"),
    ),
    Release("ratings.csv", "movies.csv", None, ",", "utf-8-sig", None, None),
)


def read_movielens_log(path: Path, *, times: Times | None = None, on_bad_rows: OnBadRows = "error") -> LoggedBehavior:
    """Read a MovieLens release.

    A row is a film consumed, with its rating; times are times of entry, whatever is measured.

    Args:
        path: the folder, or its file of ratings.
        times: what the times mean, where you know better.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    bad_rows = BadRows(on_bad_rows)
    release, folder = _release(path)
    ratings = read_text_table(
        folder / release.ratings,
        separator=release.separator,
        columns=release.ratings_columns,
        encoding=release.encoding,
        quoted=release.separator == ",",
        bad_rows=bad_rows,
    ).renamed({"userId": "user_id", "movieId": "item_id"})
    found = build_interactions(
        ratings,
        ColumnMapping(time="timestamp"),
        bad_rows=bad_rows,
        numeric=["rating"],
        times=times,
        exposures=False,
        entry_because=known_entry_times("movielens"),
    )
    items = _films(folder, release, bad_rows)
    users = _people(folder, release, bad_rows)
    return LoggedBehavior(
        name=folder.resolve().name,
        interactions=found.frame,
        users=with_missing(users, found.frame[Columns.user]),
        items=with_missing(items, found.frame[Columns.item]),
        signals=found.signals,
        times=found.times,
        source=str(folder / release.ratings),
        notes=found.notes,
        dropped=bad_rows.as_dropped(),
    )


def is_movielens(path: Path) -> bool:
    """True for a file of ratings, or a folder with one, as published."""
    folder = path if path.is_dir() else path.parent
    for release in RELEASES:
        named = path.is_dir() or path.name == release.ratings
        if named and (folder / release.ratings).is_file() and (folder / release.films).is_file():
            return True
    return False


def _release(path: Path) -> tuple[Release, Path]:
    folder = path if path.is_dir() else path.parent
    for release in RELEASES:
        if (path.is_dir() or path.name == release.ratings) and (folder / release.ratings).is_file():
            return release, folder
    names = ", ".join(release.ratings for release in RELEASES)
    raise LogError(f"{path} holds no MovieLens release: looked for {names}")


def _films(folder: Path, release: Release, bad_rows: BadRows) -> pd.DataFrame:
    """The items table: title, genres, text."""
    path = folder / release.films
    if not path.exists():
        return no_items()
    table = read_text_table(
        path,
        separator=release.films_separator or release.separator,
        columns=release.films_columns,
        encoding=release.encoding,
        quoted=release.separator == ",",
        bad_rows=bad_rows,
    ).renamed({"movieId": "item_id"})
    table = table.with_ids("item_id", bad_rows, unique=True)
    table.require("title")
    frame = table.frame.set_index("item_id").rename_axis(Columns.item)
    if "genres" not in frame:
        frame["genres"] = _genres_of_flags(frame)
    frame["genres"] = frame["genres"].where(frame["genres"] != "(no genres listed)", "")
    heads = titles(frame, "title", None)
    sentences = texts(frame, heads, ["genres"], separator="|")
    return frame[["genres"]].assign(**{Columns.title: heads, Columns.text: sentences})


def _genres_of_flags(frame: pd.DataFrame) -> pd.Series:
    """`Comedy|Drama` from 19 columns of 0 and 1."""
    flags = (frame[list(GENRES_100K)] == "1").to_numpy()
    names = ["|".join(g for g, on in zip(GENRES_100K, row, strict=True) if on) for row in flags.tolist()]
    return pd.Series(names, index=frame.index, dtype="str")


def _people(folder: Path, release: Release, bad_rows: BadRows) -> pd.DataFrame:
    if release.people is None or not (folder / release.people).exists():
        return no_users()
    table: TextTable = read_text_table(
        folder / release.people,
        separator=release.films_separator or release.separator,
        columns=release.people_columns,
        encoding=release.encoding,
        bad_rows=bad_rows,
    ).with_ids("user_id", bad_rows, unique=True)
    return table.frame.set_index("user_id").rename_axis(Columns.user)
