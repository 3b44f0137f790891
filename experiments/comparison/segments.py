"""A comparison within each segment of its users: who is served better, and who is not.

from recloop.experiments.comparison.segments import segment_lines
segment_lines(comparison)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.experiments.comparison.evaluate import Ints
from recloop.experiments.comparison.intervals import Interval, holm, t_interval
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.report.tables import interval_text, simulator_in_words

FEWEST_USERS = 20
"""A segment of fewer users gets means, but no intervals."""

COLUMNS = (
    "simulator", "segment", "name", "users", "policy", "reference",
    "value", "low", "high", "difference", "difference_low", "difference_high", "p",
)  # fmt: skip
"""Columns of `segments.csv`: a row a simulator, segment and policy, over all seeds. `p` is of the paired difference to
the reference, after Holm's correction over all policies and segments of the simulator; the intervals are each for
itself. Empty where a segment is too small."""

NOTE = (
    f"95 % over the segment's users, each interval for itself; p of the difference after Holm's correction over all "
    f"policies and segments of the table. Segments of fewer than {FEWEST_USERS} users have means alone."
)
"""What stands below a table of segments."""


@dataclass(frozen=True)
class SegmentLine:
    """One policy among the users of one segment, in front of one simulator, over all seeds.

    Args:
        simulator, policy: which.
        segment, name: number and name of the segment.
        users: how many of the evaluated users are in it.
        mean: mean return an episode.
        value: its interval over users; None for a segment of fewer than `FEWEST_USERS`.
        difference: paired by user to the reference policy, `p` not corrected; None there, and for the reference itself.
        p: of the difference, corrected; None where there is none.
    """

    simulator: str
    policy: str
    segment: int
    name: str
    users: int
    mean: float
    value: Interval | None
    difference: Interval | None
    p: float | None


def segment_lines(comparison: Comparison) -> tuple[SegmentLine, ...]:
    """A line for each simulator, segment with users, and policy; nothing in a world without segments."""
    return tuple(line for simulator in comparison.simulators for line in _of_simulator(comparison, simulator))


def write_segments(path: Path, comparison: Comparison, lines: Sequence[SegmentLine]) -> None:
    """Write `segments.csv`; replaced whole. Equal runs give equal bytes."""
    rows: list[Sequence[object]] = [COLUMNS]
    for line in lines:
        place = [line.simulator, line.segment, line.name, line.users, line.policy, comparison.reference]
        value, difference = _ends(line.value), _ends(line.difference)
        p = "" if line.p is None else f"{line.p:.6g}"
        rows.append([*place, f"{line.mean:.6f}", *value[1:], *difference, p])
    with replacing_file(path) as part:
        part.write_text(csv_text(rows), encoding="utf-8")


def segment_table(comparison: Comparison, lines: Sequence[SegmentLine], simulator: str) -> Table:
    """The lines of one simulator for the terminal."""
    table = Table(
        title=f"{simulator_in_words(comparison, simulator)}: return by segment of users", title_justify="left"
    )
    for name in ("segment", "users", "policy", "return", f"minus {comparison.reference}", "p"):
        table.add_column(name, justify="right" if name not in ("segment", "policy") else "left")
    before = None
    for line in lines:
        if line.simulator != simulator:
            continue
        first = line.segment != before
        if first and before is not None:
            table.add_section()
        before = line.segment
        table.add_row(f"{line.segment} {line.name}" if first else "", f"{line.users:,}" if first else "", *cells(line))
    table.caption, table.caption_justify = NOTE, "left"
    return table


def cells(line: SegmentLine) -> list[str]:
    """Policy, return, difference and p as text."""
    value = f"{line.mean:.2f} (too few users)" if line.value is None else interval_text(line.value)
    difference = "" if line.difference is None else interval_text(line.difference, signed=True)
    return [line.policy, value, difference, "" if line.p is None else f"{line.p:.3f}"]


def _of_simulator(comparison: Comparison, simulator: str) -> list[SegmentLine]:
    patterns = comparison.world.patterns
    if patterns is None or patterns.segments is None:
        return []
    member = patterns.segment.numpy()[_users(comparison, simulator)]  # (U,) as `Comparison.values`
    lines = []
    for segment, name in enumerate(patterns.segments.names):
        mine = member == segment
        many = int(mine.sum()) >= FEWEST_USERS
        for policy in comparison.labels if mine.any() else ():
            values = comparison.values(policy, simulator)[mine]
            paired = None
            if many and policy != comparison.reference:
                paired = t_interval(comparison.difference(policy, comparison.reference, simulator)[mine])
            value = t_interval(values) if many else None
            place = (simulator, policy, segment, name, int(mine.sum()), float(values.mean()))
            lines.append(SegmentLine(*place, value, paired, None if paired is None else paired.p))
    tested = [place for place, line in enumerate(lines) if line.p is not None]
    corrected = dict(zip(tested, holm([lines[place].p or 0.0 for place in tested]), strict=True))
    return [SegmentLine(**{**vars(line), "p": corrected.get(place)}) for place, line in enumerate(lines)]


def _users(comparison: Comparison, simulator: str) -> Ints:
    """Rows of the evaluated users, rising: the order of `Comparison.values`."""
    return np.unique(comparison.rollouts[comparison.labels[0], comparison.seeds[0], simulator].users)


def _ends(interval: Interval | None) -> list[str]:
    return [""] * 3 if interval is None else [f"{x:.6f}" for x in (interval.mean, interval.low, interval.high)]
