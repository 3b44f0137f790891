"""Hold a simulator against held-out logged users."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.fidelity.answers import Findings, next_answer_lines
from recloop.envs.evidence.fidelity.distances import session_lines
from recloop.envs.evidence.fidelity.features import Context, session_features
from recloop.envs.evidence.fidelity.lanes import STRETCH, Array, LoggedLanes, logged_lanes, past_told
from recloop.envs.evidence.fidelity.replaying import simulate, teacher_forced
from recloop.envs.evidence.fidelity.report import FidelityLine, FidelityReport
from recloop.envs.evidence.fidelity.sessions import Sessions, open_loop, whole
from recloop.envs.evidence.fidelity.two_sample import CLICKS, FEWEST, NAME, TwoSample, bag_size, two_sample_test
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.simulation.core import Core, checked_device
from recloop.envs.simulation.recording import record
from recloop.envs.simulation.rollout import Pick
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

AUC_LIMIT = 0.6
CLOSED_BETTER = ("repeats", "return_gaps")
"""Distances of the open loop that those of a closed loop take the place of. Absences that outlast a log are not in it,
so that those of its own users, drawn anew after sessions that they came back from, are longer."""
_SHRINK = 20.0
"""Showings that the mean counts as in an item's rate."""
_RIVAL = 1 << 20
"""Added to the seed of the second run of a simulator."""
_CLOSED = 2 << 20


@dataclass(frozen=True)
class FidelityConfig:
    """What is measured on.

    Args:
        users: most users; drawn by the seed where there are more.
        steps: most slates a user, from the beginning of the log.
        seed: of all draws.
        device: any torch device for the simulator.
    """

    users: int = 400
    steps: int = 60
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, value in (("users", self.users), ("steps", self.steps)):
            if value < 1:
                raise RecloopError(f"{name}={value}; it must be at least 1")


def fidelity_of(
    world: World,
    simulator: str | UserSimulator,
    rows: Sequence[int] | Tensor | None = None,
    *,
    sequences: Sequences | None = None,
    pick: Pick | None = None,
    config: FidelityConfig | None = None,
) -> FidelityReport:
    """Measure a simulator against logged users that nothing was fitted on.

    Every user starts cold, as an episode with `start="cold"` does; in a log whose users' features tell of their first
    steps (`Sequences.profile_prefix`) after these, and nothing of them is measured. Measured are the next
    answers along the log, sessions simulated on the logged slates (open loop), and, with `pick`, sessions on slates of
    the logging policy (closed loop).

    Args:
        world: its log, items and users.
        simulator: one of its simulators by name, or one of your own.
        rows: users to measure on; default the part `evaluate`.
        sequences: another log of the world's users to measure against; default the world's.
        pick: the logging policy where it is known or estimated.
        config: sizes and seed.

    Raises:
        RecloopError: an unknown simulator, no such users, a device that is not there.
    """
    config = config or FidelityConfig()
    sequences = sequences or world.sequences
    name = simulator if isinstance(simulator, str) else type(simulator).__name__
    users = world.simulator(simulator) if isinstance(simulator, str) else simulator
    users.prepare(world, checked_device(config.device))
    rng = np.random.default_rng(config.seed)
    measured = _chosen(world, rows, config, rng)
    lanes = logged_lanes(sequences, measured, config.steps)
    if sequences.profile_prefix is not None:
        h, shown = world.users.history.shape[1], world.users.shown.shape[1]
        more = lanes.items[:1].size
        lanes = replace(lanes, before=past_told(sequences, lanes.users, h, shown, world.consumes_twice, more))
    found = Findings([], [], {}, [])
    told_by: tuple[tuple[str, float], ...] = ()
    sessions = 0
    if len(lanes.users):
        others = np.setdiff1d(world.users.rows("train").numpy(), measured)
        popularity = np.append(sequences.popularity(others).astype(np.float64), 0.0)
        forecast = teacher_forced(world, users, lanes, popularity[:-1], config.seed)
        if forecast is None:
            found.unsupported.append(
                f"{name} does not say what it expects, or can neither `observe` nor `infer`: next answers not measured."
            )
        else:
            next_answer_lines(world.signals, lanes, forecast, rng, found)
        if lanes.exposures:
            sides = _open(world, users, lanes, config)
            sessions = len(sides[0])
            context = _context(world, sequences, others, lanes)
            told_by = _hold(sides, context, popularity, "open", config, rng, found)
            if pick is not None and lanes.before is not None:
                found.unsupported.append("Closed loop: not measured where users' features tell of their first slates.")
            elif pick is not None:
                found.lines = [line for line in found.lines if not line.name.startswith(CLOSED_BETTER)]
                found.curves = [curve for curve in found.curves if not curve.name.startswith(CLOSED_BETTER)]
                sides = _closed(world, users, lanes, pick, config)
                _hold(sides, context, popularity, "closed", config, rng, found)
            else:
                found.unsupported.append(
                    "The logging policy was not given: no closed loop. If it answered what users did, the open loop is "
                    "biased, in repeats most of all: the slates tell what the logged user had clicked. So are return "
                    "gaps: absences that outlast the log are not in it."
                )
            if not lanes.has_sessions:
                found.unsupported.append(
                    f"The log does not tell one session from another: stretches of {STRETCH} slates stand for them."
                )
    else:
        found.unsupported.append("None of these users has a logged slate or consumption: nothing is measured.")
    return FidelityReport(
        world=world.name,
        simulator=name,
        users=len(lanes.users),
        slates=int(lanes.held.sum()),
        sessions=sessions,
        lines=tuple(found.lines),
        unsupported=tuple(dict.fromkeys(found.unsupported)),
        told_by=told_by,
        figures=found.figures,
        curves=tuple(found.curves),
    )


def _chosen(
    world: World, rows: Sequence[int] | Tensor | None, config: FidelityConfig, rng: np.random.Generator
) -> Ints:
    chosen = world.users.rows("evaluate") if rows is None else torch.as_tensor(rows, dtype=torch.int64)
    if len(chosen) == 0:
        raise RecloopError(f"no users to measure on in world '{world.name}'; give rows of its users table")
    if int(chosen.min()) < 0 or int(chosen.max()) >= len(world.users):
        raise RecloopError(
            f"rows holds {int(chosen.min())} to {int(chosen.max())}; the users table has rows 0 to "
            f"{len(world.users) - 1}"
        )
    if len(chosen) > config.users:
        chosen = chosen[np.sort(rng.choice(len(chosen), config.users, replace=False))]
    measured: Ints = chosen.numpy().astype(np.int64)
    return measured


def _open(world: World, users: UserSimulator, lanes: LoggedLanes, config: FidelityConfig) -> tuple[Sessions, Sessions]:
    simulated = simulate(world, users, lanes, config.seed)
    rival = simulate(world, users, lanes, config.seed + _RIVAL)
    return open_loop(lanes, simulated, rival, len(world.catalogue))


def _closed(
    world: World, users: UserSimulator, lanes: LoggedLanes, pick: Pick, config: FidelityConfig
) -> tuple[Sessions, Sessions]:
    """The same users once more, under the logging policy, for as many sessions and slates as the log has."""
    core = Core(
        world,
        users,
        batch=len(lanes.users),
        slate_size=lanes.items.shape[2],
        users=lanes.users.tolist(),
        sessions=int(lanes.session.max()) + 1,
        max_steps=lanes.held.shape[1],
        start="cold",
        seed=config.seed + _CLOSED,
        device=config.device,
    )
    core.reset(users=torch.from_numpy(lanes.users))
    again, _, _ = compile_sequences(record(core, pick, world.name))
    lived = logged_lanes(again, lanes.users, lanes.held.shape[1])
    return whole(lanes, len(world.catalogue)), whole(lived, len(world.catalogue))


def _context(world: World, sequences: Sequences, others: Ints, lanes: LoggedLanes) -> Context:
    """Items' groups, and how they did among users who are not measured on."""
    n = len(world.catalogue)
    groups = world.catalogue.groups
    group = groups[:, 0].numpy() if groups.numel() else np.zeros(n + 1, dtype=np.int64)
    quality: Array = np.ones(n + 1)
    if sequences.slates is not None:
        rows = rows_of(sequences.slates.offsets, others)
        items, there = sequences.slates.items[rows], sequences.slates.given[rows][..., 0]
        shown = np.bincount(items[there], minlength=n + 1)
        consumed = np.bincount(items[there], sequences.slates.answers[rows][..., 0][there], n + 1)
        mean = max(consumed.sum(), 1.0) / max(shown.sum(), 1)
        quality = (consumed + _SHRINK * mean) / (shown + _SHRINK)
    quality[n] = 0
    return Context(world.signals, group, quality, lanes.knows_ends)


def _hold(
    sides: tuple[Sessions, Sessions],
    context: Context,
    popularity: Array,
    loop: str,
    config: FidelityConfig,
    rng: np.random.Generator,
    found: Findings,
) -> tuple[tuple[str, float], ...]:
    """Distances and the two-sample test of logged and simulated sessions; what the test was told by."""
    logged, simulated = sides
    session_lines(logged, simulated, popularity, loop, rng, found)
    fewest = min(len(logged), len(simulated))
    if fewest < FEWEST:
        found.unsupported.append(f"Two-sample test, {loop} loop: {fewest} sessions on a side, {FEWEST} are needed.")
        return ()
    if loop == "open":
        logged, simulated = (replace(side, days_away=np.full_like(side.days_away, np.nan)) for side in sides)
    first, second, names = session_features(logged, simulated, context)
    bag = bag_size(float(logged.clicks.sum()) / len(logged), fewest)
    test = two_sample_test(first, second, logged.lane, simulated.lane, names, bag, config.seed)
    found.lines.append(_two_sample_line(test, loop, test.bag * float(logged.clicks.sum()) / len(logged)))
    found.figures[f"two_sample_bag_{loop}"] = float(bag)
    return test.told_by


def _two_sample_line(test: TwoSample, loop: str, clicks: float) -> FidelityLine:
    """Failed where sessions are told; a test whose bags hold too few clicks tells nothing, whatever the users are."""
    reason = (
        f"{NAME}, {test.bag} judged together (for about {CLICKS} clicks): truth against truth stays below, and a fault "
        "such as users who know no positions lies above 0.9"
    )
    verdict = Verdict.cannot_tell
    if test.low > AUC_LIMIT:
        verdict = Verdict.failed
    elif test.high <= AUC_LIMIT and clicks >= CLICKS / 2:
        verdict = Verdict.passed
    return FidelityLine(
        "two_sample_auc", loop, test.auc, test.low, test.high, f"high <= {AUC_LIMIT:.3f}", verdict, reason
    )
