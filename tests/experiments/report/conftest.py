"""Comparisons written down by hand: policies and their returns, in a world whose gates and flags are chosen."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from recloop.envs.evidence.gates import GATES
from recloop.envs.evidence.replay import GateLine, GateReport
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.results import Comparison, Entry

Returns = Mapping[str, Sequence[float]]
USERS = 40


def made_up(world: World, mean: float, luck: int, outside: float) -> Rollout:
    """Returns of 40 users about a mean; the first lane's session has two slates."""
    b, k = USERS, world.slate_size
    value = mean + np.random.default_rng(luck).normal(0, 0.3, b) if np.isfinite(mean) else np.full(b, mean)
    signals = np.zeros((2, k, len(world.signals)))
    return Rollout(
        users=np.arange(b),
        value=value,
        length=np.full(b, 2),
        left=np.zeros(b, dtype=bool),
        signals=np.zeros((b, len(world.signals))),
        invalid=np.zeros(b, dtype=np.int64),
        popularity=np.ones(b),
        diversity=np.ones(b),
        shown=np.ones(len(world.catalogue), dtype=np.int64),
        trace_history=np.arange(3),
        trace_slate=np.arange(2 * k).reshape(2, k),
        trace_signals=signals,
        trace_given=signals == 0,
        trace_state=np.zeros((len(signals), 1), dtype=np.float32),
        outside=np.full(b, outside),
        pessimistic=value,
        optimistic=value,
    )


@pytest.fixture
def made(judged: World) -> Callable[..., Comparison]:
    """`made({policy: returns by seed}, gate=, flagged=, simulators=)`: every simulator sees the same difference."""

    def make(
        values: Returns,
        gate: str = "passed",
        flagged: Sequence[str] = (),
        simulators: Sequence[str] = ("train", "judge", "judge-2"),
    ) -> Comparison:
        line = GateLine("reward a slate", "", 1.0, 1.0, 0.0, 0.1, Verdict(gate), "so it was")
        gates = {s: json.loads(json.dumps(GateReport(s, "closed loop", 9, (line,), "").as_dict())) for s in simulators}
        return Comparison(
            world=replace(judged, card=replace(judged.card, figures={GATES: gates})),
            contenders=tuple(Entry(name, name, retrained=name == "ppo") for name in values),
            seeds=tuple(range(len(next(iter(values.values()))))),
            simulators=tuple(simulators),
            reference="popularity" if "popularity" in values else next(iter(values)),
            rollouts={
                (name, seed, simulator): made_up(judged, mean + 0.1 * place, seed, float(name in flagged))
                for name, means in values.items()
                for seed, mean in enumerate(means)
                for place, simulator in enumerate(simulators)
            },
        )

    return make
