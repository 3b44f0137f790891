"""One unit of the truth study: a truth writes a log, users are fitted on it, and policies are ranked by both."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import facts_of, make_policy
from recloop.encoders.base.errors import PolicyError, WorldError
from recloop.encoders.base.storage import read_json, write_json
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.evidence.fidelity import FidelityConfig, FidelityReport, fidelity_of
from recloop.envs.evidence.gates import gate_outcomes, gated
from recloop.envs.simulation.rollout import Pick
from recloop.envs.truth import LOG_USERS, logging_policy, truth_log, truth_world
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted import FitConfig
from recloop.envs.world.world import World
from recloop.experiments.commands.agreement import FIXED_POLICIES, agreement_of
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.policy_values import PolicyValues, cold_world, value_policies
from recloop.experiments.provenance import commit
from recloop.experiments.studies.sardine.users import VARIANTS, SardineUsers
from recloop.experiments.studies.sardine.world import sardine_world

_FIT, _TUNE, _JUDGE = 0.44, 0.04, 0.44
"""Shares of the users: whom policies are valued on, the rest, start cold, so that few are enough."""
CALIBRATION = "calibration_"
WORST = ("two_sample_auc", "session_length_ks")
"""Lines of which the largest over simulators and loops counts."""


@dataclass(frozen=True)
class TruthUnitConfig:
    """Sizes of a unit; two units of one config and place are the same to the bit.

    Args:
        world, log, draw: which truth, which kind of log, which draw of both.
        users: U; 0 for what the kind of log asks for.
        items: N.
        episodes: of each policy in each kind of users, from cold starts.
        dim: d, length of item and user vectors.
        state_epochs: most passes of the state encoder's fit.
        user_epochs: passes of each fit of users.
        sasrec_passes: passes of SASRec over the train users.
        rl_steps: environment steps that PPO is trained for; 0 leaves it out.
        start: whether policies are valued from cold starts, or from where the log left the users.
    """

    world: str
    log: str
    draw: int
    users: int = 0
    items: int = 200
    episodes: int = 300
    dim: int = 32
    state_epochs: int = 2
    user_epochs: int = 6
    sasrec_passes: int = 4
    rl_steps: int = 8192
    start: Literal["cold", "history"] = "cold"

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.world}-{self.log}-{self.draw}" + ("" if self.start == "cold" else "-warm")


def run_unit(config: TruthUnitConfig, worlds: Path, progress: bool = False) -> tuple[dict[str, Any], PolicyValues]:
    """Run one unit: its facts as JSON, which `TruthUnit.of` reads, and what they were worked out from.

    Args:
        config: of the unit.
        worlds: folder of fitted worlds; one of the same log, sizes and commit is fitted once for both starts.
        progress: show bars.
    """
    clock = _UnitClock()
    truth = truth_of(config)
    users = truth.simulators["truth"]
    fitted, measures = _fitted(config, truth, worlds, clock, progress)
    gates = gate_outcomes(fitted.card, ("train", *fitted.judges))
    world = cold_world(fitted) if config.start == "cold" else fitted
    policies = study_policies(config, world)
    clock.lap("policies")
    arriving = users if config.start == "cold" else _warmed(users, config.world)
    values = value_policies(
        world, policies, truth=arriving, episodes=config.episodes, seed=config.draw, progress=progress
    )
    values = replace(values, gates=gates)
    agreement = agreement_of(values, seed=config.draw)
    clock.lap("values")
    planner = planner_value(truth, world, config)
    clock.lap("planner")
    facts = {
        **{name: getattr(config, name) for name in ("world", "log", "draw")},
        "config": asdict(config),
        "commit": commit(),
        "agreement": agreement.as_dict(),
        "planner": planner,
        "fidelity": measures,
        "seconds": clock.laps,
    }
    return facts, values


def _fitted(
    config: TruthUnitConfig, truth: World, worlds: Path, clock: "_UnitClock", progress: bool
) -> tuple[World, dict[str, float | None]]:
    """Users fitted on the truth's log, their gates on the card, and their fidelity; kept, and read where it is."""
    folder = worlds / f"{config.world}-{config.log}-{config.draw}"
    kept, sizes = folder / "fidelity.json", {**asdict(config), "start": None, "commit": commit()}
    if kept.exists() and (found := read_json(kept))["sizes"] == sizes:
        return World.load(folder / "world"), found["measures"]
    log = truth_log(truth, config.log, seed=config.draw)
    clock.lap("truth")
    fitted = as_the_truth(build_world(log, build_config(config, truth), progress=progress), truth)
    clock.lap("build")
    pick = logging_policy(truth, config.log, config.draw)
    measures = fidelity_measures(fitted, truth.simulators["truth"], pick, users=config.episodes, seed=config.draw)
    clock.lap("fidelity")
    fitted = gated(fitted, ("train", *fitted.judges), pick=pick, seed=config.draw)
    clock.lap("gates")
    fitted.save(folder / "world")
    write_json(kept, {"sizes": sizes, "measures": measures})
    return fitted, measures


def truth_of(config: TruthUnitConfig) -> World:
    """The world that writes the log: one of ours, or a variant of SARDINE."""
    users = config.users or LOG_USERS[config.log]
    if config.world in VARIANTS:
        return sardine_world(config.world, users=users, seed=config.draw)
    return truth_world(config.world, users=users, items=config.items, seed=config.draw)


def _warmed(users: UserSimulator, world: str) -> UserSimulator:
    if not isinstance(users, SardineUsers):
        raise WorldError(f"the users of '{world}' cannot arrive as a log leaves them; choose start='cold'")
    return users.warmed()


def build_config(config: TruthUnitConfig, truth: World) -> BuildConfig:
    """How the log becomes a world: hashed words for text, a small encoder, nothing kept between builds."""
    users = FitConfig(epochs=config.user_epochs, patience=config.user_epochs, hidden=32, rank=8, residual=8)
    return BuildConfig(
        fit=_FIT,
        tune=_TUNE,
        judge=_JUDGE,
        judge_members=2,
        examine=False,
        slate_size=truth.slate_size,
        max_steps=truth.max_steps,
        seed=config.draw,
        encoder=EncoderConfig(
            text="hashed",
            dim=config.dim,
            segments=-1,
            topics=0,
            next_item=NextItemConfig(epochs=config.state_epochs),
        ),
        users=users,
        use_cache=False,
    )


def as_the_truth(fitted: World, truth: World) -> World:
    """The fitted world with the rules of the game that the truth goes by: rewards, sessions, time limits, repeats.

    Raises:
        WorldError: users or items of the two are not the same rows.
    """
    if fitted.catalogue.ids != truth.catalogue.ids or fitted.users.ids != truth.users.ids:
        raise WorldError(
            f"world '{fitted.name}' has other rows of users or items than the truth '{truth.name}'; build it from the "
            "truth's own log, uncleaned"
        )
    names = ("reward", "max_steps", "sessions", "max_days", "consumes_twice")
    return replace(fitted, **{name: getattr(truth, name) for name in names})


def study_policies(config: TruthUnitConfig, world: World) -> Mapping[str, Policy]:
    """The policies that are ranked, made in the fitted world alone: none of them meets the judges or the truth."""
    policies = {}
    for name in FIXED_POLICIES:
        steps = config.sasrec_passes if facts_of(name).trains == "log" else None
        policies[name] = make_policy(name, world, FitOptions(seed=config.draw, steps=steps))
    if config.rl_steps:
        settings = {"validations": 3, "validation_episodes": 64}
        options = FitOptions(seed=config.draw, steps=config.rl_steps, settings=settings)
        policies["ppo"] = make_policy("ppo", world, options)
    return policies


def planner_value(truth: World, world: World, config: TruthUnitConfig) -> float | None:
    """What the planner, who knows the truth, earns in it from the lanes of the others; None where there is none.

    It is a bound on every policy and takes part in no order.
    """
    try:
        planner = make_policy("planner", truth)
        rows = world.users.rows("evaluate").tolist()
        arena = Evaluator(truth, "truth", episodes=config.episodes, users=rows, seed=config.draw)
        return float(np.mean(arena.run(planner).value))
    except PolicyError:
        return None


class _UnitClock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def fidelity_measures(
    fitted: World, truth: UserSimulator, pick: Pick, *, users: int = 400, seed: int = 0
) -> dict[str, float | None]:
    """Measures by name: the worse of training users and judges, on users that nothing was fitted on.

    `calibration_SIGNAL` relative to its base rate; `likelihood_gain`, what the consumption's log-likelihood gains over
    the base rate, as a share of what the truth itself gains on the same answers (None where the truth gains nothing);
    `two_sample_auc` and `session_length_ks`, the larger of open and closed loop.

    Args:
        fitted: with users fitted on the log that `truth` wrote.
        truth: the users who wrote it.
        pick: the policy that it was written under.
        users: most users measured on.
        seed: of all draws.
    """
    config = FidelityConfig(users=users, seed=seed)
    names = ("train", *fitted.judges)
    reports = [fidelity_of(fitted, name, pick=pick, config=config) for name in names]
    reference = fidelity_of(fitted, truth, config=config)
    found: dict[str, float | None] = {}
    calibrations = dict.fromkeys(x.name for r in reports for x in r.lines if x.name.startswith(CALIBRATION))
    for name in (*calibrations, *WORST):
        found[name] = max(_values(reports, name), default=None)
    line = f"likelihood_gain_{fitted.signals[0].name}"
    most = _values([reference], line)
    gains = _values(reports, line)
    found["likelihood_gain"] = min(gains) / most[0] if gains and most and most[0] > 0 else None
    return found


def _values(reports: Sequence[FidelityReport], name: str) -> list[float]:
    return [line.value for report in reports for line in report.lines if line.name == name]
