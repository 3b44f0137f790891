"""The gates of a world's users, on its card: what every claim about policies goes by."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from recloop.envs.evidence.replay.gate import GATES, GateReport, replay_gate
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.envs.simulation.rollout import Pick
from recloop.envs.world.world import Card, World

REPLAY = "replay gate"


def gated(
    world: World,
    simulators: Sequence[str],
    *,
    pick: Pick | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> World:
    """The world with a replay gate of each of these simulators on its card; what is on it already is not run again.

    Args:
        world: fitted.
        simulators: names.
        pick: the logging policies as code, where they are known.
        seed: of the users' luck.
        device: any torch device.
    """
    known = dict(world.card.figures.get(GATES, {}))
    missing = [name for name in simulators if name not in known]
    if not missing:
        return world
    for name in missing:
        known[name] = replay_gate(world, name, pick=pick, seed=seed + 1, device=device).as_dict()
    return replace(world, card=replace(world.card, figures={**world.card.figures, GATES: known}))


def gate_outcomes(card: Card, simulators: Sequence[str]) -> tuple[GateOutcome, ...]:
    """How the gates of each of these simulators ended; a gate that nobody ran cannot tell."""
    known = card.figures.get(GATES, {})
    return tuple(_outcome(name, None if name not in known else GateReport.of(known[name])) for name in simulators)


def _outcome(name: str, report: GateReport | None) -> GateOutcome:
    if report is None:
        return GateOutcome(REPLAY, name, Verdict.cannot_tell, f"Replay gate, {name}: not run.")
    return GateOutcome(REPLAY, name, report.verdict, report.sentence)
