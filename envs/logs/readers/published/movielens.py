"""MovieLens as GroupLens publishes it: ml-100k (`u.data`), ml-1m, ml-10m (`ratings.dat`), later (`ratings.csv`).

Formats: the README of each release, https://grouplens.org/datasets/movielens/. ml-100k and ml-1m are latin-1, later
releases UTF-8.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.atomic import MOVIELENS_ENTRY
from recloop.envs.logs.readers.interactions import ReadingOptions, build_interactions
from recloop.envs.logs.readers.roles import ColumnMapping
from recloop.envs.logs.readers.side_files import no_items, no_users, with_missing
from recloop.envs.logs.readers.side_tables import ItemsTable, UsersTable, items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, read_text_table
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times

GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The 19 flags at the end of a row of `u.item`, in their order."""
RATINGS = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True)
class Release:
    """How one family of releases is laid out; None where it has no such file or header names the columns.

    `reads_latin`: a file of it that is no UTF-8 is latin-1 (of `ratings.dat`, ml-1m is latin-1 and ml-10m UTF-8).
    """

    ratings: str
    films: str
    people: str | None
    separator: str
    reads_latin: bool
    ratings_columns: tuple[str, ...] | None
    films_columns: tuple[str, ...] | None
    people_columns: tuple[str, ...] | None = None
    films_separator: str | None = None


RELEASES = (
    Release(
        *("u.data", "u.item", "u.user", "\t", True, RATINGS),
        films_columns=("item_id", "title", "release_date", "video_date", "url", *GENRES_100K),
        people_columns=("user_id", "age", "gender", "occupation", "zip_code"),
        films_separator="|",
    ),
    Release(
        *("ratings.dat", "movies.dat", "users.dat", "::", True, RATINGS),
        films_columns=("item_id", "title", "genres"),
        people_columns=("user_id", "gender", "age", "occupation", "zip_code"),
    ),
    Release("ratings.csv", "movies.csv", None, ",", False, None, None),
)


def read_movielens_log(
    path: Path,
    *,
    times: Times | None = None,
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a MovieLens release.

    A row is a film consumed, with its rating; times are times of entry, whatever is measured.

    Args:
        path: the folder, or its file of ratings.
        times: what the times mean, where you know better.
        item_relations: columns of films (`genres`) that become triples; empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    bad_rows = BadRows(on_bad_rows)
    release, folder = _release(path)
    ratings = _table(folder, release.ratings, release, release.separator, release.ratings_columns, bad_rows)
    found = build_interactions(
        ratings,
        ColumnMapping(user="user_id", item="item_id", time="timestamp"),
        ReadingOptions(times=times, exposures=False),
        bad_rows=bad_rows,
        entry_because=MOVIELENS_ENTRY,
    )
    items, users = _films(folder, release, item_relations, bad_rows), _people(folder, release, bad_rows)
    return LoggedBehavior(
        name=folder.resolve().name,
        interactions=found.frame,
        users=with_missing(users.frame, found.frame[Columns.user]),
        items=with_missing(items.frame, found.frame[Columns.item]),
        signals=found.signals,
        times=found.times,
        knowledge=items.knowledge,
        source=str(folder / release.ratings),
        notes=(*found.notes, *items.notes, *users.notes),
        dropped=bad_rows.as_dropped(),
        reading=LogReading((*found.uses, *items.columns, *users.columns), warnings=found.warnings),
    )


def is_movielens(path: Path) -> bool:
    """True for a file of ratings, or a folder with one, as published: by the first lines of the two files."""
    folder = path if path.is_dir() else path.parent
    for release in RELEASES:
        named = path.is_dir() or path.name == release.ratings
        if named and (folder / release.ratings).is_file() and (folder / release.films).is_file():
            return _is_laid_out(folder, release)
    return False


def _is_laid_out(folder: Path, release: Release) -> bool:
    first = [_first_line(folder / name) for name in (release.ratings, release.films)]
    if release.ratings_columns is None or release.films_columns is None:
        return [cells[:4] for cells in (line.split(",") for line in first)] == [
            ["userId", "movieId", "rating", "timestamp"],
            ["movieId", "title", "genres"],
        ]
    separators = (release.separator, release.films_separator or release.separator)
    widths = (len(release.ratings_columns), len(release.films_columns))
    return all(line.count(mark) >= width - 1 for line, mark, width in zip(first, separators, widths, strict=True))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(1 << 16).strip()


def _release(path: Path) -> tuple[Release, Path]:
    folder = path if path.is_dir() else path.parent
    for release in RELEASES:
        if (path.is_dir() or path.name == release.ratings) and (folder / release.ratings).is_file():
            return release, folder
    names = ", ".join(release.ratings for release in RELEASES)
    raise LogError(f"{path} holds no MovieLens release: looked for {names}")


def _table(
    folder: Path, name: str, release: Release, separator: str, columns: tuple[str, ...] | None, bad_rows: BadRows
) -> TextTable:
    path = folder / name
    table = read_text_table(
        path,
        separator=separator,
        columns=columns,
        encoding=_encoding(path) if release.reads_latin else "utf-8-sig",
        quoted=separator == ",",
        bad_rows=bad_rows,
    )
    return table.renamed({"userId": "user_id", "movieId": "item_id"})


def _encoding(path: Path) -> str:
    """UTF-8 where every byte of a file is, else latin-1."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8-sig") as file:
        try:
            while file.read(1 << 20):
                pass
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig"


def _films(folder: Path, release: Release, relations: tuple[str, ...] | None, bad_rows: BadRows) -> ItemsTable:
    """The items: title, genres, text."""
    if not (folder / release.films).exists():
        return ItemsTable(no_items())
    separator = release.films_separator or release.separator
    table = _table(folder, release.films, release, separator, release.films_columns, bad_rows)
    table.require("item_id", "title")
    frame = table.frame
    if "genres" not in frame:
        frame = frame.assign(genres=_genres_of_flags(frame))
    table = replace(table, frame=frame[["item_id", "title", "genres"]])
    return items_of(table, "item_id", title="title", relations=relations, bad_rows=bad_rows)


def _genres_of_flags(frame: pd.DataFrame) -> pd.Series:
    """`Comedy|Drama` from 19 columns of 0 and 1."""
    flags = (frame[list(GENRES_100K)] == "1").to_numpy()
    names = ["|".join(g for g, on in zip(GENRES_100K, row, strict=True) if on) for row in flags.tolist()]
    return pd.Series(names, index=frame.index, dtype="str")


def _people(folder: Path, release: Release, bad_rows: BadRows) -> UsersTable:
    if release.people is None or not (folder / release.people).exists():
        return UsersTable(no_users())
    separator = release.films_separator or release.separator
    table = _table(folder, release.people, release, separator, release.people_columns, bad_rows)
    return users_of(table, "user_id", bad_rows=bad_rows)
