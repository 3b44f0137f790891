"""A few live outcomes and a judge, together: what policies are worth, and how many live users the judge stands for.

    recloop rectify worlds/shop --live live.csv --policies popularity policies/ppo

LIVE is a table with the columns `user` (external id), `policy` (as it is called here) and `value`, a row an episode:
what each live user gave under each policy they met. The judge simulates the same users and the world's evaluate users.
What it gets wrong on average is taken out by the live users: the interval holds whatever the judge is like, and is
narrower the better it tells users apart. That the live users are people like the world's is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from rich.table import Table

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import LogError, RecloopError
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.comparison.contenders import find_contenders
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import Floats, Interval, by_user
from recloop.experiments.off_policy.rectified import Rectified, rectified
from recloop.experiments.provenance import use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings

COLUMNS = ("user", "policy", "value")


@dataclass(frozen=True)
class RectifyConfig:
    """Put a few live outcomes and a judge together."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    live: Path
    """CSV of live outcomes: user, policy, value."""
    policies: tuple[str, ...]
    """The policies that the live users met, as `recloop compare` takes them."""
    simulator: str | None = None
    """Whose values are rectified; default the first judge."""
    repeats: int = 5
    """Simulated episodes a user."""
    set: tuple[str, ...] = ()
    """Settings of policies, policy.name=value."""
    seed: int = 0
    """Of trainings and of the simulated users' luck."""
    out: Path | None = None
    """CSV that is written."""

    def __post_init__(self) -> None:
        at_least(1, repeats=self.repeats)


def main(config: RectifyConfig) -> dict[str, Rectified]:
    """Print and write what each policy, and each difference to the first, is worth."""
    use_threads(1)
    world = World.load(config.world)
    simulator = config.simulator or world.first_judge
    entries = find_contenders(config.policies, world, given_settings(None, config.set))
    live = live_outcomes(config.live, world, [entry.label for entry in entries])
    others = world.users.rows("evaluate").numpy()
    rows = np.union1d(others, np.unique(np.concatenate([table.index.to_numpy() for table in live.values()])))
    judged = {}
    for entry in entries:
        policy = make_policy(entry.source, world, FitOptions(config.seed, settings=entry.settings))
        judged[entry.label] = judged_values(policy, world, simulator, rows, config.repeats, config.seed)
    found = put_together(live, judged, others)
    _print(world.name, simulator, found)
    if config.out is not None:
        cells = [[name, *_cells(one.live), *_cells(one.together), one.weight, one.users, one.saved]
                 for name, one in found.items()]  # fmt: skip
        header = ["what", "live", "live_low", "live_high", "value", "low", "high", "weight", "live_users", "saved"]
        with replacing_file(config.out) as part:
            part.write_text(csv_text([header, *cells]), encoding="utf-8")
    return found


def live_outcomes(path: Path, world: World, policies: list[str]) -> dict[str, pd.Series[float]]:
    """The mean outcome of every live user by policy: series by row of the users table.

    Raises:
        LogError: a table without the columns, a user or policy that nobody knows, a value that is no number.
    """
    try:
        table = pd.read_csv(path, dtype={"user": str, "policy": str})
    except (OSError, ValueError) as error:
        raise LogError(f"{path} cannot be read: {error}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise LogError(f"{path} lacks the column(s) {', '.join(missing)}; give {', '.join(COLUMNS)}")
    values = pd.to_numeric(table["value"], errors="coerce")
    if not np.isfinite(values).all():
        line = int((~np.isfinite(values)).to_numpy().argmax()) + 2
        raise LogError(
            f"{path}, line {line}: value '{table['value'].iloc[line - 2]}' is no number; mend or leave it out"
        )
    row = {user: number for number, user in enumerate(world.users.ids)}
    strangers = [user for user in table["user"].unique() if user not in row]
    if strangers:
        raise LogError(
            f"{path} names {len(strangers)} user(s) that world '{world.name}' does not know, the first "
            f"'{strangers[0]}'; a judge can tell of the world's users alone, leave others out"
        )
    unknown = [name for name in table["policy"].unique() if name not in policies]
    if unknown:
        raise LogError(f"{path} holds policy '{unknown[0]}', which is not among --policies {' '.join(policies)}")
    without = [name for name in policies if name not in set(table["policy"])]
    if without:
        raise LogError(f"{path} holds no outcome of policy '{without[0]}'; leave it out of --policies")
    table = table.assign(row=table["user"].map(row), value=values)
    return {name: table[table["policy"] == name].groupby("row")["value"].mean() for name in policies}


def judged_values(
    policy: Policy, world: World, simulator: str | UserSimulator, rows: Any, repeats: int, seed: int
) -> pd.Series[float]:
    """The mean return of users (rows of the users table) under a policy, over episodes of each."""
    arena = Evaluator(world, simulator, episodes=repeats * len(rows), users=rows.tolist(), seed=seed)
    found = arena.run(policy, seed)
    return pd.Series(by_user(found.value, found.users), index=np.unique(found.users))


def put_together(
    live: Mapping[str, pd.Series[float]], judged: Mapping[str, pd.Series[float]], others: Any
) -> dict[str, Rectified]:
    """Every policy, and the difference of each to the first over the live users who met both, where enough did."""
    found = {}
    first = next(iter(judged))
    for name, values in live.items():
        found[name] = rectified(_floats(values), _floats(judged[name][values.index]), _floats(judged[name][others]))
    for name, values in live.items():
        both = values.index.intersection(live[first].index)
        if name == first or len(both) < 2:
            continue
        apart = judged[name] - judged[first]
        told = values[both] - live[first][both]
        try:
            found[f"{name} - {first}"] = rectified(_floats(told), _floats(apart[both]), _floats(apart[others]))
        except RecloopError:  # too few met both
            continue
    return found


def _floats(values: pd.Series[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _cells(value: Interval) -> list[float]:
    return [value.mean, value.low, value.high]


def _print(name: str, simulator: str, found: Mapping[str, Rectified]) -> None:
    table = Table(title=f"{name}: live users, and live users with '{simulator}'; 95 %", title_justify="left")
    for column in ("", "live users", "live alone", "judge alone", "together", "weight", "live users saved"):
        table.add_column(column)
    for what, one in found.items():
        saved = f"{one.saved:.0%}".replace("%", " %")
        table.add_row(
            what, str(one.users), str(one.live), str(one.judged), str(one.together), f"{one.weight:.2f}", saved
        )
    console = wide_console()
    console.print(table)
    console.print("Nothing vouches for 'judge alone'; 'together' holds whatever the judge is like.", style="dim")
