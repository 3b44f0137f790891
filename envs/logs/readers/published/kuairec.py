"""KuaiRec as published: a sparse matrix of videos watched, and a small one in which nearly everybody saw everything.

Gao et al. 2022, "KuaiRec: A Fully-Observed Dataset and Insights for Evaluating Recommender Systems"; the fields are
described at https://kuairec.com.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
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
from recloop.envs.logs.readers.sessions import SESSION_GAP, sessions_by_pause
from recloop.envs.logs.readers.side_files import with_missing
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Signal, Times

FILES = {"big": "big_matrix.csv", "small": "small_matrix.csv"}
WATCHED = "watched"
WATCHED_FROM = 1.0
"""Watch ratio from which a video counts as consumed: played to its end."""


@dataclass(frozen=True)
class WatchTable:
    """A matrix of users by videos.

    Args:
        users: external ids of the rows (U,).
        items: external ids of the columns (N,).
        watch_ratio: float32 (U, N) in [0, limit], the mean over a pair's rows; NaN where the user never saw the video.
        category: of each column (N,), empty where unknown.
        limit: where watch ratios were clipped.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    watch_ratio: npt.NDArray[np.float32]
    category: tuple[str, ...]
    limit: float

    @property
    def density(self) -> float:
        """Share of the pairs that were seen."""
        return float(np.isfinite(self.watch_ratio).mean())


def read_kuairec_log(
    path: Path,
    *,
    matrix: Literal["big", "small"] | None = None,
    watched_from: float = WATCHED_FROM,
    watch_limit: float = WATCH_LIMIT,
    session_gap: float = SESSION_GAP,
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a matrix of KuaiRec as a log.

    A row is a video shown alone. Consumption is `watched`: the watch ratio is `watched_from` or more. `watch_ratio`
    itself, clipped at `watch_limit`, is logged at every row. Which recommender showed a row is not logged.

    Args:
        path: the folder, its `data` folder, or one of its matrices.
        matrix: `big` or `small`; None takes the one that `path` names, else the big one.
        watched_from: watch ratio from which a video counts as consumed, in (0, watch_limit].
        watch_limit: watch ratios above are clipped.
        session_gap: seconds without a row after which the next row begins a session.
        item_relations: of the videos, what becomes triples; None takes tags, empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    watch = watch_ratio_signal(watch_limit)
    if not 0 < watched_from <= watch_limit:
        raise LogError(f"watched_from={watched_from} must lie in (0, {watch_limit:g}], the range of the watch ratio")
    bad_rows = BadRows(on_bad_rows)
    folder, file = _matrix_file(path, matrix)
    table = _pairs(file, bad_rows, times=True)
    without = int(np.isnan(table.numbers("timestamp")).sum())
    ratio = table.numbers("watch_ratio")
    seconds = table.numbers("timestamp")
    numbers = sessions_by_pause(table.frame["user_id"], seconds, session_gap)
    timed = bool(np.isfinite(seconds).any())
    columns = {
        Columns.user: table.frame["user_id"],
        Columns.item: table.frame["video_id"],
        **({Columns.time: seconds} if timed else {}),
        Columns.session: pd.Series(numbers).astype("str"),
        Columns.session_end: pd.Series(str(SessionEnd.unknown), index=table.frame.index, dtype="str"),
        WATCHED: (ratio >= watched_from).astype(np.float64),
        watch.name: np.clip(ratio, *watch.bounds),
    }
    rows = pd.DataFrame(columns)
    items = read_videos(folder / "item_categories.csv", "feat", (), item_relations, bad_rows)
    users = read_users(folder / "user_features.csv", bad_rows)
    return LoggedBehavior(
        name=f"kuairec-{file.name.partition('_')[0]}",
        interactions=rows,
        users=with_missing(users.frame, rows[Columns.user]),
        items=with_missing(items.frame, rows[Columns.item]),
        signals=(Signal(WATCHED), watch),
        times=Times.behavioural if timed else Times.none,
        has_exposures=True,
        knowledge=items.knowledge,
        source=str(file),
        notes=(
            f"A video counts as watched from a watch ratio of {watched_from:g} on; the ratio is clipped at "
            f"{watch_limit:g}.",
            f"A pause of {session_gap:g} seconds or more begins a session. The log keeps the rows of chosen videos "
            "alone, so why a session ended is unknown.",
            *((f"{without} rows have no time; cleaning drops them.",) if without and timed else ()),
            "Which recommender showed a row is not logged.",
            "The log has no texts of videos: tags, as numbers, stand for them.",
            *items.notes,
            *users.notes,
        ),
        dropped=bad_rows.as_dropped(),
        reading=LogReading((*items.columns, *users.columns)),
    )


def read_kuairec_matrix(
    path: Path, *, watch_limit: float = WATCH_LIMIT, on_bad_rows: OnBadRows = "error"
) -> WatchTable:
    """Read the small matrix, in which 99.6 % of the pairs are known, as a dense table.

    Args:
        path: the folder, its `data` folder, or the matrix.
        watch_limit: watch ratios above are clipped.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column.
    """
    watch = watch_ratio_signal(watch_limit)
    bad_rows = BadRows(on_bad_rows)
    folder, file = _matrix_file(path, None if path.is_file() else "small")
    table = _pairs(file, bad_rows, times=False)
    ratio = np.clip(table.numbers("watch_ratio"), *watch.bounds)
    rows, users = pd.factorize(table.frame["user_id"])
    columns, items = pd.factorize(table.frame["video_id"])
    total, count = np.zeros((len(users), len(items))), np.zeros((len(users), len(items)))
    np.add.at(total, (rows, columns), ratio)
    np.add.at(count, (rows, columns), 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    videos = read_videos(folder / "item_categories.csv", "feat", (), (), bad_rows).frame
    known = videos[Columns.category] if Columns.category in videos else pd.Series(dtype="str")
    category = known.reindex(items).fillna("")
    return WatchTable(tuple(map(str, users)), tuple(map(str, items)), mean, tuple(category), float(watch_limit))


def is_kuairec(path: Path) -> bool:
    """True for a folder of KuaiRec, or one of its matrices."""
    if path.is_file():
        return path.name in FILES.values()
    return any(data_folder(path, name) is not None for name in FILES.values())


def _matrix_file(path: Path, matrix: str | None) -> tuple[Path, Path]:
    """The folder of the data and the file of a matrix."""
    if matrix is None:
        matrix = next((name for name, file in FILES.items() if path.name == file), None)
    names = list(FILES) if matrix is None else [matrix]
    for name in names:
        if name not in FILES:
            raise LogError(f"matrix={name!r} is no matrix of KuaiRec; use big or small")
        folder = data_folder(path, FILES[name])
        if folder is not None:
            return folder, folder / FILES[name]
    raise LogError(f"{path} holds no KuaiRec: looked for {' and '.join(FILES[name] for name in names)}")


def _pairs(path: Path, bad_rows: BadRows, times: bool) -> TextTable:
    numeric = ("watch_ratio", "timestamp") if times else ("watch_ratio",)
    table = read_large_table(path, ("user_id", "video_id", *numeric), numeric, bad_rows)
    table = table.with_ids("user_id", bad_rows).with_ids("video_id", bad_rows)
    for name in numeric:
        table = table.with_numbers(name, bad_rows)
    ratio = table.numbers("watch_ratio")
    missing = np.isnan(ratio)
    table = table.without(missing, "watch_ratio", "is no watch ratio", "missing watch_ratio", bad_rows)
    negative = ratio[~missing] < 0
    return table.without(negative, "watch_ratio", "is below 0", "negative watch_ratio", bad_rows)
