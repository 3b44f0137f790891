"""Does the rule for claims keep its 5 % where trainings are added until pairs are decided, and how many does it save?

    python -m recloop.experiments.studies.seeds
    python -m recloop.experiments.studies.seeds --repetitions 200 --policies 3

Returns are made up: each training of a policy has a quality of its own and each user a need of their own, both drawn
anew in every repetition. Among `ties` all policies have one mean: `any_claim` is the share of repetitions in which the
rule claims anything of a method, which is to be 0.05 at most. Else the policies stand `gap` standard deviations of a
training apart, in order: `claimed` is the share of pairs that the rule orders rightly, `wrong` of those it orders
wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from recloop.experiments.comparison.claims import Claim, ClaimRules, Evidence, Level, Witness, claims_from, claims_over
from recloop.experiments.comparison.evaluate import Floats
from recloop.experiments.comparison.intervals import looks_between
from recloop.experiments.provenance import command, commit, short_commit, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.settings import at_least

COLUMNS = (
    "seeds", "spread", "gap", "policies", "repetitions", "any_claim", "claimed", "wrong", "seeds_used", "command",
    "commit",
)  # fmt: skip
"""`seeds`: as `compare --seeds` takes them; `spread`: how trainings of a policy differ; `seeds_used`: mean a policy."""

Generator = np.random.Generator


def _collapsing(rng: Generator, shape: tuple[int, int]) -> Floats:
    """One training in ten fails badly."""
    return np.asarray(np.where(rng.random(shape) < 0.1, -3.0, 1 / 3), dtype=np.float64)


def _skewed(rng: Generator, shape: tuple[int, int]) -> Floats:
    drawn = rng.lognormal(0, 0.7, shape)
    return np.asarray((drawn - np.exp(0.245)) / np.sqrt((np.exp(0.49) - 1) * np.exp(0.49)), dtype=np.float64)


SPREADS: dict[str, Callable[[Generator, tuple[int, int]], Floats]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "skewed": _skewed,
    "collapsing": _collapsing,
    "normal, one fixed": lambda rng, shape: rng.normal(size=shape) * (np.arange(shape[1]) > 0),
    "skewed, one fixed": lambda rng, shape: _skewed(rng, shape) * (np.arange(shape[1]) > 0),
}
"""Qualities (S, P) of mean 0 and deviation 1; `one fixed`: the first policy is not trained, and always the same."""


@dataclass(frozen=True)
class SeedsConfig:
    """Let policies that tie, and policies that do not, be compared again and again."""

    gaps: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0)
    """Between one policy and the next, in deviations of a training; 0 are ties."""
    seeds: tuple[str, ...] = ("3", "10", "3:10", "10:10")
    """As `compare --seeds` takes them."""
    policies: int = 4
    """Policies of a comparison; at least 2."""
    users: int = 200
    """Users of a comparison."""
    repetitions: int = 500
    """Comparisons."""
    seed: int = 0
    """Of the draws."""
    keep: Path = Path("experiments/results/seeds.csv")
    """CSV into which the rows are put."""

    def __post_init__(self) -> None:
        at_least(2, policies=self.policies, users=self.users)
        at_least(1, repetitions=self.repetitions)


def main(config: SeedsConfig) -> list[dict[str, Any]]:
    """Measure, print and keep the rows."""
    use_threads(1)
    source = {"command": command(), "commit": short_commit(commit())}
    cases = [("normal", gap) for gap in config.gaps] + [(name, 0.0) for name in SPREADS if name != "normal"]
    rows = []
    for name, gap in cases if 0.0 in config.gaps else cases[: len(config.gaps)]:
        for seeds in config.seeds:
            row = measured(seeds, name, gap, config)
            print(", ".join(f"{column} {value}" for column, value in row.items()), flush=True)
            rows.append({**row, **source})
            replace_rows(config.keep, COLUMNS, ("seeds", "spread", "gap"), rows[-1:])
    return rows


def measured(seeds: str, spread: str, gap: float, config: SeedsConfig) -> dict[str, Any]:
    """One row, but for where it comes from."""
    rng = np.random.default_rng(config.seed)
    first, _, most = seeds.partition(":")
    looks = looks_between(int(first), int(most)) if most else ()
    names = tuple(f"policy {number}" for number in range(config.policies))
    used, claims = [], []
    for _ in range(config.repetitions):
        values = _returns(rng, int(most or first), spread, gap, config)
        fixed = spread.endswith("fixed")
        evidence = Evidence(names, Witness("train", values), written_down=True, looks=looks,
                            retrained=tuple(not (fixed and number == 0) for number in range(len(names))))  # fmt: skip
        found, number = _until_decided(evidence)
        claims.append([claim for claim in found if claim.level is Level.this_method])
        used.append(number)
    pairs = len([*combinations(names, 2)])
    right = [sum(claim.better > claim.worse for claim in made) / pairs for made in claims]
    wrong = [sum(claim.better < claim.worse for claim in made) / pairs for made in claims]
    return {
        "seeds": seeds,
        "spread": spread,
        "gap": f"{gap:g}",
        "policies": config.policies,
        "repetitions": config.repetitions,
        "any_claim": f"{np.mean([bool(made) for made in claims]):.3f}",
        "claimed": f"{np.mean(right):.3f}" if gap else "",
        "wrong": f"{np.mean(wrong):.4f}" if gap else "",
        "seeds_used": f"{np.mean(used):.2f}",
    }


def _returns(rng: Generator, seeds: int, spread: str, gap: float, config: SeedsConfig) -> Floats:
    """Returns (S, P, U): a policy's mean, its training's quality, the user's need, and what is left over."""
    p, u = config.policies, config.users
    trained = SPREADS[spread](rng, (seeds, p)) + gap * np.arange(p)
    own = rng.normal(size=(p, u)) * 3  # what a user has of one policy more than of another
    left = rng.normal(size=(seeds, p, u)) * 3
    return np.asarray(trained[..., None] + rng.normal(size=u) * 5 + own + left, dtype=np.float64)


def _until_decided(evidence: Evidence) -> tuple[tuple[Claim, ...], int]:
    """Claims, and the seeds they took: as `compare` adds them, look by look, while a pair waits for more."""
    rules = ClaimRules(margin=0.0)  # it would forbid more among returns near zero than tests do
    whole, looks, so_far = evidence.training, evidence.looks or (evidence.seeds,), []
    claims: tuple[Claim, ...] = ()
    for number in looks:
        so_far.append(claims_from(replace(evidence, training=Witness(whole.name, whole.values[:number])), rules))
        claims = claims_over(so_far)
        if not any(claim.waits for claim in claims):
            return claims, number
    return claims, looks[-1]


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(SeedsConfig, main)
