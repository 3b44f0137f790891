"""Logs that truth worlds write, under logging policies whose propensities and names are recorded."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import LoggedBehavior
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.recording import record
from recloop.envs.simulation.rollout import Picked
from recloop.envs.truth.logging_policies import KINDS, Scores, ScoringFacts
from recloop.envs.world.world import World

LogKind = Literal["narrow", "mixed", "switching"]
LOG_USERS = {"narrow": 2000, "mixed": 2000, "switching": 5000}
"""Users of each kind of log."""
POLICIES: dict[str, tuple[str, ...]] = {
    "narrow": ("random", "popularity"),
    "mixed": ("random", "popularity", "content", "last-item"),
    "switching": tuple(name for name in KINDS if name != "soft-focus"),
}
"""The logging policies of each kind of log."""
_REDRAW = {"narrow": 0.0, "mixed": 0.0, "switching": 0.7}
"""Chance that a lane's policy is drawn anew at a step."""


class LoggingPolicy:
    """Logging policies in turn: each lane is under one of several, drawn anew with a chance at every step. A `Pick`.

    Slates are drawn without repeats from the softmax of the policy's scores (Plackett-Luce by Gumbel top-k, Kool et
    al. 2019). Differences: a policy may be a mixture of scores, drawn once a slate and summed out of the propensity; a
    policy may cap how many places a topic fills, and then a full topic's items are out of the draw.

    The propensity is exact: the probability of the item in its place, given the items above it and the policy in
    force. The carry is the number of each lane's policy, int64 (B,). What policies know of the items is taken once, so
    that the very same policy can be replayed in other users of the same catalogue.

    Args:
        known: of the items.
        k: places in a slate.
        names: of the policies, keys of `KINDS`.
        redraw: chance in [0, 1] that a lane changes its policy at a step.
    """

    def __init__(self, known: ScoringFacts, k: int, names: Sequence[str], redraw: float = 0.0) -> None:
        for name in names:
            if name not in KINDS:
                raise RecloopError(unknown_name("logging policy", name, KINDS))
        self.known, self.k, self.names, self.redraw = known, k, tuple(names), redraw

    def __call__(self, observation: Observation, carry: Tensor | None, draw: Draw) -> Picked:
        """Slates for the lanes of an observation; masked items are never shown."""
        history = observation["history"]
        known = self.known.to(history.device)
        kind = (draw.uniform("logging policy") * len(self.names)).long()  # (B,)
        if carry is not None:
            kind = torch.where(draw.uniform("logging policy changes") < self.redraw, kind, carry)
        slate = history.new_zeros(len(history), self.k)
        propensity = torch.zeros(slate.shape, device=history.device)
        for number in sorted(set(kind.tolist())):
            lanes = (kind == number).nonzero()[:, 0]
            seen = {name: values[lanes] for name, values in observation.items()}
            scores = KINDS[self.names[number]](known, seen)
            slate[lanes], propensity[lanes] = _drawn(scores, known, seen["action_mask"], self.k, Draw(draw.key[lanes]))
        names = np.array(self.names)[kind.cpu().numpy()]
        return Picked(slate, propensity, names, carry=kind)


def logging_policy(world: World, kind: str, seed: int = 0) -> LoggingPolicy:
    """The logging policy of a kind of log (`narrow`, `mixed`, `switching`), or one of `KINDS` alone, by its name.

    Args:
        world: a truth world; only its catalogue, item vectors and slate size are read.
        seed: of what the policies' knowledge is blurred by; the same as the log's.
    """
    known = ScoringFacts.of(world, seed)
    if kind in KINDS:
        return LoggingPolicy(known, world.slate_size, (kind,))
    if kind not in POLICIES:
        raise RecloopError(unknown_name("log or logging policy", kind, (*POLICIES, *KINDS)))
    return LoggingPolicy(known, world.slate_size, POLICIES[kind], _REDRAW[kind])


def truth_log(world: World, kind: str, *, seed: int = 0, simulator: str = "truth") -> LoggedBehavior:
    """Every user of a truth world in one cold episode under a logging policy.

    Recorded: what was shown at which place, every signal, the propensity, the name of the policy in force, sessions
    that end `left` or `cut`, and behavioural times.

    Args:
        kind: see `logging_policy`.
        seed: of the users' luck and the policy's draws.
        simulator: who answers.
    """
    policy = logging_policy(world, kind, seed)
    users = torch.arange(len(world.users))
    core = Core(world, simulator, batch=len(users), users="all", seed=seed, start="cold")
    core.reset(users=users)
    return record(core, policy, f"{world.name}-{kind}")


def lived_world(world: World, kind: str = "mixed", *, seed: int = 0) -> World:
    """A truth world whose users have behaved: with the log of `truth_log`, their histories, and counted popularity.

    Nothing is fitted on it: whoever answers is still the truth.
    """
    sequences = compile_sequences(truth_log(world, kind, seed=seed))[0]
    users, rows = world.users, np.arange(len(world.users))
    history, feedback = sequences.last(rows, users.history.shape[1])
    shown, answers = sequences.last_slates(rows, users.shown.shape[1], world.slate_size)
    counts = torch.from_numpy(sequences.popularity(users.rows("train").numpy()))
    return replace(
        world,
        sequences=sequences,
        users=replace(users, history=history, feedback=feedback, shown=shown, answers=answers),
        catalogue=replace(world.catalogue, popularity=counts),
    )


def _drawn(scores: Scores, known: ScoringFacts, mask: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Slates (b, k) and their propensities (b, k)."""
    batch, mixed, n = scores.logits.shape
    which = (draw.uniform("mixture") * mixed).long()  # (b,)
    logits = scores.logits.masked_fill(~mask.bool().unsqueeze(1), -torch.inf)  # (b, M, N)
    items = torch.arange(n, device=logits.device).expand(batch, -1)
    noisy = logits[torch.arange(batch, device=logits.device), which] + draw.gumbel("logged slate", items)
    prior = torch.full((batch, mixed), 1.0 / mixed, device=logits.device)
    full = torch.zeros_like(noisy, dtype=torch.bool)  # (b, N) items that may no longer be drawn
    topic, held = known.topic[:-1], torch.zeros(batch, known.topics, device=logits.device)
    slate, propensity = [], []
    for _ in range(k):
        pick = noisy.masked_fill(full, -torch.inf).argmax(1)  # (b,)
        left = logits.masked_fill(full.unsqueeze(1), -torch.inf).log_softmax(2)
        chance = left.gather(2, pick.view(-1, 1, 1).expand(-1, mixed, 1))[..., 0].exp()  # (b, M)
        propensity.append((prior * chance).sum(1) / prior.sum(1))
        prior = prior * chance
        slate.append(pick)
        full = full.scatter(1, pick.unsqueeze(1), True)
        if scores.cap is not None:
            held = held + F.one_hot(topic[pick], known.topics)
            full = full | (held >= scores.cap)[:, topic]
    return torch.stack(slate, 1), torch.stack(propensity, 1)
