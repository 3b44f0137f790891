"""Are the intervals of a comparison as sure as they say? Policies stay as they are, users are drawn again and again.

    python -m recloop.experiments.studies.interval_coverage
    python -m recloop.experiments.studies.interval_coverage --worlds boredom --draws 200

In a truth world every policy meets many users once: their returns are the law. From them a comparison's users are drawn
anew, with replacement, as often as asked; `covered` is the share of draws whose 95 % interval of the paired difference
to popularity holds the law's. The row `ties` holds copies of one random policy that differ in their own luck alone,
shifted so that they tie among all these users: there `covered` is the share of draws in which the rule claims nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from recloop.agents.registry import make_policy
from recloop.envs.truth.worlds import truth_world
from recloop.experiments.comparison.claims import Evidence, Witness, claims_from
from recloop.experiments.comparison.evaluate import Evaluator, Floats
from recloop.experiments.comparison.intervals import LEVEL, t_interval
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.settings import at_least

COLUMNS = ("world", "policy", "repetitions", "covered", "width_paired", "width_unpaired", "command", "commit")
"""Widths are means over the draws, in reward; unpaired: Welch's interval, as if every policy met users of its own."""

REFERENCE = "popularity"


@dataclass(frozen=True)
class CoverageConfig:
    """Draw a comparison's users again and again, and count how often its intervals hold the truth."""

    worlds: tuple[str, ...] = ("clicks", "boredom", "retention")
    """Truth worlds."""
    policies: tuple[str, ...] = ("random", "encoder", "content")
    """Policies that need no log, held against popularity."""
    users: int = 300
    """Of one comparison."""
    draws: int = 1000
    """Comparisons."""
    pool: int = 20_000
    """Users whose returns are the law."""
    copies: int = 6
    """Of the random policy, in the row `ties`."""
    seed: int = 0
    """Of the draws."""
    keep: Path = Path("experiments/results/interval_coverage.csv")
    """CSV into which the rows are put."""

    def __post_init__(self) -> None:
        at_least(2, users=self.users, pool=self.pool, copies=self.copies)
        at_least(1, draws=self.draws)


def main(config: CoverageConfig) -> list[dict[str, Any]]:
    """Measure, print and keep the rows of every world."""
    use_threads(1)
    source = made_by()
    rows = []
    for name in config.worlds:
        found = [{"world": name, **row, **source} for row in measured(name, config)]
        for row in found:
            print(f"{name} {row['policy']}: covered {row['covered']} of {config.draws} draws")
        replace_rows(config.keep, COLUMNS, ("world", "policy"), found)
        rows += found
    return rows


def measured(name: str, config: CoverageConfig) -> list[dict[str, Any]]:
    """The rows of one world, but for where they come from."""
    world = truth_world(name, users=config.pool)
    everyone = range(config.pool)
    arena = Evaluator(world, "truth", episodes=config.pool, users=everyone, seed=config.seed)

    def returns(policy: str, seed: int = 0) -> Floats:
        return arena.run(make_policy(policy, world), seed).value

    rng = np.random.default_rng(config.seed)
    draws = rng.integers(config.pool, size=(config.draws, config.users))
    reference = returns(REFERENCE)
    rows = [_row(policy, returns(policy), reference, draws) for policy in config.policies]
    ties = np.stack([returns("random", seed) for seed in range(config.copies)])
    ties += ties.mean() - ties.mean(1, keepdims=True)
    silent = [not any(claim.made for claim in claims_from(_evidence(ties[:, draw]))) for draw in draws]
    return [*rows, {"policy": "ties", "repetitions": len(draws), "covered": f"{np.mean(silent):.3f}"}]


def _row(policy: str, values: Floats, reference: Floats, draws: np.ndarray[Any, Any]) -> dict[str, Any]:
    """How one policy's paired difference to the reference fares."""
    difference = values - reference
    truth = float(difference.mean())
    intervals = [t_interval(difference[draw]) for draw in draws]
    unpaired = [_welch(values[draw], reference[draw]) for draw in draws]
    return {
        "policy": policy,
        "repetitions": len(draws),
        "covered": f"{np.mean([one.low <= truth <= one.high for one in intervals]):.3f}",
        "width_paired": f"{np.mean([2 * one.half for one in intervals]):.3f}",
        "width_unpaired": f"{np.mean(unpaired):.3f}",
    }


def _welch(a: Floats, b: Floats) -> float:
    """Width of Welch's interval of a difference of means, samples independent."""
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return float(interval.high - interval.low)


def _evidence(values: Floats) -> Evidence:
    """What a comparison in a truth world would go by: returns (P, U)."""
    names = tuple(f"copy {number}" for number in range(len(values)))
    return Evidence(names, Witness("truth", values[None]), written_down=True)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CoverageConfig, main)
