"""What a log holds and how it was read, for the terminal: the same for `check-log` and `build`."""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from recloop.envs.build.card import not_claimed
from recloop.envs.logs.cleaning import CleaningReport
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.reading import LogReading
from recloop.envs.logs.schema import Columns, LoggedBehavior, SessionEnd, Signal, Times
from recloop.envs.logs.sequences import Sequences
from recloop.experiments.report.tables import PlainConsole, pairs_table

FIRST_USERS = 3
"""Users that are printed as text."""
LAST_ROWS = 6
"""Rows of each of them."""


def print_reading(log: LoggedBehavior, report: CleaningReport, console: PlainConsole) -> None:
    """Print what every column was taken for, what the log holds, the first users, and what may be wrong."""
    print_columns(log.reading, log.notes, console)
    sequences = compile_sequences(log)[0]
    console.print(pairs_table("what the log holds", holdings(log, sequences)))
    console.print(str(report))
    console.print("\nthe first users, oldest row first", style="bold")
    for line in _first_users(log):
        console.print(f"  {line}", soft_wrap=True)
    console.print("\na world of this log can claim", style="bold")
    for line in claimable(log, sequences):
        console.print(f"  - {line}", soft_wrap=True)
    console.print("\nand cannot", style="bold")
    for line in not_claimed(log) or ("nothing that it lacks was found",):
        console.print(f"  - {line}", soft_wrap=True)
    if log.reading.warnings:
        console.print("\nlook at this", style="bold")
    for line in log.reading.warnings:
        console.print(f"  - {line}", style="yellow", soft_wrap=True)


def print_columns(reading: LogReading, notes: Iterable[str], console: PlainConsole) -> None:
    """Print every column with its role, and the sentences of the reader."""
    if reading.columns:
        table = Table(title="columns", title_justify="left")
        for head in ("table", "column", "taken for", "why"):
            table.add_column(head, overflow="fold")
        for column in sorted(
            reading.columns, key=lambda c: (c.role == "not used", ("log", "items", "users").index(c.table))
        ):
            table.add_row(column.table, column.name, column.role, column.why)
        console.print(table)
    console.print("how the log was read", style="bold")
    for note in notes:
        console.print(f"  - {note}", soft_wrap=True)


def holdings(log: LoggedBehavior, sequences: Sequences) -> dict[str, str]:
    """Counts, signals, times, slates, sessions and policies, in words."""
    rows = log.interactions
    consumed = int((sequences.popularity(np.arange(sequences.users)) > 0).sum())
    found = {
        "rows": f"{len(rows):,}",
        "users": f"{len(log.users):,}",
        "items": f"{len(log.items):,}, {consumed:,} of them consumed",
        "consumptions": f"{len(sequences.items):,} ({len(sequences.items) / max(len(log.users), 1):.1f} a user)",
        "signals": ", ".join(signal_in_words(signal) for signal in log.signals),
        "times": _times(log),
        "slates": "not logged: a row is a consumption",
        "sessions": "not logged",
        "propensities": _propensities(rows),
        "policies": _shares(rows[Columns.policy]) if Columns.policy in rows else "not logged",
        "knowledge graph": "none" if log.knowledge is None else f"{len(log.knowledge.triples):,} triples",
    }
    if Columns.slate in rows and not log.has_exposures:
        found["slates"] = "only of what was taken, so not used: a row is a consumption"
    slates = sequences.slates
    if slates is not None:
        sizes = (slates.items < sequences.catalogue_size).sum(1)
        taken = float(rows[log.consumption.name].mean())
        found["slates"] = (
            f"{len(sizes):,} of {int(sizes.min())} to {int(sizes.max())} items (median {int(np.median(sizes))}); "
            f"{taken:.1%} of what was shown was taken"
        )
        found["sessions"] = _sessions(sequences, rows)
    return found


def claimable(log: LoggedBehavior, sequences: Sequences) -> tuple[str, ...]:
    """What the log supports, in sentences."""
    said = ["what people consume next, given what they consumed before"]
    if log.has_exposures:
        said.append("how often a shown item is taken")
        if sequences.slates is not None and sequences.slates.items.shape[1] > 1:
            place = "its place in the slate and the other items there do"
            said.append(
                f"what {place if Columns.position in log.interactions else 'the other items of a slate do'} to it"
            )
    if log.times is Times.behavioural and not log.has_exposures:
        said.append("the order and rhythm of consumption")
    if log.times is Times.behavioural and _comes_again(sequences):
        said.append("boredom and what time passing does to it")
    slates = sequences.slates
    if slates is not None and bool((slates.left == 1).any()):
        said.append("when people leave a session")
    if slates is not None and slates.days_away is not None and bool(np.isfinite(slates.days_away).any()):
        said.append("after how many days they come back")
    said += [f"{signal.name}, an answer" for signal in log.signals[1:]]
    if Columns.policy in log.interactions and log.interactions[Columns.policy].nunique() > 1:
        said.append("whether simulated users would have treated each logging policy as real ones did (replay gates)")
    return tuple(said)


def _comes_again(sequences: Sequences) -> bool:
    """True where half of the users were shown two slates or more."""
    slates = sequences.slates
    return slates is not None and float(np.median(np.diff(slates.offsets))) >= 2


def signal_in_words(signal: Signal) -> str:
    """A signal as a reader understands it.

    >>> signal_in_words(Signal("rating", "ordinal", levels=(1, 2, 3), given_on="consume"))
    'rating (ordinal 1 to 3, given on consume)'
    """
    low, high = signal.bounds
    kind = "binary" if signal.kind == "binary" else f"{signal.kind} {low:g} to {high:g}"
    given = f", given on {signal.given_on}" if signal.given_on else ""
    return f"{signal.name} ({kind}{given}{'' if signal.good else ', bad for the user'})"


def _times(log: LoggedBehavior) -> str:
    if not log.has_times:
        return "none: the order of the file"
    seconds = log.interactions[Columns.time]
    if seconds.max() < 1e8:
        span = f"{seconds.min():g} to {seconds.max():g} seconds from an unknown start"
    else:
        first, last = (pd.Timestamp(value, unit="s", tz="UTC") for value in (seconds.min(), seconds.max()))
        span = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    meaning = "times of behaviour" if log.times is Times.behavioural else "times of typing-in: order, no rhythm"
    return f"{span}; {meaning}"


def _sessions(sequences: Sequences, rows: pd.DataFrame) -> str:
    slates = sequences.slates
    assert slates is not None
    if Columns.session not in rows:
        return "not logged: a user's slates are one session"
    owner = np.repeat(np.arange(len(slates.offsets) - 1), np.diff(slates.offsets))
    _, lengths = np.unique(np.stack([owner, slates.session]), axis=1, return_counts=True)
    ends = "why they ended is not logged"
    if Columns.session_end in rows:
        last = rows.drop_duplicates([Columns.user, Columns.session], keep="last")[Columns.session_end]
        counts = last.value_counts()
        ends = ", ".join(f"{int(counts.get(str(end), 0)):,} {end}" for end in SessionEnd)
    span = f"{int(lengths.min())} to {int(lengths.max())} slates (median {int(np.median(lengths))})"
    return f"{len(lengths):,} of {span}; {ends}"


def _propensities(rows: pd.DataFrame) -> str:
    if Columns.propensity not in rows:
        return "not logged"
    known = rows[Columns.propensity].dropna()
    if not len(known):
        return "none is known"
    return f"known for {len(known) / len(rows):.0%} of the rows, {known.min():.2g} to {known.max():.2g}"


def _shares(cells: pd.Series) -> str:
    shares = cells.value_counts(normalize=True)
    said = [f"{name} {share:.0%}" for name, share in shares.head(5).items()]
    return ", ".join(said) + (f" and {len(shares) - 5} more" if len(shares) > 5 else "")


def _first_users(log: LoggedBehavior) -> list[str]:
    """The first rows of the first users: what was shown, and what was answered."""
    lines = []
    names = list(dict.fromkeys(log.interactions[Columns.user].head(1000)))[:FIRST_USERS]
    for name in names:
        rows = log.interactions[log.interactions[Columns.user] == name]
        rows = rows.sort_values(Columns.time, kind="stable") if log.has_times else rows
        told = "; ".join(_in_words(log, record) for record in rows.head(LAST_ROWS).to_dict("records"))
        more = f"; and {len(rows) - LAST_ROWS} rows more" if len(rows) > LAST_ROWS else ""
        lines.append(f"{name}: {told}{more}")
    return lines


def _in_words(log: LoggedBehavior, row: dict[Hashable, Any]) -> str:
    title = str(log.items.at[row[Columns.item], Columns.title])
    if row[log.consumption.name] != 1:
        return f"{title} (not taken)"
    answers = [f"{s.name} {row[s.name]:g}" for s in log.signals[1:] if row[s.name] == row[s.name]]
    return f"{title} ({', '.join(answers)})" if answers else title
