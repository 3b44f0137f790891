"""Logs as people have them, by users whose behaviour is known: a shop's events, slates with times, MIND, ratings.

    python -m recloop.experiments.studies.own_logs --out logs/own

Each is one truth log in another form; the three commands that take it from the raw file to a comparison are printed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv

from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.truth.built_in import BoredomWorldConfig, unlearned_world
from recloop.envs.truth.logs import truth_log
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

START = 1_577_836_800.0
"""2020-01-01 UTC: where the logs begin."""
MONTH = 2_592_000
COMMANDS = {
    "shop": "shop/events.csv --items-table {folder}/shop/products.csv",
    "slates": "slates/slates.csv --items-table {folder}/slates/items.csv",
    "mind": "mind",
    "anime": "anime/rating.csv --items-table {folder}/anime/anime.csv",
}
"""What follows `recloop build` for each."""


@dataclass(frozen=True)
class OwnLogsConfig:
    """Write four logs in forms that people have."""

    out: Path
    """Folder to write."""
    users: int = 2000
    """How many users."""
    seed: int = 0
    """Of the users and of what they do."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""

    def __post_init__(self) -> None:
        at_least(16, users=self.users)


def main(config: OwnLogsConfig) -> None:
    """Write the four folders, and print the commands."""
    use_threads(config.threads)
    plain = BoredomWorldConfig(users=config.users, seed=config.seed)
    going_on = replace(plain, rules=replace(plain.rules, leave=0.0, leave_bored=0.0))
    log = truth_log(unlearned_world(plain), "mixed", seed=config.seed)
    held = truth_log(unlearned_world(going_on), "mixed", seed=config.seed)
    draw = np.random.default_rng(config.seed)
    for name, write in (("shop", write_shop), ("mind", write_mind), ("anime", write_anime)):
        write(_folder(config.out, name), _timed(log, draw), log, draw)
    write_slates(_folder(config.out, "slates"), _timed(held, draw), held)
    for name, source in COMMANDS.items():
        print(f"recloop check-log {config.out}/{source.format(folder=config.out)}")
        print(f"recloop build {config.out}/{source.format(folder=config.out)} --out worlds/{name}")
        print(f"recloop compare worlds/{name} --policies random popularity greedy --out runs/{name}\n")


def write_shop(folder: Path, rows: pd.DataFrame, log: LoggedBehavior, draw: np.random.Generator) -> None:
    """Events: what was shown was viewed; what was taken was clicked, a third of that carted, half of that bought."""
    shown = rows.assign(event="view", after=rows[Columns.position])
    clicked = rows[rows[log.consumption.name] == 1].assign(event="click", after=30.0)
    carted = clicked[draw.random(len(clicked)) < 1 / 3].assign(event="addtocart", after=60.0)
    bought = carted[draw.random(len(carted)) < 1 / 2].assign(event="transaction", after=120.0)
    events = pd.concat([shown, clicked, carted, bought])
    table = pd.DataFrame(
        {
            "timestamp": ((events[Columns.time] + events["after"]) * 1000).astype("int64"),
            "visitorid": events[Columns.user].to_numpy(),
            "event": events["event"].to_numpy(),
            "itemid": events[Columns.item].to_numpy(),
        }
    )
    _write(table.sort_values("timestamp", kind="stable"), folder / "events.csv")
    _write(_items(log, draw), folder / "products.csv")


def write_slates(folder: Path, rows: pd.DataFrame, log: LoggedBehavior) -> None:
    """Impressions: one time a slate, and sessions of which nobody left one."""
    table = pd.DataFrame(
        {
            "user_id": rows[Columns.user],
            "item_id": rows[Columns.item],
            "shown_at": pd.to_datetime(rows[Columns.time], unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"),
            "impression_id": rows["impression"],
            "position": rows[Columns.position].astype(int),
            "session_id": rows[Columns.session],
            "session_end": rows[Columns.session_end],
            "policy": rows[Columns.policy],
            "propensity": rows[Columns.propensity],
            "clicked": rows[log.consumption.name].astype(int),
        }
    )
    _write(table, folder / "slates.csv")
    _write(_items(log, np.random.default_rng(0)), folder / "items.csv")


def write_mind(folder: Path, rows: pd.DataFrame, log: LoggedBehavior, draw: np.random.Generator) -> None:
    """`behaviors.tsv` and `news.tsv`, without lines of names, as MIND is published."""
    taken = rows[log.consumption.name].astype(int)
    coded = rows.assign(coded=rows[Columns.item].astype(str) + "-" + taken.astype(str))
    slates = coded.groupby([Columns.user, "impression"], sort=False).agg({Columns.time: "min", "coded": " ".join})
    slates = slates.reset_index()
    times = pd.to_datetime(slates[Columns.time], unit="s").dt.strftime("%m/%d/%Y %I:%M:%S %p")
    behaviors = pd.DataFrame({0: slates["impression"], 1: slates[Columns.user], 2: times, 3: "", 4: slates["coded"]})
    _write(behaviors, folder / "behaviors.tsv")
    items = _items(log, draw)
    news = pd.DataFrame({0: items["itemid"], 1: items["category"], 2: items["brand"], 3: items["title"]})
    for column in (4, 5, 6, 7):
        news[column] = "[]" if column > 5 else ""
    _write(news, folder / "news.tsv")


def write_anime(folder: Path, rows: pd.DataFrame, log: LoggedBehavior, draw: np.random.Generator) -> None:
    """Ratings from 1 to 10 without times, -1 where an item was seen and not rated, and a table with lists of genres."""
    seen = rows[rows[log.consumption.name] == 1]
    scores = np.clip(np.round(seen["rating"].fillna(3).to_numpy() * 2 - draw.integers(0, 2, len(seen))), 1, 10)
    rated = np.where(draw.random(len(seen)) < 0.2, -1, scores).astype(int)
    _write(
        pd.DataFrame({"user_id": seen[Columns.user], "anime_id": seen[Columns.item], "rating": rated}),
        folder / "rating.csv",
    )
    items = _items(log, draw)
    genres = items["category"] + ", " + items["brand"]
    anime = pd.DataFrame({"anime_id": items["itemid"], "name": items["title"], "genre": genres, "episodes": 12})
    _write(anime, folder / "anime.csv")


def _timed(log: LoggedBehavior, draw: np.random.Generator) -> pd.DataFrame:
    """The rows with a start of its own for each user, within a month, and a number for each slate."""
    rows = log.interactions.copy()
    names = rows[Columns.user].unique()
    start = dict(zip(names, START + draw.integers(0, MONTH, len(names)), strict=True))
    rows[Columns.time] = rows[Columns.time] - rows[Columns.time].min() + rows[Columns.user].map(start)
    rows["impression"] = rows.groupby([Columns.user, Columns.slate], sort=False).ngroup() + 1
    return rows


def _items(log: LoggedBehavior, draw: np.random.Generator) -> pd.DataFrame:
    names = log.items.index.to_series().astype(str)
    topics = (
        log.items[Columns.category] if Columns.category in log.items else log.items[Columns.title].str.split().str[0]
    )
    return pd.DataFrame(
        {
            "itemid": names.to_numpy(),
            "title": log.items[Columns.title].to_numpy(),
            "category": topics.to_numpy(),
            "brand": [f"brand {number}" for number in draw.integers(0, 12, len(names))],
            "price": draw.gamma(2.0, 10.0, len(names)).round(2),
        }
    )


def _write(table: pd.DataFrame, path: Path) -> None:
    """The table as it stands: comma separated with a line of names, `.tsv` without one, as MIND is."""
    named = path.suffix == ".csv"
    style = "needed" if named else "none"
    options = pyarrow.csv.WriteOptions(include_header=named, delimiter="," if named else "\t", quoting_style=style)
    columns = {str(name): table[name].reset_index(drop=True) for name in table.columns}
    pyarrow.csv.write_csv(pyarrow.Table.from_pandas(pd.DataFrame(columns), preserve_index=False), path, options)


def _folder(out: Path, name: str) -> Path:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(OwnLogsConfig, main)
