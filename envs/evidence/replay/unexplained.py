"""What users who failed a gate do not know: which inputs explain the answers that they did not expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from recloop.envs.evidence.fidelity.lanes import LoggedLanes, logged_lanes, past_told
from recloop.envs.evidence.fidelity.replaying import at_first, draw_of, returned, teacher_forced
from recloop.envs.interaction.past import remember
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted.ensemble import EnsembleUsers
from recloop.envs.users.fitted.felt.forest import BoostConfig, grown
from recloop.envs.users.fitted.felt.labelled import Labelled, Rows
from recloop.envs.users.fitted.felt.users import FeltUsers
from recloop.envs.world.world import World

UNEXPLAINED = "unexplained"
"""Key among a card's figures, by simulator."""
_USERS, _STEPS = 400, 20
"""Most users walked along the log, and slates of each."""
_TREES = BoostConfig(rounds=60, leaves=8, least=100, shrink=20.0)
_CERTAIN = 2.5
"""Standard errors over users that a gain must lie above nothing, to be named."""


def unexplained(world: World, simulator: UserSimulator, users: np.ndarray, seed: int = 0) -> Mapping[str, float]:
    """Nats an answer by which a group of inputs betters the expected consumption, on users it was not fitted on.

    Trees are boosted on top of the users' own logits with one group of inputs at a time (Friedman 2001), on half of
    the users; the other half says what was gained. What is known already gains nothing.

    Args:
        world: with fitted users whose inputs can be read; without any the answer is empty.
        simulator: whose expectations.
        users: rows that it was not fitted on.
        seed: of the halves.

    Returns:
        The gain by group, largest first, of those whose gain is certain.
    """
    reader = _reader(world)
    if reader is None or world.sequences.slates is None:
        return {}
    some = np.random.default_rng(seed).permutation(users)[:_USERS]
    lanes = logged_lanes(world.sequences, some, _STEPS)
    if world.sequences.profile_prefix is not None and len(lanes.users):
        shape = (world.users.history.shape[1], world.users.shown.shape[1])
        before = past_told(world.sequences, lanes.users, *shape, world.consumes_twice, lanes.items[:1].size)
        lanes = replace(lanes, before=before)
    forecast = None
    if len(lanes.users) > 1:
        forecast = teacher_forced(world, simulator, lanes, np.zeros(len(world.catalogue), dtype=np.float32), seed)
    if forecast is None:
        return {}
    there = lanes.given[..., 0]
    chance = np.clip(forecast.mean[..., 0][there], 1e-4, 1 - 1e-4)
    start = np.log(chance / (1 - chance)).astype(np.float32)
    values = (lanes.answers[..., 0][there] > 0.5).astype(np.float32)
    owner = np.broadcast_to(np.arange(len(lanes.users))[:, None, None], there.shape)[there]
    learns = owner % 2 == 0
    found = {}
    for name, inputs in _inputs(world, reader, lanes).items():
        rows = Labelled(inputs[there][learns], values[learns], start=start[learns])
        held = Labelled(inputs[there][~learns], values[~learns], start=start[~learns])
        more = grown(rows, held, "binary", _TREES, seed)
        if not more.learned:
            continue
        raw, better = start[~learns], start[~learns] + more.of(held.inputs)
        gain = _loss(raw, held.values) - _loss(better, held.values)
        by_user = np.bincount(owner[~learns], weights=gain)[1::2]
        error = by_user.std() * np.sqrt(len(by_user)) / len(gain)
        if gain.mean() > _CERTAIN * error:
            found[name] = round(float(gain.mean()), 5)
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def sentence(name: str, gains: Mapping[str, float]) -> str:
    """For the card."""
    if not gains:
        return f"Replay gate, {name}: no group of inputs explains what its users did not expect."
    best = ", ".join(f"{group} ({gain:.4f})" for group, gain in list(gains.items())[:3])
    return (
        f"Replay gate, {name}: what its users did not expect depends on {best}: nats an answer that these inputs add."
    )


def _reader(world: World) -> FeltUsers | None:
    """Users of the world whose inputs can be read."""
    for users in world.simulators.values():
        for one in users.members if isinstance(users, EnsembleUsers) else (users,):
            if isinstance(one, FeltUsers):
                return one
    return None


@torch.no_grad()
def _inputs(world: World, reader: FeltUsers, lanes: LoggedLanes) -> dict[str, Rows]:
    """What was felt before every logged slate, by group of inputs, (B, T, K, n) each."""
    past, state, _ = at_first(world, reader, lanes, 0)
    found: dict[str, list[Rows]] = {}
    for step in range(lanes.held.shape[1]):
        back = lanes.begins[:, step]
        past, state = returned(
            reader, past, state, back, lanes.absence[:, step], draw_of(lanes, 0, step, reader.device)
        )
        slate = lanes.shown(step, reader.device)
        for name, part in reader.read_inputs(state, past, slate).items():
            found.setdefault(name, []).append(part.cpu().numpy())
        signals = torch.from_numpy(lanes.answers[:, step]).to(reader.device)
        taken = torch.where(signals[..., 0] > 0.5, slate, len(world.catalogue))
        past = remember(past, slate, taken, signals, len(world.catalogue))
        state = reader.observe(state, slate, signals)
    return {name: np.stack(parts, axis=1) for name, parts in found.items()}


def _loss(raw: np.ndarray, values: np.ndarray) -> np.ndarray:
    loss: np.ndarray = np.logaddexp(0, raw) - raw * values
    return loss
