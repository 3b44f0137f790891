"""Rank held-out items of a world's log by policies of any kind: NDCG, recall, coverage and the like.

    recloop rank worlds/ml-100k --policies random popularity content sasrec --k 5 10 20
    recloop rank worlds/ml-100k --policies supervised policies/ppo --split leave-one-out time --out ranking.csv
    recloop rank worlds/ml-100k --policies popularity encoder --split cold-users cold-items --cold-at-most 10

Policies are made as `recloop compare` makes them, from the train users, and rank for the evaluate users, whom they
never met; `recloop.experiments.ranking.questions` says what each split asks. This is what a log can tell: whether a
policy finds what users took of what they were offered then. What they would take of other slates, `compare` asks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from rich.table import Table

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import replacing_file
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.comparison.contenders import find_contenders, reference_of
from recloop.experiments.comparison.results import Entry
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.ranking.evaluator import FIGURES, RankedLists, Ties, interval, mean_over_seeds, rank_all
from recloop.experiments.ranking.questions import Cuts, RankingTask, SplitName, ranking_task
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings

Ranked = Mapping[tuple[str, str], Mapping[int, RankedLists]]
"""(split, policy) -> seed -> lists."""


@dataclass(frozen=True)
class RankConfig:
    """Rank held-out items of the log by every policy, for the same users."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    policies: tuple[str, ...] = ("random", "popularity", "content", "encoder", "sasrec")
    """Names, groups (`recloop policies` lists both), dotted paths module:Class, or policy folders."""
    k: tuple[int, ...] = (5, 10, 20)
    """Lengths of the lists."""
    split: tuple[SplitName, ...] = ("leave-one-out",)
    """What is asked of each evaluate user: the last item; the newest part of the log; everything, from the profile
    alone; what is cold of the newest part, among cold items."""
    held_out: float = 0.2
    """Share of a user's items, the newest, that `time` and `cold-items` ask for."""
    cold_at_most: int = 5
    """An item is cold where train users consumed it at most so often."""
    seeds: int = 1
    """Trainings of each policy that learns with randomness, and draws of ties; at least 1."""
    ties: Ties = "random"
    """Who goes first among equal scores: drawn from the seed, or the lower row, as in the loop."""
    reference: str | None = None
    """Policy that the others are compared to, user by user; default popularity, or the first."""
    out: Path | None = None
    """CSV file of all figures; nothing is written without one."""
    set: tuple[str, ...] = ()
    """Settings of policies that train, policy.name=value."""
    config: Path | None = None
    """YAML file of settings by policy."""
    steps: int | None = None
    """Environment steps of each RL training; default the agent's own."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    trust: bool = False
    """Let a policy folder import a class of its own."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, steps=self.steps, threads=self.threads)
        for k in self.k:
            at_least(1, k=k)
        for name in ("k", "split", "policies"):
            if not getattr(self, name):
                raise RecloopError(f"nothing to rank: name something after --{name}")
        if self.out is not None and self.out.is_dir():
            raise RecloopError(f"--out {self.out} is a folder; name a CSV file")
        Cuts(self.held_out, self.cold_at_most)


def main(config: RankConfig) -> pd.DataFrame:
    """Make the policies, rank, print a table for every split and k, write the CSV file; all figures as a table."""
    use_threads(config.threads)
    checked_device(config.device)
    world = World.load(config.world)
    if max(config.k) > len(world.catalogue):
        n = len(world.catalogue)
        raise RecloopError(f"--k {max(config.k)} does not fit a catalogue of {n} items; choose 1 to {n}")
    tasks = [ranking_task(world, split, Cuts(config.held_out, config.cold_at_most)) for split in config.split]
    contenders = find_contenders(config.policies, world, given_settings(config.config, config.set), config.trust)
    reference = reference_of(config.reference, contenders)
    for one in contenders:
        if one.privileged:
            raise RecloopError(f"policy '{one.label}' reads the users' true state, which no log holds; leave it out")
    found = _rank_all(world, config, tasks, contenders)
    frame = _frame(config, tasks, found, reference)
    console = wide_console()
    for task in tasks:
        for k in config.k:
            console.print(_table(task, k, {c.label: found[task.split, c.label] for c in contenders}, reference))
        console.print(f"asked: {task.told}\n", soft_wrap=True)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        cells = ([_cell(value) for value in row] for row in frame.itertuples(index=False))
        with replacing_file(config.out) as part:
            part.write_text(csv_text([frame.columns, *cells]), encoding="utf-8")
        console.print(f"written to {config.out}", soft_wrap=True)
    return frame


def _rank_all(world: World, config: RankConfig, tasks: list[RankingTask], contenders: tuple[Entry, ...]) -> Ranked:
    asked: list[tuple[str, int, Policy]] = []
    for one in progress_bar(contenders, desc="make", unit="fit", disable=not config.progress):
        facts, policy = facts_of(one.source), None
        for seed in range(config.seeds):
            if policy is None or not facts.deterministic:
                options = FitOptions(
                    seed=seed,
                    steps=config.steps if facts.trains == "loop" else None,
                    device=config.device,
                    progress=config.progress,
                    settings=one.settings,
                )
                policy = make_policy(one.source, world, options, trust=config.trust)
            asked.append((one.label, seed, policy))
    found: dict[tuple[str, str], dict[int, RankedLists]] = {}
    for task in progress_bar(tasks, desc="rank", unit="split", disable=not config.progress):
        policies = [(policy, seed) for _, seed, policy in asked]
        lists = rank_all(policies, world, task, max(config.k), ties=config.ties, device=config.device)
        for (label, seed, _), mine in zip(asked, lists, strict=True):
            found.setdefault((task.split, label), {})[seed] = mine
    return found


def _frame(config: RankConfig, tasks: list[RankingTask], found: Ranked, reference: str) -> pd.DataFrame:
    """A row a policy, split, k and seed: figures, the interval of NDCG over users, and its paired difference to the
    reference."""
    rows: list[dict[str, Any]] = []
    made = made_by()
    users: dict[str, int] = {task.split: len(task.users) for task in tasks}
    for (split, policy), by_seed in found.items():
        for k in config.k:
            for seed, lists in by_seed.items():
                ndcg = lists.by_user(k)["ndcg"]
                sure, other = interval(ndcg), found[split, reference][seed].by_user(k)["ndcg"]
                apart = interval(ndcg - other)
                rows.append(
                    {
                        "policy": policy,
                        "split": split,
                        "k": k,
                        "users": users[split],
                        **{name: lists.figures(k)[name] for name in FIGURES},
                        "ndcg_low": sure.low,
                        "ndcg_high": sure.high,
                        "reference": reference,
                        "difference": apart.mean,
                        "difference_low": apart.low,
                        "difference_high": apart.high,
                        "seed": seed,
                        **made,
                    }
                )
    return pd.DataFrame(rows)


def _table(task: RankingTask, k: int, found: Mapping[str, Mapping[int, RankedLists]], reference: str) -> Table:
    """Policies in rows, the best NDCG first."""
    seeds = len(next(iter(found.values())))
    table = Table(
        title=f"{task.split}, lists of {k}: {len(task.users)} users, {seeds} seed(s), 95 % over users",
        title_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    names = ("prec", "recall", "hit", "ndcg", f"minus {reference}", "mrr", "map", "cover", "bits", "gini")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    values = {policy: mean_over_seeds(by_seed, k, "ndcg") for policy, by_seed in found.items()}
    for policy in sorted(found, key=lambda name: -float(values[name].mean())):
        figures = pd.DataFrame([lists.figures(k) for lists in found[policy].values()]).mean()
        apart = interval(values[policy] - values[reference])
        sure = interval(values[policy])
        table.add_row(
            policy,
            *(f"{figures[name]:.3f}" for name in ("precision", "recall", "hit_rate")),
            f"{sure.mean:.3f} ± {sure.half:.3f}",
            "reference" if policy == reference else f"{apart.mean:+.3f} ± {apart.half:.3f}",
            *(f"{figures[name]:.3f}" for name in ("mrr", "map")),
            f"{figures['coverage']:.0%}",
            f"{figures['novelty']:.1f}",
            f"{figures['gini']:.2f}",
        )
    return table


def _cell(value: object) -> object:
    """A value as the table holds it; nothing where there is no number."""
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6f}"


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(RankConfig, main)
