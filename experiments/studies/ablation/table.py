"""What the units of the ablation say together: figures, paired differences, the table that is printed and kept.

A figure is the mean over seeds, with the lowest and highest seed as `low` and `high`: a spread, no interval. A
difference is paired: by user and seed, the same questions. Its interval is a bootstrap over users, and within a user
over the seeds: how sure the difference is for other users of these trainings. What other trainings would give is seen
in the spread alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.table import Table

from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.sequences import Ints
from recloop.experiments.comparison.intervals import LEVEL, Interval, by_user
from recloop.experiments.report.results_table import keep_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.studies.ablation.scorers import COSINE, ENCODERS, LADDER, NEIGHBOURS, READS
from recloop.experiments.studies.ablation.splits import SPLITS, Floats

COLUMNS = ("data", "split", "encoder", "metric", "mean", "low", "high", "seeds", "command", "commit")
"""Columns of `encoder_ablation.csv`."""
METRICS = {"recall": "Recall@10", "ndcg": "NDCG@10"}
_DRAWS = 1000
_STEPS = (
    ("text only", "ids only"),
    ("KG only", "ids only"),
    ("text + KG", "text only"),
    ("text + KG", "KG only"),
    *((row.name, before.name) for before, row in pairwise(LADDER[3:])),
    ("full + ids", "+ fusion"),
    (READS, "+ fusion"),
)
"""What a part adds: each row beside the one with that part less."""
_DECORATION = tuple(
    (true, f"{wrong}, {how}")
    for true, wrong in (("text + KG", "text + KG"), ("+ fusion", "full"))
    for how in ("KG scrambled", "text shuffled")
)
"""A part that is no worse where it is wrong on purpose is decoration."""
_SIMPLE = tuple((row.name, simple) for row in LADDER[1:] for simple in (COSINE, NEIGHBOURS))
COMPARISONS = (*_STEPS, *_DECORATION, *_SIMPLE)
"""Pairs (encoder, what it is held against)."""


@dataclass(frozen=True)
class AblationUnit:
    """What one training of an encoder answered: by split, `users` (C,) asked about, `recall` and `ndcg` (C,)."""

    encoder: str
    seed: int
    answers: dict[str, dict[str, Floats]]


@dataclass(frozen=True)
class AblationLine:
    """A figure, or a difference where `minus` names what is taken off."""

    split: str
    encoder: str
    metric: str
    value: Interval
    seeds: int
    minus: str = ""

    @property
    def label(self) -> str:
        """The metric as the table names it.

        >>> AblationLine("all", "text + KG", "NDCG@10", Interval(0, 0, 0), 3, "MiniLM cosine (untrained)").label
        'NDCG@10 minus MiniLM cosine'
        """
        short = self.minus.removesuffix(" (untrained)").removeprefix(f"{self.encoder}, ").removeprefix("full, ")
        return f"{self.metric} minus {short}" if self.minus else self.metric


Answers = dict[tuple[str, int], dict[str, Floats]]
"""By encoder and seed: each user's mean recall and ndcg, (U,), and the users (U,), rising."""


def pool(units: Sequence[AblationUnit]) -> list[AblationLine]:
    """Every figure and difference, split by split."""
    lines: list[AblationLine] = []
    for split in (split for splits in SPLITS.values() for split in splits):
        answers: Answers = {
            (unit.encoder, unit.seed): _of_users(unit.answers[split]) for unit in units if split in unit.answers
        }
        names = [name for name in ENCODERS if any(name == encoder for encoder, _ in answers)]
        for name in names:
            lines += _figures(split, name, answers)
        weights: dict[tuple[int, ...], Floats] = {}
        for name, reference in COMPARISONS:
            if name in names and reference in names:
                lines += _differences(split, name, reference, answers, weights)
    return lines


def nested_bootstrap(users: Ints, draws: int = _DRAWS, seed: int = 0) -> Floats:
    """Weights (draws, P) of the pairs (user, seed), rows summing to 1: users drawn, then seeds within each.

    Args:
        users: int64 (P,) the user of each pair.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(users, kind="stable")
    _, starts, counts = np.unique(users[order], return_index=True, return_counts=True)
    weights = np.zeros((draws, len(users)))
    for row in weights:
        drawn = random.integers(len(starts), size=len(starts))
        size = np.repeat(counts[drawn], counts[drawn])
        rows = np.repeat(starts[drawn], counts[drawn]) + random.integers(size)
        row += np.bincount(order[rows], minlength=len(users)) / len(rows)
    return weights


def write_lines(path: Path, data: str, lines: Sequence[AblationLine], command: str, commit: str) -> None:
    """Put the rows of one log into the table; the rows of other logs stay."""
    rows: list[dict[str, object]] = []
    for line in lines:
        value = {name: f"{getattr(line.value, name):.6f}" for name in ("mean", "low", "high")}
        facts = {"split": line.split, "encoder": line.encoder, "metric": line.label, "seeds": line.seeds}
        rows.append({**facts, **value, "command": command, "commit": commit})
    keep_rows(path, COLUMNS, data, rows)


def print_lines(data: str, lines: Sequence[AblationLine]) -> None:
    """Two tables a split: figures, and what each part adds."""
    console = wide_console()
    for split in dict.fromkeys(line.split for line in lines):
        mine = [line for line in lines if line.split == split]
        console.print(_figure_table(data, split, [line for line in mine if not line.minus]))
        differences = [line for line in mine if line.minus]
        if differences:
            console.print(_difference_table(data, split, differences))


def verdict(line: AblationLine) -> str:
    """What a difference says, in words."""
    if line.value.sign:
        return "better" if line.value.sign > 0 else "worse"
    if (line.encoder, line.minus) in _STEPS:
        return "adds nothing here (interval holds 0)"
    return "not told apart (interval holds 0)"


def _of_users(answers: dict[str, Floats]) -> dict[str, Floats]:
    users = answers["users"].astype(np.int64)
    return {"users": np.unique(users), **{metric: by_user(answers[metric], users) for metric in METRICS}}


def _figures(split: str, name: str, answers: Answers) -> Iterator[AblationLine]:
    for metric, title in METRICS.items():
        means = [float(found[metric].mean()) for (encoder, _), found in answers.items() if encoder == name]
        yield AblationLine(split, name, title, Interval(float(np.mean(means)), min(means), max(means)), len(means))


def _differences(
    split: str, name: str, reference: str, answers: Answers, weights: dict[tuple[int, ...], Floats]
) -> Iterator[AblationLine]:
    """Of the seeds that both have; `weights` keeps the bootstrap's between calls."""
    seeds = tuple(seed for encoder, seed in answers if encoder == name and (reference, seed) in answers)
    if not seeds:
        return
    for seed in seeds:
        if not np.array_equal(answers[name, seed]["users"], answers[reference, seed]["users"]):
            raise RecloopError(f"'{name}' and '{reference}', seed {seed}, were asked about other users; run --fresh")
    users = np.concatenate([answers[name, seed]["users"] for seed in seeds]).astype(np.int64)
    if seeds not in weights:
        weights[seeds] = nested_bootstrap(users)
    for metric, title in METRICS.items():
        paired = np.concatenate([answers[name, seed][metric] - answers[reference, seed][metric] for seed in seeds])
        low, high = np.quantile(weights[seeds] @ paired, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        value = Interval(float(paired.mean()), float(low), float(high))
        yield AblationLine(split, name, title, value, len(seeds), reference)


def _figure_table(data: str, split: str, lines: Sequence[AblationLine]) -> Table:
    seeds = max(line.seeds for line in lines)
    table = Table(title=f"{data}, {split}: mean of {seeds} seed(s) [lowest, highest]", title_justify="left")
    table.add_column("encoder")
    for title in METRICS.values():
        table.add_column(title, justify="right")
    for name in dict.fromkeys(line.encoder for line in lines):
        found = {line.metric: f"{line.value}" for line in lines if line.encoder == name}
        table.add_row(name, *(found[title] for title in METRICS.values()))
    return table


def _difference_table(data: str, split: str, lines: Sequence[AblationLine]) -> Table:
    title = f"{data}, {split}: paired differences, 95 % over users; the verdict is on Recall@10"
    table = Table(title=title, title_justify="left")
    for name in ("encoder", "minus"):
        table.add_column(name)
    for name in METRICS.values():
        table.add_column(name, justify="right")
    table.add_column("what it says")
    for pair in dict.fromkeys((line.encoder, line.minus) for line in lines):
        found = {line.metric: line for line in lines if (line.encoder, line.minus) == pair}
        figures = (str(found[metric].value) for metric in METRICS.values())
        table.add_row(*pair, *figures, verdict(found[METRICS["recall"]]))
    return table
