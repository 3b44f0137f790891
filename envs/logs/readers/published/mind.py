"""MIND as published: news shown in slates, the clicks on them, and the news themselves.

Wu et al. 2020, "MIND: A Large-scale Dataset for News Recommendation"; the fields are described at
https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md. The files have no headers.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.sessions import SESSION_GAP, sessions_by_pause
from recloop.envs.logs.readers.side_files import with_missing
from recloop.envs.logs.readers.side_tables import ItemsTable, items_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable, read_text_table
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Signal, Times

BEHAVIORS, NEWS = "behaviors.tsv", "news.tsv"
TIME = "%m/%d/%Y %I:%M:%S %p"
"""How times are written: 11/13/2019 8:36:57 AM. Their zone is not published; they are read as UTC."""
CLICK = "click"
_SHOWN = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "mentions", "abstract_entities")
_LABELLED = re.compile(r"\S+-[01]( +\S+-[01])*$")
_FIRST_LINE = re.compile(r"[^\t]*\t[^\t]*\t\d+/\d+/\d{4} \d+:\d\d:\d\d [AP]M\t[^\t]*\t[^\t]*$")


def read_mind_log(
    path: Path,
    *,
    session_gap: float = SESSION_GAP,
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a part of MIND, training or development.

    An impression is a slate: `N1-0 N2-1` are two news shown together, of which the second was clicked. Consumption is
    `click`. The published files shuffle the news of an impression, so there are no positions.

    Args:
        path: the folder of `behaviors.tsv` and `news.tsv`, or the former.
        session_gap: seconds without an impression after which the next one begins a session.
        item_relations: of the news, what becomes triples; None takes `category`, `subcategory` and `mentions` (the
            entities in the title), empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column; the test part, which says of no news whether it was clicked.
    """
    bad_rows = BadRows(on_bad_rows)
    folder = path if path.is_dir() else path.parent
    table = read_text_table(folder / BEHAVIORS, columns=_SHOWN, bad_rows=bad_rows)
    if not table.frame["impressions"].str.contains(r"-[01](?:\s|$)").any():
        raise LogError(
            f"{table.place(0, 'impressions')}: no news has a label (N1-0, N1-1): this is the test part of MIND, in "
            "which clicks are kept back; give its training or development part"
        )
    table = table.with_ids("user_id", bad_rows).with_ids("impression_id", bad_rows)
    table = _malformed(table, "impressions", ~table.frame["impressions"].str.strip().str.fullmatch(_LABELLED), bad_rows)
    times = pd.to_datetime(table.frame["time"].str.strip(), format=TIME, errors="coerce", utc=True)
    late = table.frame.assign(seconds=(times - pd.Timestamp(0, tz="UTC")).dt.total_seconds())
    table = _malformed(replace(table, frame=late), "time", times.isna(), bad_rows)
    if table.frame.empty:
        raise LogError(f"{table.path} holds no impressions that can be read; a log needs at least one")
    rows = _rows(table.frame, session_gap)
    items = _news(folder / NEWS, item_relations, bad_rows)
    before = int((table.frame["history"].str.strip() != "").sum())
    return LoggedBehavior(
        name=folder.resolve().name,
        interactions=rows,
        users=pd.DataFrame(index=pd.Index(rows[Columns.user].unique(), dtype="str", name=Columns.user)),
        items=with_missing(items.frame, rows[Columns.item]),
        signals=(Signal(CLICK),),
        times=Times.behavioural,
        has_exposures=True,
        knowledge=items.knowledge,
        source=str(table.path),
        notes=(
            "The published files shuffle the news of an impression, so the log has no positions.",
            f"{before:,} of {len(table.frame):,} impressions carry a history of clicks before the log. It has no times "
            "and nothing that was shown beside, and is not used.",
            f"A pause of {session_gap:g} seconds or more begins a session. Impressions were sampled for publication, "
            "so why a session ended is unknown.",
            "Times are those of impressions, in a time zone that is not published; they are read as UTC.",
            *items.notes,
        ),
        dropped=bad_rows.as_dropped(),
        reading=LogReading(items.columns),
    )


def is_mind(path: Path) -> bool:
    """True for a folder of `behaviors.tsv` and `news.tsv`, or the former, written as MIND writes them."""
    folder = path if path.is_dir() else path.parent
    if not ((path.is_dir() or path.name == BEHAVIORS) and all((folder / name).is_file() for name in (BEHAVIORS, NEWS))):
        return False
    with (folder / BEHAVIORS).open(encoding="utf-8-sig", errors="replace") as file:
        return bool(_FIRST_LINE.match(file.readline(1 << 20).rstrip("\r\n")))


def _malformed(table: TextTable, column: str, bad: pd.Series, bad_rows: BadRows) -> TextTable:
    problem = {"time": "is no time such as 11/13/2019 8:36:57 AM", "impressions": "is no list such as N1-0 N2-1"}[
        column
    ]
    return table.without(np.asarray(bad, dtype=bool), column, problem, f"malformed {column}", bad_rows)


def _rows(impressions: pd.DataFrame, gap: float) -> pd.DataFrame:
    """One row a news shown, in the order of the file."""
    number = sessions_by_pause(impressions["user_id"], impressions["seconds"].to_numpy(), gap)
    shown = impressions["impressions"].str.split()
    of = np.repeat(np.arange(len(impressions)), [len(own) for own in shown])
    pairs = shown.explode(ignore_index=True).str.rsplit("-", n=1, expand=True)
    return pd.DataFrame(
        {
            Columns.user: impressions["user_id"].to_numpy()[of],
            Columns.item: pairs[0],
            Columns.time: impressions["seconds"].to_numpy()[of],
            Columns.session: pd.Series(number[of]).astype("str"),
            Columns.session_end: pd.Series(str(SessionEnd.unknown), index=range(len(of)), dtype="str"),
            Columns.slate: impressions["impression_id"].to_numpy()[of],
            CLICK: (pairs[1] == "1").astype(np.float64),
        }
    ).astype({Columns.user: "str", Columns.item: "str", Columns.slate: "str"})


def _news(path: Path, relations: tuple[str, ...] | None, bad_rows: BadRows) -> ItemsTable:
    table = read_text_table(path, columns=_NEWS, bad_rows=bad_rows)
    return items_of(
        table,
        "news_id",
        title="title",
        text_columns=("category", "subcategory", "abstract"),
        relations=("category", "subcategory", "mentions") if relations is None else relations,
        bad_rows=bad_rows,
    )
