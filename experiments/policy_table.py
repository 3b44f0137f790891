"""The table that studies of policies write and print: a row is a measure of a policy in a world, with its interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from recloop.experiments.comparison.intervals import Interval
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.report.tables import wide_console

COLUMNS = ("what", "world", "policy", "seeds", "mean", "low", "high", "command", "commit")
"""Of the CSV file; intervals (95 %) are over users, of the mean over seeds, and empty where there is none."""

Row = tuple[str, str, Interval]
"""What, which policy, how much."""


def cells(rows: Sequence[Row], digits: int = 3, /, **source: Any) -> list[dict[str, Any]]:
    """Rows as the CSV file has them; `source` says world, seeds, command and commit.

    >>> cells([("return", "greedy", Interval(1.5, 1.25, 1.75))], world="clicks")
    [{'what': 'return', 'policy': 'greedy', 'mean': '1.500', 'low': '1.250', 'high': '1.750', 'world': 'clicks'}]
    """
    return [
        {"what": what, "policy": policy}
        | {name: f"{getattr(value, name):.{digits}f}" for name in ("mean", "low", "high")}
        | source
        for what, policy, value in rows
    ]


def keep_policy_rows(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows into a CSV file, each in the place of the same measure, world and policy; None keeps nothing."""
    if path is not None:
        replace_rows(path, COLUMNS, ("what", "world", "policy"), rows)


def print_rows(title: str, rows: Sequence[Row], digits: int = 3) -> None:
    """Print rows with their intervals."""
    table = Table("what", "policy", "mean", "interval", title=title, title_justify="left")
    for what, policy, value in rows:
        table.add_row(what, policy, f"{value.mean:.{digits}f}", f"[{value.low:.{digits}f}, {value.high:.{digits}f}]")
    wide_console().print(table)
