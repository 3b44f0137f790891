"""The gate: each logging policy, replayed in simulated users, must earn what it earned in the log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.storage import json_like
from recloop.envs.evidence.replay.episodes import (
    LoggedEpisodes,
    Table,
    choose_episodes,
    in_both,
    joined,
    logged_episodes,
    measures,
    played_episodes,
    world_before,
)
from recloop.envs.evidence.replay.policies import EstimatedPolicies, LoggedSlates, kinds_in_force
from recloop.envs.evidence.replay.strata import Sums, next_answers
from recloop.envs.evidence.verdict import Verdict, together
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import Pick
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

EQUAL = float(stats.norm.ppf(0.95))
"""Standard errors in half of the 90 % interval that must lie inside a tolerance: two one-sided tests at 5 %."""
GATES = "gates"
"""Key of the replay gates among a card's figures, by simulator."""
Mode = Literal["closed loop", "estimated", "open loop"]
WHOLE = ("reward a slate", "slates an episode", "return an episode")
"""Measures of the whole log: where one cannot tell, the gate cannot."""
MISSING = {
    "position": "how the places of a slate differ",
    "group shown": "how they tire of what is shown often",
    "group taken": "how a taste grows or wears off with what was taken",
    "consumed before": "how those who took little differ from those who took much",
    "shown before": "what a second showing does",
    "leav": "when they leave",
    "slates an episode": "when they leave",
    ", slate": "how a session changes as it goes on",
}
"""Part of a measure -> what users do not know where it fails; the first that fits."""
FEWEST_EVENTS = 30
"""Answers of a stratum, happened or expected, below which it has no line."""
_AGAIN = 1 << 20
"""Added to the seed of each further replay."""
_WALKED = 60
"""Most slates of a user whose next answers are compared."""
MODES: dict[Mode, str] = {
    "closed loop": "the logging policies themselves act in the simulated users",
    "estimated": "each logging policy is estimated as a draw from the slates that it showed in like situations",
    "open loop": "the logged slates are shown again, because nobody says which policy chose them",
}


@dataclass(frozen=True)
class GateRules:
    """The constants of the gate.

    Args:
        tolerance: relative error that passes, where the 90 % interval of the error lies inside it.
        tolerance_estimated: the same where the policies are estimated, or the slates were chosen for the logged users:
            that error is in it, too.
        level: a larger error fails where it is beyond sampling error at this level, corrected for the number of lines.
        resamples: bootstrap draws of users.
        users: most users replayed.
        fewest: a policy that showed fewer slates than this has no line of its own.
        replays: times that every episode is replayed, with other luck, so that the simulated side adds little to the
            error.
        resolved: a part of the log is large enough to decide where the tolerance is so many standard errors of its
            line: there the truth passes in 9,999 of 10,000 draws. In a smaller part a line can fail, but not hold back.
    """

    tolerance: float = 0.1
    tolerance_estimated: float = 0.15
    level: float = 0.99
    resamples: int = 300
    users: int = 2000
    fewest: int = 200
    replays: int = 4
    resolved: float = 5.5


@dataclass(frozen=True)
class GateLine:
    """One measure of the log beside that of the simulated users.

    Args:
        measure: what.
        policy: under which logging policy; "" for all together.
        logged, simulated: its value in each.
        error: relative error, simulated / logged - 1.
        margin: half width of the error's interval over users, corrected for the number of lines: an error within it may
            be chance.
        verdict: passed, failed or cannot tell.
        reason: why.
        decides: False for a part of the log too small to tell: that it cannot tell says nothing of the users.
    """

    measure: str
    policy: str
    logged: float
    simulated: float
    error: float
    margin: float
    verdict: Verdict
    reason: str
    decides: bool = True

    @property
    def passed(self) -> bool:
        """Whether the error lies inside the tolerance, with its whole interval."""
        return self.verdict is Verdict.passed


@dataclass(frozen=True)
class GateReport:
    """How logging policies fare in simulated users.

    Args:
        simulator: which users.
        mode: how the policies were replayed.
        users: how many users' episodes.
        lines: the measures; none where the log has no exposures.
        sentence: the outcome in plain words.
    """

    simulator: str
    mode: Mode
    users: int
    lines: tuple[GateLine, ...]
    sentence: str

    @property
    def verdict(self) -> Verdict:
        """Failed where a line fails, passed where all that decide pass; else the log is too small to tell."""
        return together(line.verdict for line in self.lines if line.decides)

    @property
    def passed(self) -> bool:
        """True where every line that decides passes, and there is one."""
        return self.verdict is Verdict.passed

    @property
    def failed(self) -> tuple[GateLine, ...]:
        """The lines that fail, the worst first."""
        return self._that(Verdict.failed)

    @property
    def open(self) -> tuple[GateLine, ...]:
        """The lines that should tell and cannot, the worst first."""
        return tuple(line for line in self._that(Verdict.cannot_tell) if line.decides)

    def _that(self, verdict: Verdict) -> tuple[GateLine, ...]:
        return tuple(sorted((n for n in self.lines if n.verdict is verdict), key=lambda n: -abs(n.error)))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, None for NaN; `GateReport.of` undoes it."""
        return {**json_like(asdict(self)), "verdict": str(self.verdict)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "GateReport":
        """Undo `as_dict`."""
        known = {name: facts[name] for name in ("simulator", "mode", "users", "sentence")}
        return cls(**known, lines=tuple(map(_restored, facts["lines"])))


def _restored(line: Mapping[str, Any]) -> GateLine:
    """A line from JSON; one from before there were three outcomes that passed may just have seen too little."""
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in line.items()}
    before = Verdict.cannot_tell if known.pop("passed", False) else Verdict.failed
    return GateLine(**{**known, "verdict": Verdict(known.get("verdict", before))})


def replay_gate(
    world: World,
    simulator: str | UserSimulator,
    sequences: Sequences | None = None,
    rows: Ints | None = None,
    pick: Pick | None = None,
    *,
    rules: GateRules | None = None,
    seed: int = 1,
    device: torch.device | str = "cpu",
) -> GateReport:
    """Replay the logging policies in simulated users and hold what they earn against the log.

    Every user starts as they stood before a logged episode (a session drawn by chance, which counts as often as there
    were sessions to draw from; in worlds with several sessions an episode, all of them). Compared are the reward a
    slate and, where the log knows who left, the chance to leave, the slates of an episode and its return (both up to
    the time limit, with cut ends censored: Kaplan-Meier); where policies are given as code, also by policy and by place
    in the episode. Next answers, those before them known, are compared by policy and by stratum (`next_answers`). No
    episode begins in a `Sequences.profile_prefix`.

    Args:
        world: whose reward, items and time limits hold.
        simulator: name or users.
        sequences: the log; default the world's. Users are rows of the world's users table.
        rows: int64 users to replay; default all that these users were not fitted on: for `train` the parts `judge` and
            `evaluate`, for judges `train` and `evaluate`, for others `evaluate`.
        pick: the logging policies as code, acting closed loop. Without it they are estimated where the log says who
            showed what; else the logged slates are shown again.
        rules: the constants.
        seed: of the users' luck; not the log's own.

    Raises:
        RecloopError: none of the users has a slate in the log.
    """
    rules = rules or GateRules()
    sequences = world.sequences if sequences is None else sequences
    anyone = rows is None
    rows = held_out(world, simulator) if rows is None else rows
    name = simulator if isinstance(simulator, str) else type(simulator).__name__
    slates = sequences.slates
    if slates is None:
        sentence = "Replay gate: not run, because the log has no exposures. Nothing is known of any policy's value."
        return GateReport(name, "open loop", 0, (), sentence)
    starts = choose_episodes(
        slates, rows, rules.users, world.max_steps, world.sessions > 1, seed, sequences.profile_prefix
    )
    if len(starts.users) == 0 and sequences.profile_prefix is not None:
        sentence = "Replay gate: not run, because no session begins after what the users' features tell of."
        return GateReport(name, "open loop", 0, (), sentence)
    if len(starts.users) == 0 and anyone:
        sentence = "Replay gate: not run, because nobody whom these users were not fitted on has a slate in the log."
        return GateReport(name, "open loop", 0, (), sentence)
    if len(starts.users) == 0:
        raise RecloopError(f"none of the {len(rows)} users to replay has a slate in the log; name others")
    logged = logged_episodes(world, sequences, starts)
    steps = logged.reward.shape[1]
    names, lengths = sequences.policies, starts.limits
    mode: Mode = "closed loop"
    if pick is None and slates.policy is not None:
        mode = "estimated"
        kinds = kinds_in_force(logged.policy, steps, seed)
        shown = world.users.shown.shape[1]
        pick = EstimatedPolicies(sequences, rows, world.item_vectors, kinds, shown, seed)
    elif pick is None:
        mode, lengths = "open loop", starts.lengths
        pick = LoggedSlates(sequences, starts)
    core = Core(
        world_before(world, sequences, starts),
        simulator,
        batch=len(starts.users),
        users="all",
        slate_size=slates.items.shape[1],
        max_steps=steps,
        seed=seed,
        device=device,
    )
    parts = []
    for number in range(rules.replays):
        core.reset(seed=seed + _AGAIN * number, users=torch.from_numpy(starts.users))
        parts.append(played_episodes(core, pick, names if mode == "closed loop" else (), lengths))
    core.simulator.prepare(world, device)  # users stand again as the world's table says
    logged, played = joined([logged] * len(parts)), joined(parts)
    if mode == "open loop":
        logged, played = in_both(logged, played)
    sums = next_answers(world, core.simulator, sequences, starts.users, _WALKED, seed)
    return _report(name, mode, (logged, played), starts.weight, sums, names, rules, world.sessions == 1, seed)


def held_out(world: World, simulator: str | UserSimulator) -> Ints:
    """Rows of the users that a simulator was not fitted on, rising."""
    parts = ["evaluate"]
    if simulator == "train":
        parts.append("judge")
    elif isinstance(simulator, str) and simulator in world.judges:
        parts.append("train")
    return np.sort(np.concatenate([world.users.rows(part).numpy() for part in parts]))


def _report(
    simulator: str,
    mode: Mode,
    sides: tuple[LoggedEpisodes, LoggedEpisodes],
    weight: Table,
    sums: Sums,
    names: tuple[str, ...],
    rules: GateRules,
    single: bool,
    seed: int,
) -> GateReport:
    generator = np.random.default_rng(seed)
    users = len(weight)
    drawn = generator.multinomial(users, np.full(users, 1 / users), size=rules.resamples)
    plain = np.concatenate([np.ones((1, users)), drawn]).astype(np.float64)  # (1 + R, B)
    weights = np.tile(plain * weight, (1, len(sides[0].reward) // users))
    given = mode == "closed loop"  # what is estimated is too blunt to be told in parts
    before, after = (
        measures(side, weights, names if given else (), rules.fewest, single, parts=given) for side in sides
    )
    pairs = {key: (before[key], after[key]) for key in before if key in after}
    for key, (happened, expected, number) in sums.items():
        if max(happened.sum(), expected.sum()) >= FEWEST_EVENTS:
            many = np.maximum(plain @ number, 1e-9)
            pairs[key] = (plain @ happened / many, plain @ expected / many)
    pairs = {key: pair for key, pair in pairs.items() if abs(pair[0][0]) > 1e-9}
    z = float(stats.t.ppf(1 - (1 - rules.level) / (2 * max(len(pairs), 1)), max(users - 1, 1)))
    lines = tuple(_line(*key, *pair, z, rules, mode) for key, pair in pairs.items())
    report = GateReport(simulator, mode, users, lines, "")
    return replace(report, sentence=_sentence(report))


def _line(
    measure: str, policy: str, logged: Table, simulated: Table, z: float, rules: GateRules, mode: Mode
) -> GateLine:
    """Row 0 is the estimate, the others are bootstrap draws."""
    told = measure.startswith("next ")
    tolerance = rules.tolerance if told or mode == "closed loop" else rules.tolerance_estimated
    errors = (simulated - logged) / logged[0]  # over the log's own: few events make a ratio's draws wild
    error, spread = float(errors[0]), float(errors[1:].std())
    margin, half = z * spread, EQUAL * spread
    if abs(error) > max(tolerance, margin):
        verdict = Verdict.failed
        reason = f"off by {error:+.0%}, more than {tolerance:.0%} and the sampling error of {margin:.0%}"
    elif abs(error) + half <= tolerance:
        verdict, reason = Verdict.passed, f"within {tolerance:.0%}, its interval too"
    else:
        verdict = Verdict.cannot_tell
        reason = f"off by {error:+.0%}, give or take {half:.0%}: not known to be within {tolerance:.0%}"
    whole = not policy and measure in WHOLE
    decides = whole or verdict is Verdict.failed or rules.resolved * spread <= tolerance
    return GateLine(measure, policy, float(logged[0]), float(simulated[0]), error, margin, verdict, reason, decides)


def _sentence(report: GateReport) -> str:
    how = f"Replay gate, {report.simulator} users, {report.mode} ({MODES[report.mode]}), {report.users:,} users"
    if not report.lines:
        return f"{how}: nothing to compare, the log earned nothing."
    decide = [line for line in report.lines if line.decides]
    worst = max(decide, key=lambda line: abs(line.error))
    small = len(report.lines) - len(decide)
    parts = f"; {small} parts of the log are too small to tell" if small else ""
    if report.passed:
        return f"{how}: passed {len(decide)} lines; the largest error is {worst.error:+.0%} ({_called(worst)}){parts}."
    if not report.failed:
        first = report.open[0]
        return (
            f"{how}: CANNOT TELL in {len(report.open)} of {len(decide)} lines, none failed: the log is too small, or "
            f"the users too near the limit, to know that {_called(first)} is right ({first.reason}){parts}."
        )
    said = "; ".join(f"{_called(n)} {n.logged:.3g} in the log, {n.simulated:.3g} simulated" for n in report.failed[:3])
    return f"{how}: FAILED {len(report.failed)} of {len(decide)} lines: {said}. Missing: {_missing(report.failed)}."


def _missing(failed: Sequence[GateLine]) -> str:
    """What the users do not know, in words: the parts of the log that failed, each once, the worst first."""
    found = []
    for line in failed:
        words = next((words for sign, words in MISSING.items() if sign in line.measure), "how much is consumed at all")
        found.append(f"how they answer the slates of {line.policy}" if line.policy else words)
    return "; ".join(dict.fromkeys(found))


def _called(line: GateLine) -> str:
    return f"{line.measure} under {line.policy}" if line.policy else line.measure
