"""Off-policy estimates beside what is known: the other log of Open Bandit, Coat's random part, and written-down users.

    python -m recloop.experiments.studies.off_policy --open-bandit ../shared/data/open-bandit --coat ../shared/data/coat
    python -m recloop.experiments.studies.off_policy --worlds clicks boredom --logs 50

Of Open Bandit each policy's log says what the other would earn: its rate in its own log stands beside, as `on_policy`.
Bts has no published probabilities for items that it did not show, so as a target its shares by place are counted. Of
Coat people's own choices (published propensities, learned) say what coats dealt at random would be rated, which the
random part knows. Its rows are no slates: each of a person's 24 choices counts as one, with propensity P / 24.

Of truth worlds one long log is cut into many of other users each. The truth of a slate is exact: what the users as the
log had left them at each moment would have answered; that of a session is played, by all users.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recloop.agents.baselines.random_items import RandomPolicy
from recloop.agents.policy import Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.progress import progress_bar
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.readers.published.coat import read_coat_log
from recloop.envs.logs.readers.published.open_bandit import POLICIES, read_open_bandit_log
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.truth import truth_log, truth_world
from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import evaluate
from recloop.experiments.off_policy.choices import Floats, LoggedChoices, choices_of_log, choices_of_world, described
from recloop.experiments.off_policy.command import UNIFORM, frame_of, logs_together, targets_of_logs
from recloop.experiments.off_policy.estimators import Unit, episodes_of, mean_sums, value_of
from recloop.experiments.off_policy.evaluation import DELTA, Estimate, OffPolicyOptions, estimates_of, evaluate_targets
from recloop.experiments.off_policy.targets import Softened, Target, target_of, with_estimated
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.report.results_table import replace_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least

LOG_COLUMNS = ("log", "target", "estimator", "value", "low", "high", "on_policy", "ess", "verdict", "command", "commit")
KEY = ("world", "unit", "target", "estimator")
COLUMNS = (*KEY, "truth", "logs", "users", "rmse", "bias", "covered", "refused", "command", "commit")
HORIZON = 2
"""Slates of a session that count."""
_CHOICES = 24
"""Coats that each person of Coat chose."""


@dataclass(frozen=True)
class OffPolicyStudyConfig:
    """Hold off-policy estimates against what is known."""

    open_bandit: Path | None = None
    """Folder of Open Bandit; left out without one."""
    coat: Path | None = None
    """Folder of Coat; left out without one."""
    worlds: tuple[str, ...] = ()
    """Truth worlds whose users are `TasteUsers`, such as clicks and boredom."""
    logged: str = "soft-focus"
    """Logging policy of the truth worlds."""
    logs: int = 50
    """Logs of each truth world."""
    users: int = 600
    """Who write each of them, a session each."""
    items: int = 20
    """Of the truth worlds; slates show two."""
    tables: Path = Path("experiments/results")
    """Folder of off_policy.csv and off_policy_truth.csv; rows of the same log or world are replaced."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(2, logs=self.logs, users=self.users)


def main(config: OffPolicyStudyConfig) -> None:
    """Estimate, and keep the rows of each log or world as soon as they are known."""
    use_threads(1)
    if config.open_bandit is not None:
        for campaign in ("men", "women"):
            _open_bandit(config, config.open_bandit, campaign)
    if config.coat is not None:
        log, truth = coat_choices(config.coat)
        _keep(config, log, evaluate_targets(log, {UNIFORM: RandomPolicy()}), {UNIFORM: truth})
    for name in config.worlds:
        rows = truth_rows(name, config)
        replace_rows(config.tables / "off_policy_truth.csv", COLUMNS, KEY, rows)
        for row in rows:
            told = ", ".join(f"{name} {row[name]}" for name in ("truth", "rmse", "bias", "covered", "refused"))
            wide_console().print(f"{', '.join(str(row[name]) for name in KEY)}: {told}", soft_wrap=True)


def _open_bandit(config: OffPolicyStudyConfig, folder: Path, campaign: str) -> None:
    """Both directions, and from bts once more as if its propensities were not logged."""
    logs = [clean(read_open_bandit_log(folder, campaign=campaign, policy=name))[0] for name in POLICIES]
    found = dict(zip(POLICIES, map(choices_of_log, logs_together(*logs)), strict=True))
    for own, other in (("random", "bts"), ("bts", "random")):
        log = replace(found[own], name=f"{found[own].name}/{own}")
        names = (other, UNIFORM) if own == "bts" else (other,)
        targets, truth = targets_of_logs(log, found[other], names)
        truth[UNIFORM] = float(found["random"].rewards.mean())
        _keep(config, log, evaluate_targets(log, targets), truth)
        if own == "bts":
            guessed = replace(with_estimated(log), name=f"{log.name}, propensities estimated")
            _keep(config, guessed, evaluate_targets(guessed, {UNIFORM: RandomPolicy()}), truth)


def coat_choices(folder: Path) -> tuple[LoggedChoices, float]:
    """What people chose of Coat's shop, a row each, and the mean rating of what was dealt to them at random."""
    dealt = read_coat_log(folder, part="random").interactions["rating"].mean()
    log: LoggedBehavior = read_coat_log(folder, part="self-selected")
    users = log.users.index.get_indexer(pd.Index(log.interactions[Columns.user]))
    order = np.argsort(users, kind="stable")
    rows, users = log.interactions.iloc[order], users[order].astype(np.int64)
    n, zeros = len(log.items), np.zeros(len(rows), dtype=np.int64)
    seen = {
        "action_mask": torch.ones(1, n, dtype=torch.bool).expand(len(rows), -1),
        "first_place": torch.from_numpy(zeros),
    }
    choices = LoggedChoices(
        name="coat/self-selected",
        items=log.items.index.get_indexer(pd.Index(rows[Columns.item])).astype(np.int64)[:, None],
        rewards=rows["rating"].to_numpy(dtype=np.float64)[:, None],
        propensity=rows[Columns.propensity].to_numpy(dtype=np.float64)[:, None] / _CHOICES,
        user=users,
        session=np.arange(len(rows)),
        observation=seen,
        first=zeros,
        context=described(log.users)[users],
    )
    return choices, float(dealt)


def _keep(config: OffPolicyStudyConfig, log: LoggedChoices, found: list[Estimate], truth: Mapping[str, float]) -> None:
    frame = frame_of(found, log.name, truth, {})
    replace_rows(config.tables / "off_policy.csv", LOG_COLUMNS, LOG_COLUMNS[:3], frame.to_dict("records"))  # type: ignore
    wide_console().print(frame[list(LOG_COLUMNS[:9])].to_string(), soft_wrap=True)


def truth_rows(name: str, config: OffPolicyStudyConfig) -> list[dict[str, Any]]:
    """How far estimates are from the truth in one world, over its logs."""
    world = truth_world(name, users=config.logs * config.users, items=config.items, slate_size=2, seed=0)
    world = replace(world, sequences=compile_sequences(truth_log(world, config.logged, seed=0))[0])
    log, popular = choices_of_world(world, "all"), make_policy("popularity", world)
    policies: dict[str, Policy] = {"random": make_policy("random", world)}
    policies |= {f"popularity, epsilon {e:g}": Softened(popular, e) for e in (0.8, 0.5, 0.1)}
    targets = {label: target_of(policy, log) for label, policy in policies.items()}
    rows: list[dict[str, Any]] = []
    units: tuple[Unit, ...] = ("slate", "session")
    for unit in units:
        horizon = None if unit == "slate" else HORIZON
        own = value_of(mean_sums(episodes_of(log, None, unit, horizon)))
        values = slate_truth(world, log, targets) if unit == "slate" else session_truth(world, policies)
        options = OffPolicyOptions(unit=unit, horizon=horizon, resamples=1000)
        found = []
        for part in progress_bar(range(config.logs), desc=f"{name}, {unit}", unit="log", disable=not config.progress):
            mine = log.user // config.users == part
            some = {n: Target(n, t.chance[mine], t.drawn[:, mine]) for n, t in targets.items()}
            found += [
                one for one in estimates_of(log.part(mine), some, replace(options, seed=part)) if one.target in some
            ]
        rows += [_row(name, unit, config, key, found, values, own) for key in dict.fromkeys(_key(one) for one in found)]
    return rows


def slate_truth(world: World, log: LoggedChoices, targets: Mapping[str, Target]) -> dict[str, float]:
    """What each target's slates would have earned at the logged moments, by the users' own laws, a slate."""
    users, n = world.simulators["truth"], log.catalogue_size
    assert isinstance(users, TasteUsers)
    users.prepare(world, "cpu")
    rows = torch.arange(len(world.users))
    zeros = torch.zeros_like(rows)
    state = users.arrive(rows, Draw.at(0, rows, zeros, zeros))
    starts = np.flatnonzero(np.diff(log.session, prepend=-1))
    number = np.arange(len(log.session)) - np.repeat(starts, np.diff(np.append(starts, len(log.session))))
    total = dict.fromkeys(targets, 0.0)
    for step in range(int(number.max()) + 1):
        now = np.flatnonzero(number == step)
        who, slate = torch.from_numpy(log.user[now]), torch.full((len(rows), log.items.shape[1]), n)
        for label, target in targets.items():
            for drawn in target.drawn[:, now]:
                asked = slate.clone()
                asked[who] = torch.from_numpy(drawn)
                total[label] += float(users.expected(state, None, asked).mean[who, :, 0].sum()) / len(target.drawn)  # type: ignore
        slate[who] = torch.from_numpy(log.items[now])
        state = users.observe(state, slate, torch.zeros(*slate.shape, len(users.signals)))
    return {label: value / len(log.items) for label, value in total.items()}


def session_truth(world: World, policies: Mapping[str, Policy]) -> dict[str, float]:
    """What each policy earns in the first slates of a session of every user."""
    short, episodes = replace(world, max_steps=HORIZON), len(world.users)
    return {
        label: float(evaluate(policy, short, "truth", episodes=episodes, users="all", seed=1).value.mean())
        for label, policy in policies.items()
    }


def _key(one: Estimate) -> tuple[str, str]:
    return one.target, one.estimator


def _row(
    world: str,
    unit: Unit,
    config: OffPolicyStudyConfig,
    key: tuple[str, str],
    found: list[Estimate],
    values: Mapping[str, float],
    own: float,
) -> dict[str, Any]:
    mine = [one for one in found if _key(one) == key]
    said = [one for one in mine if not one.refused]
    truth = values[key[0]] - (own if key[1] == DELTA else 0.0)
    errors: Floats = np.array([one.value - truth for one in said])
    covered = [one.low <= truth <= one.high for one in said if not math.isnan(one.low)]
    figures = {"rmse": math.nan, "bias": math.nan, "covered": math.nan}
    if said:
        figures = {
            "rmse": float(np.sqrt((errors**2).mean())),
            "bias": float(errors.mean()),
            "covered": float(np.mean(covered)) if covered else math.nan,
        }
    return {
        **dict(zip(KEY, (world, unit if unit == "slate" else f"first {HORIZON} slates", *key), strict=True)),
        "truth": f"{truth:.4f}",
        "logs": len(mine),
        "users": config.users,
        **{name: "" if math.isnan(value) else f"{value:.4f}" for name, value in figures.items()},
        "refused": len(mine) - len(said),
        **made_by(),
    }


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(OffPolicyStudyConfig, main)
