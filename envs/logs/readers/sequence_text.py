"""Sequence text files: a line a user, `user item item ...`, oldest first. Order only: no times, no ratings.

Also SASRec's own files (Kang and McAuley 2018), a line an interaction, `user item`: taken where every line
holds two ids.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.signals import CONSUME, consumption
from recloop.envs.logs.readers.roles import ColumnMapping
from recloop.envs.logs.readers.side_files import read_side_tables
from recloop.envs.logs.readers.text_table import FIELD_LIMIT, BadRows, OnBadRows, decoded_text, shown
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times


def read_sequence_log(
    path: Path,
    *,
    columns: ColumnMapping | None = None,
    text_columns: tuple[str, ...] | None = None,
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a sequence text file and the atomic `.item .user .kg .link` of the same stem beside it.

    Args:
        path: the file; its name up to the first dot is the log's name and the stem of the files beside it.
        columns: what the files beside it call their user and item ids.
        text_columns: of the `.item` file, what the text is made of after the title.
        on_bad_rows: decides about a user whose line holds no item, a user's second line, an overlong id.

    Raises:
        LogError: with file and line.
    """
    bad_rows = BadRows(on_bad_rows)
    text = decoded_text(path, "utf-8-sig")
    lines = [line.split() for line in text.split("\n")]
    widths = {len(line) for line in lines if line}
    users, items = _pairs(path, lines, bad_rows) if widths == {2} else _sequences(path, lines, bad_rows)
    if not users:
        raise LogError(f"{path} holds no interactions that can be read; a log needs at least one")
    interactions = pd.DataFrame(
        {
            Columns.user: pd.Series(users, dtype="str"),
            Columns.item: pd.Series(items, dtype="str"),
            CONSUME: np.ones(len(users)),
        }
    )
    stem = path.with_name(path.name.split(".")[0])
    columns = columns or ColumnMapping()
    user, item = columns.user or "user_id", columns.item or "item_id"
    side = read_side_tables(
        stem, interactions, user, item, bad_rows, text_columns=text_columns, relations=item_relations
    )
    return LoggedBehavior(
        name=stem.name,
        interactions=interactions,
        users=side.users,
        items=side.items,
        signals=(consumption(),),
        times=Times.none,
        knowledge=side.knowledge,
        source=str(path),
        notes=(
            "The log holds the order of consumption only: no times, no ratings, nothing shown.",
            *side.notes,
        ),
        dropped=bad_rows.as_dropped(),
        reading=LogReading(side.columns),
    )


def _checked(path: Path, line: int, ids: list[str], bad_rows: BadRows) -> bool:
    longest = max(ids, key=len)
    if len(longest) > FIELD_LIMIT:
        where = f"{path}, line {line}, field {ids.index(longest) + 1}"
        bad_rows.meet(
            path, "field too long", f"{where}: an id of {len(longest)} characters; the limit is {FIELD_LIMIT}"
        )
        return False
    return True


def _sequences(path: Path, lines: list[list[str]], bad_rows: BadRows) -> tuple[list[str], list[str]]:
    users: list[str] = []
    items: list[str] = []
    seen: set[str] = set()
    for number, ids in enumerate(lines, start=1):
        if not ids or not _checked(path, number, ids, bad_rows):
            continue
        user, sequence = ids[0], ids[1:]
        if not sequence:
            bad_rows.meet(path, "user without items", f"{path}, line {number}: user {shown(user)} has no items")
        elif user in seen:
            bad_rows.meet(
                path, "duplicate user", f"{path}, line {number}: user {shown(user)} stands here a second time"
            )
        else:
            seen.add(user)
            users += [user] * len(sequence)
            items += sequence
    return users, items


def _pairs(path: Path, lines: list[list[str]], bad_rows: BadRows) -> tuple[list[str], list[str]]:
    good = [ids for number, ids in enumerate(lines, 1) if ids and _checked(path, number, ids, bad_rows)]
    return [ids[0] for ids in good], [ids[1] for ids in good]
