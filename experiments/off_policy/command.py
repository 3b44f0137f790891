"""What would a policy have earned? Estimated from a log that another one wrote, or refused where the log cannot say.

    recloop off-policy ../shared/data/open-bandit/random/men --beside ../shared/data/open-bandit/bts/men --targets bts
    recloop off-policy worlds/shop --targets random policies/ppo popularity --epsilon 0.1 --out off_policy.csv
    recloop off-policy worlds/shop --targets random --unit session --horizon 2

Of a log, targets are `uniform` and the policies that it, or the log beside it, names: their probabilities are counted.
Of a world (built from a log with exposures) they are policies as `recloop compare` makes them, from the train users,
and the slates are those of its evaluate users. A value is reward a slate at the logged moments, or a session. Where
weights or overlap do not carry a value, none is printed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.table import Table

from recloop.agents.baselines.random_items import RandomPolicy
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import LogError, RecloopError, unknown_name
from recloop.encoders.base.names import csv_text
from recloop.encoders.base.storage import replacing_file
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.world.world import World
from recloop.experiments.asked import asked_world
from recloop.experiments.comparison.contenders import find_contenders
from recloop.experiments.log_options import LogOptions
from recloop.experiments.off_policy.choices import LoggedChoices, choices_of_log, choices_of_world
from recloop.experiments.off_policy.estimators import Unit
from recloop.experiments.off_policy.evaluation import DELTA, LOGGED, Estimate, OffPolicyOptions, evaluate_targets
from recloop.experiments.off_policy.targets import PlaceShares, with_estimated
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least, given_settings

UNIFORM = "uniform"
"""Every admissible item alike."""


@dataclass(frozen=True)
class OffPolicyConfig(LogOptions):
    """Evaluate policies on a log that others wrote. LOG is a log, or a world folder, whose log is read."""

    targets: tuple[str, ...] = (UNIFORM,)
    """Whom to evaluate: `uniform`; of a log, policies that it names; of a world, policies as `compare` takes them."""
    beside: Path | None = None
    """Another log of the same items, read alike: its policies can be targets, and what they earned stands beside."""
    logged: str | None = None
    """Use only what this logging policy showed; default all of LOG."""
    unit: Unit = "slate"
    """What a value is of: a slate at the logged moments, or a session."""
    horizon: int | None = None
    """Slates of a session that count, the first ones; default all."""
    reward: tuple[str, ...] = ()
    """Terms signal=weight; default the world's reward, or the consumption."""
    epsilon: float | None = None
    """Soften policies without probabilities: chance that a place shows any other item."""
    propensities: str = LOGGED
    """Of the logging policy: `logged`; `estimated`, shares of items by place; or a policy with probabilities, such as
    bc, as a model of who made the log (of a world)."""
    reference: str = LOGGED
    """Whom differences are to: `logged`, who made the log, or a target."""
    interval: Literal["bootstrap", "bernstein"] = "bootstrap"
    """Bootstrap over users; or empirical Bernstein, which clipped-ips alone allows."""
    users: str = "evaluate"
    """Part of a world's users."""
    segment: str | None = None
    """Users of a log by a feature, COLUMN=VALUE."""
    seed: int = 0
    """Of draws, resamples and trainings."""
    set: tuple[str, ...] = ()
    """Settings of policies that train, policy.name=value."""
    steps: int | None = None
    """Environment steps of each RL training; default the agent's own."""
    out: Path | None = None
    """CSV file of all rows; nothing is written without one."""
    threads: int | None = None
    """Torch threads; default OMP_NUM_THREADS, else all cores."""
    trust: bool = False
    """Let a policy folder import a class of its own."""

    def __post_init__(self) -> None:
        at_least(1, horizon=self.horizon, steps=self.steps, threads=self.threads)
        if not self.targets:
            raise RecloopError("nothing to evaluate: name something after --targets")
        if self.horizon is not None and self.unit == "slate":
            raise RecloopError(f"--horizon {self.horizon} counts slates of a session; add --unit session")
        if self.epsilon is not None and not 0 < self.epsilon < 1:
            raise RecloopError(f"--epsilon {self.epsilon:g} must lie between 0 and 1, such as 0.1")
        if self.out is not None and self.out.is_dir():
            raise RecloopError(f"--out {self.out} is a folder; name a CSV file")


def main(config: OffPolicyConfig) -> pd.DataFrame:
    """Evaluate, print the table with what was refused, write the CSV file; all rows as a table."""
    use_threads(config.threads)
    in_world = (config.log / "world.json").exists()
    log, targets, truth = _of_world(config) if in_world else _of_log(config)
    options = OffPolicyOptions(
        config.unit, config.horizon, config.epsilon, config.interval, config.reference, config.seed
    )
    found = evaluate_targets(log, targets, options)
    console, estimated = wide_console(), config.propensities != LOGGED
    unit = config.unit if config.horizon is None else f"{config.unit}, first {config.horizon} slate(s)"
    shown = f"{found[0].diagnostics.episodes:,} {config.unit}s, {len(set(log.user)):,} users"
    console.print(_table(found, truth, f"{log.name}: {shown}; reward a {unit}, 95 % over users", config.reference))
    for target in targets:
        told = next(one.diagnostics for one in found if one.target == target)
        console.print(
            f"{target}: weights worth {told.ess:.0f} of {told.episodes} episodes, mean {told.mean:.2f} +- "
            f"{told.error:.2f}, {told.matched:.0%} of the log not 0, largest user {told.largest:.1%}; "
            f"{told.unseen:.1%} of what it shows was never logged",
            soft_wrap=True,
        )
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.refused:
            reasons.setdefault(f"{one.target}: {one.verdict}", []).append(one.estimator)
    for reason, names in reasons.items():
        console.print(f"{', '.join(names)} of {reason}", soft_wrap=True)
    if estimated:
        console.print("propensities are estimated, not logged: what the log's policy knew besides is in no weight")
    frame = frame_of(found, log.name, truth, {"propensities": config.propensities, "unit": unit})
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(config.out) as part:
            part.write_text(csv_text([frame.columns, *frame.itertuples(index=False)]), encoding="utf-8")
        console.print(f"written to {config.out}", soft_wrap=True)
    return frame


def frame_of(found: list[Estimate], log: str, truth: Mapping[str, float], more: Mapping[str, Any]) -> pd.DataFrame:
    """A row an estimate; numbers as texts of six digits, nothing where there is none."""
    made = made_by()
    return pd.DataFrame(
        [
            {
                "log": log,
                "target": one.target,
                "estimator": one.estimator,
                **{name: digits(getattr(one, name)) for name in ("value", "low", "high")},
                **{name: digits(getattr(one, name)) for name in ("difference", "difference_low", "difference_high")},
                "interval": one.interval,
                "on_policy": digits(truth_of(one, found, truth)),
                "ess": f"{one.diagnostics.ess:.1f}",
                "verdict": one.verdict,
                **more,
                **made,
            }
            for one in found
        ]
    )


def truth_of(one: Estimate, found: list[Estimate], truth: Mapping[str, float]) -> float:
    """What the target earned on its own rows, where a log holds those; of a difference, less what the log earned."""
    value = truth.get(one.target, math.nan)
    return value - found[0].value if one.estimator == DELTA else value


def digits(value: float) -> str:
    """Six digits after the point, nothing for NaN.

    >>> digits(0.5), digits(float("nan"))
    ('0.500000', '')
    """
    return "" if math.isnan(value) else f"{value:.6f}"


def targets_of_logs(
    log: LoggedChoices, beside: LoggedChoices | None, names: tuple[str, ...]
) -> tuple[dict[str, Policy], dict[str, float]]:
    """Targets that logs know: `uniform`, and logging policies by the shares of items in what they showed. And what
    those earned a slate in their own rows."""
    made: dict[str, Policy] = {}
    truth: dict[str, float] = {}
    sources = [one for one in (beside, log) if one is not None and one.policies is not None]
    known = {str(name): one for one in reversed(sources) for name in set(one.policies)}  # type: ignore[arg-type]
    for name in names:
        if name == UNIFORM:
            made[name] = RandomPolicy()
        elif name in known:
            own = known[name].by(name)
            made[name], truth[name] = PlaceShares.counted(own, name), float(own.rewards.sum(1).mean())
        else:
            raise RecloopError(f"{log.name}: {unknown_name('target', name, (UNIFORM, *known))}; policies of ours need "
                               "a world, `recloop build`")  # fmt: skip
    return made, truth


def logs_together(log: LoggedBehavior, beside: LoggedBehavior) -> tuple[LoggedBehavior, LoggedBehavior]:
    """Two logs with one table of items, so that a row means the same item in both."""
    items = pd.concat([log.items, beside.items[~beside.items.index.isin(log.items.index)]])
    return replace(log, items=items), replace(beside, items=items)


def _of_log(config: OffPolicyConfig) -> tuple[LoggedChoices, dict[str, Policy], dict[str, float]]:
    log, other = _read(config), None
    if config.beside is not None:
        log, beside = logs_together(log, _read(replace(config, log=config.beside)))
        other = choices_of_log(beside, config.reward)
    whole = choices_of_log(log, config.reward, config.segment)
    made, truth = targets_of_logs(whole, other, config.targets)
    used = whole if config.logged is None else whole.by(config.logged)
    if config.propensities not in (LOGGED, "estimated"):
        raise RecloopError(
            f"--propensities {config.propensities} needs a world; of a log alone say logged or estimated"
        )
    used = with_estimated(used, seed=config.seed) if config.propensities == "estimated" else used
    return used, made, truth if config.unit == "slate" else {}


def _read(config: LogOptions) -> LoggedBehavior:
    log, report = config.read()
    for reason, count in report.repaired.items():
        if reason.startswith(Columns.propensity):
            raise LogError(
                f"{log.source or log.name}: {count} of {len(log.interactions)} rows have a {reason}; what was shown "
                "had a probability in (0, 1]: mend the log, or have them estimated (--ignore propensity --propensities "
                "estimated)"
            )
    return log


def _of_world(config: OffPolicyConfig) -> tuple[LoggedChoices, dict[str, Policy], dict[str, float]]:
    world = asked_world(World.load(config.log), config.reward)
    for name in ("beside", "segment"):
        if getattr(config, name) is not None:
            raise RecloopError(
                f"--{name} belongs to a log, and {config.log} is a world; name the log it was built from"
            )
    log = choices_of_world(world, config.users)
    log = log if config.logged is None else log.by(config.logged)
    given = given_settings(None, config.set)
    asked = tuple("random" if name == UNIFORM else name for name in config.targets)
    options = FitOptions(seed=config.seed, steps=config.steps)
    made = {}
    for one in find_contenders(asked, world, given, config.trust):
        if one.privileged:
            raise RecloopError(f"policy '{one.label}' reads the users' true state, which no log holds; leave it out")
        made[one.label] = make_policy(one.source, world, replace(options, settings=one.settings), trust=config.trust)
    if config.propensities == "estimated":
        log = with_estimated(log, seed=config.seed)
    elif config.propensities != LOGGED:
        model = make_policy(config.propensities, world, replace(options, steps=None), trust=config.trust)
        log = with_estimated(log, model, config.seed)
    return log, made, {}


def _table(found: list[Estimate], truth: Mapping[str, float], title: str, reference: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("target", no_wrap=True)
    table.add_column("estimator", no_wrap=True)
    for name in ("value", "95 %", f"minus {reference}", "on policy", "ess"):
        table.add_column(name, justify="right")
    for one in found:
        span = "" if math.isnan(one.low) else f"{one.low:.4f} to {one.high:.4f}"
        ends = "" if math.isnan(one.difference_low) else f" [{one.difference_low:+.4f}, {one.difference_high:+.4f}]"
        apart = f"{one.difference:+.4f}{ends}"
        table.add_row(
            one.target,
            one.estimator,
            "refused" if one.refused else f"{one.value:.4f}",
            span,
            "" if math.isnan(one.difference) else apart,
            "" if one.target not in truth or one.estimator == DELTA else f"{truth[one.target]:.4f}",
            f"{one.diagnostics.ess:.0f}",
        )
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(OffPolicyConfig, main)
