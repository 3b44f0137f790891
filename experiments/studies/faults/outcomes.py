"""How faults ended: counted within a time, what is wrong told, and kept as a table."""

import csv
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.experiments.provenance import made_by

REFUSED, HARMLESS, WRONG = "refused", "harmless", "wrong"
"""Said in one line or made anew; of no effect; a traceback, another result without a word, or something left."""
COLUMNS = ("what", "tried", REFUSED, HARMLESS, WRONG, "command", "commit")


@dataclass(frozen=True)
class Ending:
    """What became of one fault.

    Args:
        kind: `REFUSED`, `HARMLESS` or `WRONG`.
        why: of what is wrong, in a line.
    """

    kind: str
    why: str = ""


def wrong(why: str) -> Ending:
    """An outcome that must not be."""
    return Ending(WRONG, why)


@dataclass(frozen=True)
class Trial:
    """Faults of one kind.

    Args:
        what: its row.
        outcomes: what became of each, for as long as one asks.
        most: how many to ask for.
        each: seconds that one takes, about.
    """

    what: str
    outcomes: Iterable[Ending]
    most: int
    each: float

    @property
    def seconds(self) -> float:
        """That all take, about."""
        return self.most * self.each


def counted(trials: Sequence[Trial], seconds: float) -> dict[str, Counter[str]]:
    """Outcomes by row, of all trials within a time; of rows that were tried alone. Prints counts, and why what is wrong
    is."""
    end, found = time.monotonic() + seconds, dict[str, Counter[str]]()
    for number, trial in enumerate(trials):
        now, counts = time.monotonic(), Counter[str]()
        limit = now + (end - now) * trial.seconds / max(sum(one.seconds for one in trials[number:]), 1e-9)
        for outcome in islice(trial.outcomes, trial.most):
            counts[outcome.kind] += 1
            if outcome.kind == WRONG:
                print(f"wrong: {trial.what}: {outcome.why}", flush=True)
            if time.monotonic() > limit:
                break
        if counts:
            found[trial.what] = counts
            told = (f"{kind} {counts[kind]:>5}" for kind in COLUMNS[2:5])
            print(f"{trial.what:<40} tried {counts.total():>5}", *told, flush=True)
    return found


def write_table(path: Path, found: dict[str, Counter[str]]) -> None:
    """What was tried, a row each; rows of what was not tried now stay as they were."""
    rows: dict[str, dict[str, object]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows = {row["what"]: {**row} for row in csv.DictReader(file)}
    for what, counts in found.items():
        told = {"what": what, "tried": counts.total(), **{kind: counts[kind] for kind in COLUMNS[2:5]}}
        rows[what] = {**told, **made_by()}
    lines = [COLUMNS, *([row[column] for column in COLUMNS] for row in rows.values())]
    with replacing_file(path) as part:
        part.write_text(csv_text(lines), encoding="utf-8")
