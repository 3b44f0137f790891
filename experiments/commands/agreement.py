"""Does the order of policies hold between training users, judges and, where there is one, the truth?

    recloop agreement worlds/ml-100k --out runs/agreement
    recloop agreement worlds/mine --policies random popularity greedy policies/ppo --episodes 500

Every policy meets the same users with the same luck in each member of the training ensemble, in the judges and in the
truth. Printed and kept in `agreement.json`: Kendall's tau of the orders with an interval over users, simulated over
true value, and the claims (`comparison.claims`), counted against the truth where there is one.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.table import Table

from recloop.agents.policy import FitOptions
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.storage import write_json
from recloop.envs.evidence.gates import gate_outcomes, gated
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import Claim, ClaimCount, ClaimRules, claims_from, count, truth_sign
from recloop.experiments.comparison.intervals import Interval, ratio_interval
from recloop.experiments.comparison.policy_values import PolicyValues, simulators_of, value_policies
from recloop.experiments.comparison.ranking import tau_over_users
from recloop.experiments.output import writing
from recloop.experiments.provenance import provenance, use_threads
from recloop.experiments.report.tables import interval_text, print_claims, wide_console
from recloop.experiments.settings import at_least

FIXED_POLICIES = (
    "random",
    "popularity",
    "worst-first",
    "content",
    "last-item",
    "greedy",
    "exploring-greedy",
    "diversified-greedy",
    "sasrec",
)
"""What is ranked unless other policies are named; the truth study adds a trained RL agent."""

EXTREMES = frozenset({"random", "worst-first"})
"""Policies that any users tell from the others; taus are also given without them."""


@dataclass(frozen=True)
class Agreement:
    """How far the orders of policies agree.

    Args:
        values: what it was worked out from.
        taus: by `judges-training`, and where there is a truth `judges-truth`, `training-truth` and
            `judges-truth-without-extremes` (where two or more policies are left).
        ratios: simulated (among the judges) over true value by policy; empty without a truth.
        claims: one a pair.
        counted: of the claims.
        effects: difference among the judges over that in the truth, of each pair that does not tie in it: above 0 the
            direction is right, 1 is the whole effect; empty without a truth.
        rules: of the claims.
    """

    values: PolicyValues
    taus: Mapping[str, Interval]
    ratios: Mapping[str, Interval]
    claims: tuple[Claim, ...]
    counted: ClaimCount
    rules: ClaimRules = field(default_factory=ClaimRules)
    effects: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON: means instead of users."""
        values = self.values
        return {
            **values.facts(),
            "train": {p: _rounded(values.train[:, i].mean(1)) for i, p in enumerate(values.policies)},
            "judges": {p: _rounded(values.judges[:, i].mean(1)) for i, p in enumerate(values.policies)},
            "truth": None
            if values.truth is None
            else {p: round(float(values.truth[i].mean()), 6) for i, p in enumerate(values.policies)},
            "flagged": [p for p, flag in zip(values.policies, values.flags, strict=True) if flag],
            "brackets": {p: asdict(bracket) for p, bracket in zip(values.policies, values.brackets, strict=False)},
            "taus": {name: _interval(tau) for name, tau in self.taus.items()},
            "ratios": {name: _interval(ratio) for name, ratio in self.ratios.items()},
            "claims": [claim.as_dict() for claim in self.claims],
            "counted": asdict(self.counted),
            "effects": _rounded(self.effects),
            "rules": asdict(self.rules),
        }


def agreement_of(values: PolicyValues, rules: ClaimRules | None = None, seed: int = 0) -> Agreement:
    """Taus, ratios and claims out of the values of policies.

    Args:
        values: of every policy in every kind of users.
        rules: of the claims; default `ClaimRules()`.
        seed: of the bootstrap over users.
    """
    rules = rules or ClaimRules()
    train, judges, truth = values.train.mean(0), values.judges.mean(0), values.truth  # (P, U)
    taus = {"judges-training": tau_over_users(judges, train, seed)}
    ratios: dict[str, Interval] = {}
    if truth is not None:
        taus["judges-truth"] = tau_over_users(judges, truth, seed)
        taus["training-truth"] = tau_over_users(train, truth, seed)
        inner = [i for i, name in enumerate(values.policies) if name not in EXTREMES]
        if len(inner) > 1:
            taus["judges-truth-without-extremes"] = tau_over_users(judges[inner], truth[inner], seed)
        ratios = {name: ratio_interval(judges[i], truth[i]) for i, name in enumerate(values.policies)}
    claims = claims_from(values.evidence, rules)
    return Agreement(values, taus, ratios, claims, count(claims), rules, effects_of(values, rules))


def effects_of(values: PolicyValues, rules: ClaimRules) -> tuple[float, ...]:
    """See `Agreement.effects`: no order and no gate is asked, every pair that the truth decides is forced."""
    truth, judges = values.truth, values.judges.mean(0)
    if truth is None:
        return ()
    decided = [
        pair for pair in combinations(range(len(truth)), 2) if truth_sign(truth[pair[0]] - truth[pair[1]], rules.ties)
    ]
    return tuple(float((judges[a] - judges[b]).mean() / (truth[a] - truth[b]).mean()) for a, b in decided)


@dataclass(frozen=True)
class AgreementConfig:
    """Rank policies in the training users, the judges and the truth, and claim what every simulator bears."""

    world: tyro.conf.Positional[Path]
    """World folder."""
    policies: tuple[str, ...] = FIXED_POLICIES
    """Registered names, dotted paths module:Class, or policy folders."""
    episodes: int = 300
    """Episodes of each policy in each kind of users; at least 2."""
    start: Literal["history", "cold"] = "history"
    """Where episodes start: warm from the log, or with nothing known."""
    steps: int | None = None
    """Training budget of RL agents in environment steps; default the agent's own."""
    seed: int = 0
    """Of training and of the users' luck."""
    out: Path | None = None
    """Folder for agreement.json; nothing is written without one."""
    device: str = "cpu"
    """Torch device."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    trust: bool = False
    """Let policy folders import classes of their own."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, threads=self.threads)
        at_least(0, seed=self.seed)
        at_least(2, episodes=self.episodes)
        if len(set(self.policies)) < max(2, len(self.policies)):
            raise RecloopError(f"--policies {' '.join(self.policies)}: name two or more, each once")


def main(config: AgreementConfig) -> Agreement:
    """Make the policies, value them, print the matrix and the claims, write agreement.json."""
    use_threads(config.threads)
    checked_device(config.device)
    with writing(config.out) if config.out is not None else nullcontext():
        return _main(config)


def _main(config: AgreementConfig) -> Agreement:
    world = World.load(config.world)
    simulators_of(world)
    policies = {}
    for name in config.policies:
        steps = config.steps if facts_of(name).trains == "loop" else None
        options = FitOptions(config.seed, steps, config.device, config.progress)
        policies[name] = make_policy(name, world, options, trust=config.trust)
        if policies[name].privileged:
            raise RecloopError(f"policy '{name}' reads the users' true state; it is a bound and is not ranked")
    values = value_policies(
        world,
        policies,
        episodes=config.episodes,
        start=config.start,
        seed=config.seed,
        device=config.device,
        progress=config.progress,
    )
    names = ("train", *world.judges)
    gates = gate_outcomes(gated(world, names, seed=config.seed, device=config.device).card, names)
    agreement = agreement_of(replace(values, gates=gates), seed=config.seed)
    print_agreement(world, agreement)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        facts = {"world": world.name, "episodes": config.episodes, "start": config.start, **provenance(config.device)}
        write_json(config.out / "agreement.json", {**facts, **agreement.as_dict()})
    return agreement


def print_agreement(world: World, agreement: Agreement) -> None:
    """The matrix of values, the taus, the claims."""
    console = wide_console()
    console.print(agreement_table(world, agreement))
    for name, tau in agreement.taus.items():
        console.print(f"Kendall's tau, {name.replace('-', ' and ', 1).replace('-', ' ')}: {interval_text(tau)}")
    for gate in agreement.values.gates:
        if gate.verdict is not Verdict.passed:
            console.print(gate.sentence, soft_wrap=True)
    print_claims(agreement.claims, console)
    if agreement.values.truth is not None:
        counted, effects = agreement.counted, np.array(agreement.effects)
        tied = counted.made - counted.right - counted.opposite
        console.print(
            f"across judges {counted.made} of {counted.pairs} pairs are claimed: the truth bears out {counted.right}, "
            f"says the opposite of {counted.opposite}, ties in {tied}",
            soft_wrap=True,
        )
        if len(effects):
            console.print(
                f"of {len(effects)} pairs that the truth decides the judges have {(effects > 0).mean():.0%} the right "
                f"way round and {np.median(effects):.0%} of the difference (median)",
                soft_wrap=True,
            )


def agreement_table(world: World, agreement: Agreement) -> Table:
    """Policies in rows, best among the judges first; kinds of users in columns."""
    values = agreement.values
    users = values.train.shape[2]
    table = Table(title=f"{world.name}: return an episode, {users} users", title_justify="left")
    table.add_column("policy")
    members = [f"train {i + 1}" for i in range(len(values.train))] if len(values.train) > 1 else ["train"]
    judges = [f"judge {i + 1}" for i in range(len(values.judges))] if len(values.judges) > 1 else ["judge"]
    truth = ["truth", "judge / truth"] if values.truth is not None else []
    for name in (*members, *judges, *truth, "beyond the log"):
        table.add_column(name, justify="right")
    for place in np.argsort(-values.simulated, kind="stable"):
        name = values.policies[place]
        cells = [f"{v:.2f}" for v in (*values.train[:, place].mean(1), *values.judges[:, place].mean(1))]
        if values.truth is not None:
            cells += [f"{values.truth[place].mean():.2f}", interval_text(agreement.ratios[name])]
        table.add_row(name, *cells, "yes" if values.flags[place] else "")
    return table


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(float(number), 6) for number in numbers]


def _interval(interval: Interval) -> dict[str, float | None]:
    """JSON knows no infinity: an end that is not known is null."""
    ends = {"value": interval.mean, "low": interval.low, "high": interval.high}
    return {name: round(end, 6) if np.isfinite(end) else None for name, end in ends.items()}


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(AgreementConfig, main)
