"""Open Bandit as published: fashion items shown on three places of a page, by a random and a Thompson sampling policy.

Saito et al. 2021, "Open Bandit Dataset and Pipeline"; the fields are described at https://research.zozo.com/data.html.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.published.large_table import read_large_table
from recloop.envs.logs.readers.side_files import no_items, with_missing
from recloop.envs.logs.readers.side_tables import ItemsTable, items_of
from recloop.envs.logs.readers.text_table import BadRows, OnBadRows, TextTable
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times

Visitors = Literal["features", "rows"]
POLICIES = ("random", "bts")
CAMPAIGNS = ("all", "men", "women")
CLICK = "click"
ITEMS = "item_context.csv"
FEATURES = tuple(f"user_feature_{n}" for n in range(4))
"""What is known of a visitor: four hashed categories."""
_NUMBERS = ("position", CLICK, "propensity_score")
_PLACES = 3


def read_open_bandit_log(
    path: Path,
    *,
    campaign: str | None = None,
    policy: str | None = None,
    users: Visitors = "features",
    item_relations: tuple[str, ...] | None = None,
    on_bad_rows: OnBadRows = "error",
) -> LoggedBehavior:
    """Read a campaign of Open Bandit, as one policy logged it or both.

    The log has no ids of users and does not say which rows were one page: a row is a slate of one item. Consumption is
    `click`. `position` counts from 0, `propensity` is the published probability of the item at this place, `policy` the
    folder's name. A user is everybody who shares the four published features: a crowd, so the log's times tell nothing
    of a person, and their order alone is kept.

    Args:
        path: the folder of the policies (`random`, `bts`), of one policy, of one campaign of it, or a campaign's file.
        campaign: `all`, `men` or `women`, where the path holds more than one.
        policy: `random` or `bts`; None reads both where the path holds both.
        users: what a user is: `features`, as above; or `rows`, where each row is a user of its own, seen once and with
            its time, from whom no world can be learned.
        item_relations: of the items' features, what becomes triples; None takes those that items share, empty none.
        on_bad_rows: `error`, or `drop` to leave out and count what cannot be read.

    Raises:
        LogError: with file, line and column; more than one campaign.
    """
    bad_rows = BadRows(on_bad_rows)
    if users not in get_args(Visitors):
        raise LogError(f"users={users!r} is unknown; use 'features' or 'rows'")
    files = _files(path, campaign, policy)
    name = files[0].stem
    parts = [_rows(file, bad_rows) for file in files]
    rows = pd.concat([own for own, _ in parts], ignore_index=True)
    people = pd.concat([own for _, own in parts], ignore_index=True)
    rows, people, who = _by_features(rows, people) if users == "features" else _by_row(rows, people)
    items = _items(files[0].with_name(ITEMS), item_relations, bad_rows)
    counts = ", ".join(f"{policy}: {count:,}" for policy, count in rows[Columns.policy].value_counts().items())
    return LoggedBehavior(
        name=f"open-bandit-{name}",
        interactions=rows,
        users=people,
        items=with_missing(items.frame, rows[Columns.item]),
        signals=(Signal(CLICK),),
        times=Times.behavioural if Columns.time in rows else Times.none,
        has_exposures=True,
        knowledge=items.knowledge,
        source=", ".join(map(str, files)),
        notes=(
            f"The log has no ids of users: {who}",
            "The three places of a page are rows of their own, and which rows were one page is not published: a slate "
            "holds one item.",
            f"Rows by policy: {counts}. Propensities are the published ones; the table of items is that of "
            f"{_policy(files[0])}.",
            "Affinities of users and items (user-item_affinity_*) are not used.",
            *items.notes,
        ),
        dropped=bad_rows.as_dropped(),
        reading=LogReading(items.columns),
    )


def is_open_bandit(path: Path) -> bool:
    """True for a folder of Open Bandit at any level, or the file of a campaign, by the names and the first line."""
    files = _candidates(path)
    if not files:
        return False
    with files[0].open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(1 << 16).split(",")
    return {"propensity_score", "position", "item_id", CLICK, *FEATURES} <= {name.strip() for name in header}


def _candidates(path: Path) -> list[Path]:
    """Files of campaigns, `POLICY/CAMPAIGN/CAMPAIGN.csv`, at or below a path."""
    if path.is_file():
        return [path] if path.stem in CAMPAIGNS and path.name == f"{path.parent.name}.csv" else []
    here = path.resolve().name
    names = [f"{campaign}.csv" for campaign in CAMPAIGNS if campaign == here]
    names += [f"{campaign}/{campaign}.csv" for campaign in CAMPAIGNS]
    names += [f"{policy}/{campaign}/{campaign}.csv" for policy in POLICIES for campaign in CAMPAIGNS]
    return [path / name for name in names if (path / name).is_file()]


def _files(path: Path, campaign: str | None, policy: str | None) -> list[Path]:
    found = _candidates(path)
    campaigns = sorted({file.stem for file in found})
    policies = sorted({_policy(file) for file in found})
    for what, value, known in (("campaign", campaign, campaigns), ("policy", policy, policies)):
        if value is not None and value not in known:
            raise LogError(f"{path} holds no {what} {value!r} of Open Bandit; it holds {', '.join(known) or 'none'}")
    if campaign is None and len(campaigns) > 1:
        raise LogError(
            f"{path} holds the campaigns {', '.join(campaigns)} of Open Bandit, whose items differ; choose one with "
            f"campaign={campaigns[0]!r}, or give its folder"
        )
    wanted = [file for file in found if campaign in (None, file.stem) and policy in (None, _policy(file))]
    if not wanted:
        raise LogError(
            f"{path} holds no Open Bandit: looked for POLICY/CAMPAIGN/CAMPAIGN.csv, such as random/men/men.csv"
        )
    return wanted


def _policy(file: Path) -> str:
    return file.resolve().parent.parent.name


def _rows(file: Path, bad_rows: BadRows) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The interactions and the users of one file."""
    table = read_large_table(file, ("timestamp", "item_id", *_NUMBERS, *FEATURES), _NUMBERS, bad_rows)
    table = table.with_ids("item_id", bad_rows)
    for name in _NUMBERS:
        table = table.with_numbers(name, bad_rows)
    table = _within(table, "position", np.isin(table.numbers("position"), range(1, _PLACES + 1)), bad_rows)
    table = _within(table, CLICK, np.isin(table.numbers(CLICK), (0, 1)), bad_rows)
    chance = table.numbers("propensity_score")
    table = _within(table, "propensity_score", (chance > 0) & (chance <= 1), bad_rows)
    times = pd.to_datetime(table.frame["timestamp"], format="ISO8601", utc=True, errors="coerce")
    table, times = _within(table, "timestamp", times.notna().to_numpy(), bad_rows), times[times.notna()]
    if table.frame.empty:
        raise LogError(f"{file} holds no rows that can be read; a log needs at least one")
    policy = pd.Series(_policy(file), index=table.frame.index, dtype="str")
    rows = pd.DataFrame(
        {
            Columns.user: policy + "/" + pd.Series(table.lines - 2).astype("str"),
            Columns.item: table.frame["item_id"],
            Columns.time: (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(),
            Columns.position: table.numbers("position") - 1,
            Columns.propensity: table.numbers("propensity_score"),
            Columns.policy: policy,
            CLICK: table.numbers(CLICK),
        }
    )
    return rows, table.frame[list(FEATURES)]


def _by_row(rows: pd.DataFrame, people: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    who = "every row is a user of its own, seen once, whom four published features describe."
    return rows, people.set_axis(pd.Index(rows[Columns.user], dtype="str", name=Columns.user)), who


def _by_features(rows: pd.DataFrame, people: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The rows in order of time, less their times, and a user for each set of features."""
    order = np.argsort(rows[Columns.time].to_numpy(), kind="stable")
    people = people.iloc[order].reset_index(drop=True)
    crowd = people.groupby(list(FEATURES), sort=False).ngroup()
    names = "crowd " + crowd.astype("str")
    rows = rows.iloc[order].reset_index(drop=True).drop(columns=Columns.time).assign(**{Columns.user: names})
    people = people.groupby(crowd, sort=False).first()
    people.index = pd.Index("crowd " + people.index.astype("str"), dtype="str", name=Columns.user)
    who = (
        f"a user is everybody who shares four published features, a crowd and no person ({len(people):,} of them). "
        "What one user does may be many people's doing, so nothing about a person's memory or boredom can be learned. "
        "The times are those of crowds: their order is kept."
    )
    return rows, people, who


def _within(table: TextTable, column: str, good: np.ndarray, bad_rows: BadRows) -> TextTable:
    limits = {
        "position": f"is no place of 1 to {_PLACES}",
        CLICK: "is neither 0 nor 1",
        "propensity_score": "is no probability in (0, 1]",
        "timestamp": "is no time",
    }
    return table.without(~good, column, limits[column], f"malformed {column}", bad_rows)


def _items(path: Path, relations: tuple[str, ...] | None, bad_rows: BadRows) -> ItemsTable:
    """The items: an item's number is its title, its hashed features become triples."""
    if not path.is_file():
        return ItemsTable(no_items())
    hashed = tuple(f"item_feature_{n}" for n in range(1, 4))
    table = read_large_table(path, ("item_id", "item_feature_0", *hashed), ("item_feature_0",), bad_rows)
    table = table.with_ids("item_id", bad_rows)
    named = table.frame.assign(title="Item " + table.frame["item_id"])
    return items_of(
        TextTable(table.path, named, table.lines), "item_id", title="title", relations=relations, bad_rows=bad_rows
    )
