"""KuaiRand as published (Pure, 1K, 27K): videos shown one at a time, twelve signals, and rows exposed at random.

Gao et al. 2022, "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos"; the fields are
described at https://kuairand.com.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.published.kuai_tables import (
    WATCH_LIMIT,
    data_folder,
    read_users,
    read_videos,
    watch_ratio_signal,
)
from recloop.envs.logs.readers.published.large_table import read_large_table
from recloop.envs.logs.readers.sessions import SESSION_GAP, ends_by_pause, sessions_by_pause
from recloop.envs.logs.readers.side_files import with_missing
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Signal, Times

SIGNALS = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "long_view": "long_view",
}
"""Binary signals and the columns they stand in; `watch_ratio` is made of two more."""
POOL = 7_583
"""Videos that the random exposures of all three versions were drawn from, as published."""
_NUMBERS = (*SIGNALS.values(), "time_ms", "play_time_ms", "duration_ms", "is_rand")


def read_kuairand_log(
    path: Path,
    *,
    session_gap: float = SESSION_GAP,
    item_relations: tuple[str, ...] | None = None,
    watch_limit: float = WATCH_LIMIT,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a version of KuaiRand: every `log_standard_*.csv` and `log_random_*.csv` of its folder.

    A row is a video shown alone. Consumption is `click` (in the one-column interface: played for 7 seconds or to the
    end); `like`, `follow`, `comment`, `forward`, `hate` (bad), `long_view` and `watch_ratio` (time played over the
    video's length, clipped) are logged at every row. `Columns.policy` is `random` where the video was put in at random
    and `standard` elsewhere; the propensity of a random row is one over the pool, that of others is unknown.

    Args:
        path: the folder, its `data` folder, or one of its logs.
        session_gap: seconds without a row after which the next row begins a session.
        watch_limit: watch ratios above are clipped.
        item_relations: of the videos, what becomes triples; None takes tags and types, empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    folder = data_folder(path, "log_standard_*.csv") or data_folder(path, "log_random_*.csv")
    if folder is None:
        raise LogError(f"{path} holds no KuaiRand: looked for log_standard_*.csv and log_random_*.csv")
    bad_rows = BadRows(on_bad_rows)
    watch = watch_ratio_signal(watch_limit)
    files = [*sorted(folder.glob("log_standard_*.csv")), *sorted(folder.glob("log_random_*.csv"))]
    version = _version(files)
    rows = pd.concat([_rows(file, watch, bad_rows) for file in files], ignore_index=True)
    seconds = rows[Columns.time].to_numpy(dtype=np.float64)
    who = rows[Columns.user]
    rows[Columns.session] = pd.Series(sessions_by_pause(who, seconds, session_gap)).astype("str")
    ends = ends_by_pause(who, rows[Columns.session], seconds, session_gap)
    # Of the pure version parts of sessions are published.
    rows[Columns.session_end] = str(SessionEnd.unknown) if version == "pure" else ends
    suffix = f"_{version}" if version else ""
    items = read_videos(
        folder / f"video_features_basic{suffix}.csv", "tag", ("video_type", "upload_type"), item_relations, bad_rows
    )
    users = read_users(folder / f"user_features{suffix}.csv", bad_rows)
    return LoggedBehavior(
        name=f"kuairand{'-' if version else ''}{version}",
        interactions=rows,
        users=with_missing(users.frame, rows[Columns.user]),
        items=with_missing(items.frame, rows[Columns.item]),
        signals=(*(Signal(name, good=name != "hate") for name in SIGNALS), watch),
        times=Times.behavioural,
        has_exposures=True,
        knowledge=items.knowledge,
        source=str(folder),
        notes=(*_notes(rows, version, session_gap, watch_limit), *items.notes, *users.notes),
        dropped=bad_rows.as_dropped(),
        reading=LogReading((*items.columns, *users.columns)),
    )


def is_kuairand(path: Path) -> bool:
    """True for a folder of KuaiRand, or one of its logs."""
    if path.is_file() and not re.match(r"log_(standard|random)_\d.*\.csv$", path.name):
        return False
    folder = data_folder(path, "log_standard_*.csv") or data_folder(path, "log_random_*.csv")
    if folder is None:
        return False
    with next(iter(sorted(folder.glob("log_*.csv")))).open(encoding="utf-8", errors="replace") as file:
        return "is_rand" in file.readline(1 << 16)


def _version(files: list[Path]) -> str:
    """`pure`, `1k` or `27k`, as the files end; empty where they say nothing."""
    found = {match.group(1) for file in files if (match := re.search(r"_(pure|1k|27k)(_part\d+)?\.csv$", file.name))}
    if len(found) > 1:
        raise LogError(f"{files[0].parent} holds logs of {' and '.join(sorted(found))}; keep one version a folder")
    return found.pop() if found else ""


def _rows(path: Path, watch: Signal, bad_rows: BadRows) -> pd.DataFrame:
    table = read_large_table(path, ("user_id", "video_id", *_NUMBERS), _NUMBERS, bad_rows)
    table = table.with_ids("user_id", bad_rows).with_ids("video_id", bad_rows)
    for name in _NUMBERS:
        table = table.with_numbers(name, bad_rows)
    table = _whole(table, "time_ms", bad_rows)
    chosen = table.numbers("is_rand") == 1
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = table.numbers("play_time_ms") / table.numbers("duration_ms")
    columns = {
        Columns.user: table.frame["user_id"],
        Columns.item: table.frame["video_id"],
        Columns.time: table.numbers("time_ms") / 1000,
        Columns.policy: pd.Series(np.where(chosen, "random", "standard"), dtype="str"),
        Columns.propensity: np.where(chosen, 1 / POOL, np.nan),
        **{name: table.numbers(column) for name, column in SIGNALS.items()},
        watch.name: np.where(np.isfinite(ratio), np.clip(ratio, *watch.bounds), np.nan),
    }
    return pd.DataFrame(columns)


def _whole(table: TextTable, column: str, bad_rows: BadRows) -> TextTable:
    """The table less rows without a value in a column that every row must have."""
    return table.without(np.isnan(table.numbers(column)), column, "is empty", f"missing {column}", bad_rows)


def _notes(rows: pd.DataFrame, version: str, gap: float, limit: float) -> tuple[str, ...]:
    share = float((rows[Columns.policy] == "random").mean())
    if version == "pure":
        ends = "This version keeps rows of the random pool alone, so why a session ended is unknown."
    else:
        ends = "A session that a pause follows was left; one that lasts to the end of the log is cut."
    return (
        f"{share:.1%} of the rows were exposed at random, each video of the pool alike: propensity 1/{POOL}. "
        "Propensities of the standard recommenders are unknown.",
        f"A pause of {gap:g} seconds or more begins a session. {ends}",
        f"The watch ratio is clipped at {limit:g}; it is missing where the length of the video is.",
        "The log has no texts of videos: tags and types, as numbers and words, stand for them.",
    )
