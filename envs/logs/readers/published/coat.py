"""Coat Shopping as published: ratings of coats that people chose themselves, and of coats dealt to them at random.

Schnabel et al. 2016, "Recommendations as Treatments". 290 people rated 24 coats of their own choice out of a shop of
300 (`train.ascii`), and 16 coats drawn at random (`test.ascii`): matrices of people by coats, 0 where not rated.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.signals import CONSUME, consumption
from recloop.envs.logs.readers.side_tables import items_of, users_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, decoded_text, shown
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times

Part = Literal["self-selected", "random", "both"]
Floats = npt.NDArray[np.float64]

FILES = {"self-selected": "train.ascii", "random": "test.ascii"}
PROPENSITIES = "propensities.ascii"
FEATURES = "user_item_features"
LEVELS = (1.0, 2.0, 3.0, 4.0, 5.0)
_ID = "id"
_SEED = 0
"""Of the order that rows are put in: the matrices hold none, and the columns' must not pass for one."""


def read_coat_log(
    path: Path,
    *,
    part: Part = "self-selected",
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read one part of Coat, or both.

    A row is a coat that was rated. Nothing is an exposure: in the self-selected part the whole shop was open to
    everybody and what was looked at is not logged; in the random part everything that was shown was rated. So the log
    has no exposures. `Columns.policy` names the part. `Columns.propensity` is, in the self-selected part, the published
    probability that this person chooses this coat, and in the random part the share of the coats dealt to a person.

    Args:
        path: the folder, or one of its matrices.
        part: `self-selected`, `random` or `both` (a coat rated in both parts has two rows).
        item_relations: features of coats that become triples; None takes all that coats share, empty none.
        on_bad_rows: `error`, or `drop` to leave out and count cells that are no rating.

    Raises:
        LogError: with file, line and column; matrices or features that do not fit together.
    """
    folder = path if path.is_dir() else path.parent
    if part not in (*FILES, "both"):
        raise LogError(f"part={part!r} is no part of Coat; use self-selected, random or both")
    bad_rows = BadRows(on_bad_rows)
    parts: list[str] = list(FILES) if part == "both" else [part]
    matrices = {name: _matrix(folder / FILES[name]) for name in parts}
    shape = next(iter(matrices.values())).shape
    for name, matrix in matrices.items():
        _same_shape(folder / FILES[name], matrix.shape, shape)
    frames = [_rows(folder, name, matrix, bad_rows) for name, matrix in matrices.items()]
    rows = pd.concat(frames, ignore_index=True)
    if rows.empty:
        raise LogError(f"{folder} holds no ratings in part '{part}'; a log needs at least one")
    rows = rows.iloc[np.random.default_rng(_SEED).permutation(len(rows))].reset_index(drop=True)
    people, coats = _features(folder, "user", shape[0]), _features(folder, "item", shape[1])
    made = items_of(
        coats, _ID, title="title", text_columns=_described(coats), relations=item_relations, bad_rows=bad_rows
    )
    users, items = users_of(people, _ID, bad_rows=bad_rows), made.frame
    if "jackettype" in items:
        items[Columns.category] = items["jackettype"].where(items["jackettype"] != "")
    return LoggedBehavior(
        name=folder.resolve().name,
        interactions=rows,
        users=users.frame,
        items=items,
        signals=(consumption(), Signal("rating", "ordinal", levels=LEVELS, given_on=CONSUME)),
        times=Times.none,
        knowledge=made.knowledge,
        source=str(folder),
        notes=(*_notes(parts, matrices), *made.notes, *users.notes),
        dropped=bad_rows.as_dropped(),
        reading=LogReading((*made.columns, *users.columns)),
    )


def is_coat(path: Path) -> bool:
    """True for a folder with Coat's two matrices of ratings, or one of them."""
    folder = path if path.is_dir() else path.parent
    named = path.is_dir() or path.name in FILES.values()
    return named and all((folder / name).is_file() for name in FILES.values())


def _notes(parts: list[str], matrices: dict[str, Floats]) -> tuple[str, ...]:
    notes = [
        "The log has no times and no order: a person's rows stand in an order drawn once, the same in every reading."
    ]
    if "self-selected" in parts:
        notes.append(
            f"{int((matrices['self-selected'] > 0).sum())} ratings are of coats that people chose themselves, so which "
            "are missing depends on taste; the propensities are those published with the log, learned from features."
        )
    if "random" in parts:
        notes.append(
            f"{int((matrices['random'] > 0).sum())} ratings are of coats dealt at random: here a row says nothing "
            "about what the person would have chosen."
        )
    return (*notes, "What was shown and not rated is not logged.")


def _matrix(path: Path) -> Floats:
    """Numbers (rows, columns) of a file of lines of numbers; cells that are none are NaN."""
    lines = [line.split() for line in decoded_text(path, "utf-8-sig").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    width = len(lines[0])
    for number, cells in enumerate(lines, start=1):
        if len(cells) != width:
            raise LogError(f"{path}, line {number}: {len(cells)} numbers where line 1 has {width}; mend the line")
    flat = pd.to_numeric(pd.Series([cell for cells in lines for cell in cells]), errors="coerce")
    values = np.asarray(flat, dtype=np.float64).reshape(len(lines), width)
    broken = np.argwhere(~np.isfinite(values))
    if len(broken):
        row, column = broken[0]
        raise LogError(
            f"{path}, line {row + 1}, column {column + 1}: {shown(lines[row][column])} is not a finite number"
        )
    return values


def _same_shape(path: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise LogError(
            f"{path} has {found[0]} lines of {found[1]} numbers where {wanted[0]} of {wanted[1]} are wanted; "
            "put the files of one release into the folder"
        )


def _rows(folder: Path, part: str, ratings: Floats, bad_rows: BadRows) -> pd.DataFrame:
    """The rated cells of a matrix as rows."""
    odd = np.argwhere(~np.isin(ratings, (0.0, *LEVELS)))
    if len(odd):
        row, column = odd[0]
        place = f"{folder / FILES[part]}, line {row + 1}, column {column + 1}"
        bad_rows.meet(
            folder / FILES[part], "no rating", f"{place}: {ratings[row, column]:g} is no rating of 1 to 5", len(odd)
        )
    people, coats = np.nonzero(np.isin(ratings, LEVELS))
    chance = _propensities(folder, ratings.shape) if part == "self-selected" else None
    if chance is None and part == "random":
        chance = np.broadcast_to((ratings > 0).mean(axis=1, keepdims=True), ratings.shape)
    columns: dict[str, object] = {
        Columns.user: people.astype(str),
        Columns.item: coats.astype(str),
        Columns.policy: part,
        CONSUME: 1.0,
        "rating": ratings[people, coats],
    }
    if chance is not None:
        columns[Columns.propensity] = chance[people, coats]
    frame = pd.DataFrame(columns)
    return frame.astype({Columns.user: "str", Columns.item: "str", Columns.policy: "str"})


def _propensities(folder: Path, shape: tuple[int, ...]) -> Floats | None:
    """The published probabilities that a person chooses a coat, or None where the file is not there."""
    path = folder / PROPENSITIES
    if not path.is_file():
        return None
    values = _matrix(path)
    _same_shape(path, values.shape, shape)
    wrong = np.argwhere((values <= 0) | (values > 1))
    if len(wrong):
        row, column = wrong[0]
        raise LogError(
            f"{path}, line {row + 1}, column {column + 1}: {values[row, column]:g} is no propensity in (0, 1]; "
            "mend the file, or take it away to read the log without"
        )
    return values


def _features(folder: Path, kind: Literal["user", "item"], count: int) -> TextTable:
    """One row a person or coat: its id, of a coat its title, and a column for each `name` of the map's `name:value`."""
    columns: dict[str, list[str]] = {}
    path, names = folder / FEATURES / f"{kind}_features.ascii", folder / FEATURES / f"{kind}_features_map.txt"
    if path.is_file() and names.is_file():
        flags = _matrix(path)
        labels = [line.strip() for line in decoded_text(names, "utf-8-sig").split("\n") if line.strip()]
        _same_shape(path, flags.shape, (count, len(labels)))
        for place, label in enumerate(labels):
            name, colon, value = label.partition(":")
            if not colon:
                raise LogError(f"{names}, line {place + 1}: {shown(label)} is not name:value")
            cells = columns.setdefault(name, [""] * count)
            for row in np.flatnonzero(flags[:, place] == 1):
                cells[row] = value
    heads = {"title": [_title(row, columns) for row in range(count)]} if kind == "item" else {}
    frame = pd.DataFrame({_ID: [str(row) for row in range(count)], **heads, **columns}, dtype="str")
    return TextTable(path, frame, np.arange(1, count + 1))


def _described(coats: TextTable) -> tuple[str, ...]:
    return tuple(name for name in coats.frame.columns if name not in (_ID, "title"))


def _title(row: int, columns: dict[str, list[str]]) -> str:
    """`Coat 7: navy parkas, women`; the number alone where there are no features."""
    color, jacket, gender = (
        columns[name][row] if name in columns else "" for name in ("color", "jackettype", "gender")
    )
    words = " ".join(filter(None, (color, jacket)))
    return f"Coat {row}: {words}{f', {gender}' if gender else ''}" if words else f"Coat {row}"
