"""What hearing users is worth: words against no words, words that change their meaning, and questions.

recloop instructions clicks
recloop instructions worlds/ml-100k --base sasrec --parts words drift
recloop instructions clicks boredom worlds/ml-100k --seeds 3 --out experiments/results/instructions.csv

Every policy meets the same users with the same wishes, luck and words; all but `instructed` have one base policy, so
that they differ in what they hear. `words`: the deaf policy, one that reads takes and ratings alone, the state and the
words weighed as they are (`instructed`), and `instruction-tuned`; in a truth world also greedy on the truth with the
wish known. `drift`: half of the wishes are said in each other's words from one round to the next and alone come up; the
head as it was fitted, re-tuned (also with replay and with a penalty), and everything re-tuned. Then the other half is
asked for again. `questions`: few wishes are said unasked, and 0 to 5 questions may be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import tyro

from recloop.agents.acting import picked_by
from recloop.agents.instructed.policy import InstructionTuned
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import make_policy, save_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.text.encoder import TextEncoder, TextVectors
from recloop.envs.build.speaking import speaking_world
from recloop.envs.simulation.rollout import rollout
from recloop.envs.users.speaking.users import SpeakingUsers, Speech
from recloop.envs.world.world import World
from recloop.experiments.asked import named_world
from recloop.experiments.comparison.evaluate import Evaluator, Floats
from recloop.experiments.comparison.intervals import by_user, ratio_interval, t_interval
from recloop.experiments.policy_table import Row, cells, keep_policy_rows, print_rows
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.settings import at_least

Part = Literal["words", "drift", "questions"]

REFERENCE = "deaf"
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: {"listens": False, "feels": False},
    "takes and ratings": {"listens": False},
    "words": {"feels": False},
    "words, takes and ratings": {},
    "the same, head re-tuned": {"tunes": "head"},
}
"""Settings of `instruction-tuned` by what it hears."""
RETUNED: dict[str, dict[str, Any]] = {
    "head as fitted": {},
    "head re-tuned": {"tunes": "head"},
    "head re-tuned, replay": {"tunes": "head", "keeps": "replay"},
    "head re-tuned, ewc": {"tunes": "head", "keeps": "ewc", "keeping": 10.0},
    "everything re-tuned": {"tunes": "all"},
}
"""Settings by what is re-tuned under a drift of wording."""
_STREAM = 0x696E7374
_SILENT = 0.1
"""Share of wishes said unasked where questions are measured."""


@dataclass(frozen=True)
class InstructionsConfig:
    """Measure what hearing users is worth."""

    worlds: tyro.conf.Positional[tuple[str, ...]]
    """World folders, or truth worlds by name."""
    parts: tuple[Part, ...] = ("words", "drift", "questions")
    """What is measured."""
    base: str = "popularity"
    """The policy that orders items where nobody says anything; it must score items."""
    speech: Speech = field(default_factory=Speech)
    """How strong wishes are, how they come and go, and how users answer."""
    text: str | None = None
    """Language model that reads the words in a world without an instruction encoder; default hashed words."""
    simulator: str | None = None
    """Who answers; default the first judge, in a truth world the truth."""
    episodes: int = 300
    """Episodes a policy and seed, going round the users."""
    seeds: int = 3
    """Of words, fits and luck."""
    rounds: int = 8
    """Rounds of episodes after a drift."""
    out: Path | None = None
    """CSV into which the rows are put."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds, rounds=self.rounds)
        at_least(2, episodes=self.episodes)
        if not self.worlds:
            raise RecloopError("name a world folder or a truth world, such as clicks")


def main(config: InstructionsConfig) -> list[dict[str, Any]]:
    """Measure, print, and keep the rows of each world as soon as they are known."""
    use_threads(1)
    rows = []
    for name in config.worlds:
        arenas = [Arena(name, config, seed) for seed in range(config.seeds)]
        found = [row for part in config.parts for row in _PARTS[part](arenas, config)]
        print_rows(f"{arenas[0].name}: 95 % intervals over users", found, digits=2)
        kept = cells(found, world=arenas[0].name, seeds=config.seeds, **made_by())
        keep_policy_rows(config.out, kept)
        rows += kept
    return rows


class Arena:
    """One world with one seed: users who speak, and the users everybody is evaluated on.

    Args:
        name: folder or truth world.
        config: see there.
        seed: of words, fits and luck.
    """

    def __init__(self, name: str, config: InstructionsConfig, seed: int) -> None:
        self.silent, self.config, self.seed = named_world(name), config, seed
        self.name = self.silent.name
        world = self.silent
        self.simulator = config.simulator or world.first_judge
        self.users = world.users.rows("evaluate").tolist()
        self.text: TextVectors | None = None if config.text is None else TextEncoder(config.text)
        self.world = self.speaking(config.speech)
        self.silent = replace(self.silent, instruction=self.world.instruction)  # fitted once
        self._kept = TemporaryDirectory(prefix="recloop-")
        base = make_policy(config.base, self.world, FitOptions(seed=seed))
        save_policy(base, Path(self._kept.name) / "base")  # made once, whatever is put on top of it

    def speaking(self, speech: Speech, **words: Any) -> World:
        """The world with words; what words mean and which come up may be given."""
        return speaking_world(self.silent, speech, text=self.text, seed=self.seed, **words)

    def policy(self, world: World | None = None, **settings: Any) -> InstructionTuned:
        """`instruction-tuned` with settings, on the one base; an asker learns in `world`."""
        options = FitOptions(self.seed, settings={"base": f"{self._kept.name}/base", **settings})
        made = make_policy("instruction-tuned", world or self.world, options)
        assert isinstance(made, InstructionTuned)
        return made

    def returns(self, policy: Policy, world: World | None = None) -> Floats:
        """Mean return of every user, users rising."""
        found = self.evaluator(world or self.world).run(policy, self.seed)
        return by_user(found.value, found.users)

    def evaluator(self, world: World, luck: int = 0) -> Evaluator:
        """Its lanes."""
        return Evaluator(
            world, self.simulator, episodes=self.config.episodes, users=self.users, seed=self.seed + 1_000_003 * luck
        )

    def live(self, policy: InstructionTuned, world: World, luck: int) -> tuple[InstructionTuned, Floats, float]:
        """Episodes of a policy that goes on learning: as it is afterwards, its returns, CPU ms of learning a slate."""
        arena, seconds = self.evaluator(world, luck), 0.0
        core = arena.core
        core.reset(seed=arena.seed, users=arena.users)
        value, carry, slates = torch.zeros(core.batch, dtype=torch.float64), None, 0

        def learn(now: Any, transition: Any, alive: torch.Tensor) -> Any:
            nonlocal carry, seconds
            start = time.process_time()
            carry = policy.update(now, transition, alive)
            seconds += time.process_time() - start
            return carry

        act = partial(picked_by, policy, seed=arena.seed ^ _STREAM)
        for step in rollout(core, act, learn=learn):
            value += step.transition.reward.double() * step.alive
            slates += 1
        return policy.learned(carry), by_user(value.numpy(), arena.users.numpy()), 1000 * seconds / max(slates, 1)


def words(arenas: list[Arena], config: InstructionsConfig) -> Iterator[Row]:
    """What each way of hearing earns, and by how much it differs from the deaf policy."""
    makers: dict[str, Callable[[Arena], Policy]] = {
        name: partial(lambda settings, arena: arena.policy(**settings), settings) for name, settings in VARIANTS.items()
    }
    makers["instructed"] = lambda arena: make_policy("instructed", arena.world, FitOptions(seed=arena.seed))
    if arenas[0].world.is_truth:
        makers["planner, wish known"] = lambda arena: make_policy("planner", arena.world)
    deaf: Floats | None = None
    for name in progress_bar(list(makers), desc=f"{arenas[0].name}: words", disable=not config.progress):
        found = _mean([arena.returns(makers[name](arena)) for arena in arenas])
        deaf = found if deaf is None else deaf
        yield "return", name, t_interval(found)
        if name != REFERENCE:
            yield "return, to deaf", name, t_interval(found - deaf)


def drift(arenas: list[Arena], config: InstructionsConfig) -> Iterator[Row]:
    """Returns by round before and after half of the wishes swapped words, what is left of the others, and the cost."""
    for name in progress_bar(list(RETUNED), desc=f"{arenas[0].name}: drift", disable=not config.progress):
        curve: list[list[Floats]] = []
        kept: list[tuple[Floats, Floats]] = []
        seconds = []
        for arena in arenas:
            count = len(_users(arena.world).wishes.names)
            swapped, others = torch.arange(0, count - count % 2, 2), torch.arange(1, count, 2)
            meaning = torch.arange(count)
            meaning[swapped] = swapped.roll(1)
            before = arena.speaking(config.speech, voiced=swapped)
            after = arena.speaking(config.speech, voiced=swapped, meaning=meaning)
            old = arena.speaking(config.speech, voiced=others)
            policy = arena.policy(**RETUNED[name])
            start = arena.returns(_still(policy), old)
            returns = []
            for number in range(-1, config.rounds):
                policy, value, spent = arena.live(policy, before if number < 0 else after, number + 1)
                returns.append(value)
                seconds.append(spent)
            curve.append(returns)
            kept.append((start, arena.returns(_still(policy), old)))
        for number in range(config.rounds + 1):
            yield f"return, round {number}", name, t_interval(_mean([one[number] for one in curve]))
        was, now = _mean([one for one, _ in kept]), _mean([one for _, one in kept])
        yield "old wishes, share of the return kept", name, ratio_interval(now, was)
        yield f"CPU ms of learning a slate of {config.episodes} users", name, t_interval(np.array(seconds))


def questions(arenas: list[Arena], config: InstructionsConfig) -> Iterator[Row]:
    """What 0 to 5 questions are worth where one wish in ten is said unasked."""
    quiet = replace(config.speech, spoken=_SILENT)
    makers: dict[str, dict[str, Any]] = {
        f"{many} by information gain": {"asks": "gain", "questions": many} for many in range(1, 6)
    }
    makers = {"no question": {}, **makers, **{f"{n} learned": {"asks": "learned", "questions": n} for n in (1, 5)}}
    worlds = [arena.speaking(quiet) for arena in arenas]
    none: Floats | None = None
    for name in progress_bar(list(makers), desc=f"{arenas[0].name}: questions", disable=not config.progress):
        returns = []
        for arena, world in zip(arenas, worlds, strict=True):
            returns.append(arena.returns(arena.policy(world, **makers[name]), world))
        found = _mean(returns)
        none = found if none is None else none
        yield "return, one wish in ten said", name, t_interval(found)
        if name != "no question":
            yield "return, to no question", name, t_interval(found - none)


_PARTS: dict[str, Callable[[list[Arena], InstructionsConfig], Iterator[Row]]] = {
    "words": words,
    "drift": drift,
    "questions": questions,
}


def _still(policy: InstructionTuned) -> InstructionTuned:
    """The same policy, which learns no more."""
    still = InstructionTuned(policy.base, policy.head, policy.fits, replace(policy.settings, tunes="nothing"))
    still.serving = policy.serving
    return still


def _users(world: World) -> SpeakingUsers:
    users = next(iter(world.simulators.values()))
    assert isinstance(users, SpeakingUsers)
    return users


def _mean(returns: list[Floats]) -> Floats:
    """Over seeds, by user."""
    return np.asarray(np.mean(returns, axis=0))
