"""One small log that all tests of tables write down in their own ways."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recloop.envs.logs.cleaning import CleaningOptions, clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.schema import LoggedBehavior

START = 1_600_000_000


def ratings(users: int = 12, each: int = 8) -> pd.DataFrame:
    """Users rate items of 15 at times of their own; no two rows of a user share a time."""
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", int(draw.integers(1, 6)), START + user * 977 + place * 40_000)
        for user in range(users)
        for place, item in enumerate(draw.permutation(15)[:each])
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])


def impressions(users: int = 10, slates: int = 4, size: int = 4) -> pd.DataFrame:
    """Slates of which one item or none is clicked; the rows of a slate share their time."""
    draw = np.random.default_rng(1)
    rows = []
    for user in range(users):
        for slate in range(slates):
            taken = int(draw.integers(0, size + 1))
            for place, item in enumerate(draw.permutation(15)[:size]):
                time = START + user * 977 + slate * 50_000
                rows.append((f"u{user}", f"i{item}", time, f"s{user}-{slate}", place, int(place == taken)))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "slate_id", "position", "click"])


def written(folder: Path, frame: pd.DataFrame, name: str = "log.csv", **options: Any) -> Path:
    """The frame as a file."""
    path = folder / name
    if path.suffix == ".parquet":
        frame.to_parquet(path, **options)
    else:
        frame.to_csv(path, index=False, **options)
    return path


def read(source: Any, **options: Any) -> LoggedBehavior:
    """A log, read and cleaned."""
    return clean(read_log(source, **options), CleaningOptions(max_loss=1))[0]


def world_of(log: LoggedBehavior) -> dict[str, list[tuple[str, ...]]]:
    """What users did, in order, by user: the item and the answers of every row, with the slate's number if shown."""
    sequences, items, users = compile_sequences(log)
    slates = sequences.slates
    told: dict[str, list[tuple[str, ...]]] = {}
    for row, user in enumerate(users):
        if slates is None:
            span = slice(int(sequences.offsets[row]), int(sequences.offsets[row + 1]))
            given = np.where(sequences.given[span], sequences.feedback[span], np.nan)
            told[user] = [
                (items[item], *map(str, values))
                for item, values in zip(sequences.items[span], given.tolist(), strict=True)
            ]
            continue
        span = slice(int(slates.offsets[row]), int(slates.offsets[row + 1]))
        told[user] = [
            (str(number), items[item], *map(str, values))
            for number, (shown, answers) in enumerate(
                zip(slates.items[span], slates.answers[span].tolist(), strict=True)
            )
            for item, values in zip(shown, answers, strict=True)
            if item < len(items)
        ]
    return told
