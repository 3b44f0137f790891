"""Be the user of a policy, in the terminal: say what you want, take what you like, leave when you have had enough.

recloop chat policies/instructed --world worlds/speaking
recloop chat instruction-tuned --world worlds/speaking --user 17

You sit in a user's chair, with their history. Each turn the policy shows a slate or asks a question. Answer with the
numbers of what you take ("1 3"), with what you would like in your own words, with both ("2 something funny"), with
nothing, or with "bye". Beside your answer stands what the simulated user would have taken and rated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import visible
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.past import remember
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World
from recloop.experiments.provenance import use_threads

KEYS = (*DEFAULT_KEYS, "action_mask", "instruction")
BYE = "bye"
_NUMBERS = re.compile(r"^\s*((?:\d+[\s,]*)*)")


@dataclass(frozen=True)
class ChatConfig:
    """Be the user of a policy, in the terminal."""

    policy: tyro.conf.Positional[str]
    """Policy folder, or a policy by name, which is trained first."""
    world: Path
    """World folder whose users speak; `recloop speak` makes one."""
    user: int = 0
    """Row of the users table in whose chair you sit."""
    simulator: str | None = None
    """Who answers beside you; default whom policies are evaluated with."""
    turns: int = 20
    """After which the conversation ends."""
    seed: int = 0
    """Of the simulated user's luck."""


@dataclass(frozen=True)
class Said:
    """What a person answered: places taken, what they want in words (blank: as before), and whether they go."""

    places: tuple[int, ...]
    words: str
    leaves: bool


def main(config: ChatConfig, ask: Callable[[str], str] = input, say: Callable[[str], None] = print) -> int:
    """Hold the conversation; how many items were taken."""
    use_threads(1)
    world = World.load(config.world)
    if world.instruction is None:
        raise RecloopError(
            f"the users of {config.world} do not speak; make a world whose users do with `recloop speak`"
        )
    chat = Chat(world, make_policy(config.policy, world, FitOptions(seed=config.seed)), config)
    taken = 0
    say(f"You are user {config.user} of '{world.name}'. Lately consumed: {chat.history()}")
    for _ in range(config.turns):
        slate = chat.shown()
        say("What would you like?" if not slate else "\n".join(f"{i}. {name}" for i, name in enumerate(slate, 1)))
        try:
            said = understood(ask("> "), len(slate))
        except EOFError:
            break
        if said.leaves:
            break
        for line in chat.answer(said):
            say(line)
        taken += len(said.places)
    say(f"{taken} item(s) taken")
    return taken


def understood(line: str, places: int) -> Said:
    """A line as a person types it; numbers that name no place are words.

    >>> understood("1 3 something funny", 5), understood("2001", 5)
    (Said(places=(1, 3), words='something funny', leaves=False), Said(places=(), words='2001', leaves=False))
    """
    text = " ".join(line.split())
    if text.lower() == BYE:
        return Said((), "", True)
    match = _NUMBERS.match(text)
    numbers = [int(number) for number in re.findall(r"\d+", match.group(1))] if match else []
    if not numbers or not all(1 <= number <= places for number in numbers):
        return Said((), text, False)
    assert match is not None
    return Said(tuple(dict.fromkeys(numbers)), text[match.end() :].strip(), False)


class Chat:
    """A policy, a person, and the simulated user who sits in the same chair.

    Args:
        world: whose users speak.
        policy: shows slates.
        config: which user, which simulator.
    """

    def __init__(self, world: World, policy: Policy, config: ChatConfig) -> None:
        if not 0 <= config.user < len(world.users):
            raise RecloopError(f"--user {config.user}; the world has users 0 to {len(world.users) - 1}")
        simulator = config.simulator or world.evaluation_simulators[-1]
        everyone = range(len(world.users))
        self.core = Core(world, simulator, users=everyone, keys=KEYS, seed=config.seed, max_steps=config.turns)
        self.core.reset(users=torch.tensor([config.user]))
        self.world, self.policy, self.seed = world, policy, config.seed
        assert world.instruction is not None
        self.words = torch.zeros(1, world.instruction.dim)
        self.carry: object = None
        self.slate = torch.zeros(1, self.core.slate_size, dtype=torch.int64)

    def history(self) -> str:
        """What the user consumed last, by title."""
        return ", ".join(self._titles(self.core.past.history[0, -5:])) or "nothing"

    def shown(self) -> list[str]:
        """The policy's next slate, by title; empty where it asks a question."""
        core = self.core
        draw = Draw.at(self.seed ^ 0x63686174, core.lanes, core.episode, core.past.step)
        self.slate, self.carry = self.policy.act_under(
            core.ruled, self._observation(), self.carry, core.slate_size, draw
        )
        return self._titles(self.slate[0])

    @torch.no_grad()
    def answer(self, said: Said) -> list[str]:
        """Let the person's answer count, and tell what the simulated user would have done."""
        core, encoder = self.core, self.world.instruction
        assert encoder is not None
        state, theirs = core.simulator.respond(core.state, core.past, self.slate, core.draw())
        taken = torch.zeros(1, core.slate_size, dtype=torch.bool)
        taken[0, [place - 1 for place in said.places]] = True
        signals = torch.zeros_like(theirs.signals)
        signals[..., 0] = taken.float()
        given = torch.zeros_like(theirs.given)
        given[..., 0] = self.slate < core.empty
        no = torch.zeros(1, dtype=torch.bool)
        mine = Response(signals, given, no)
        items = torch.where(taken, self.slate, core.empty)
        core.past = remember(core.past, self.slate, items, signals, core.empty, fresh=True)
        core.encoded = core.encoder.advance(core.encoded, items, signals)
        core.vector, core.state = core.encoder.vector(core.encoded), state
        if said.words:
            self.words = encoder.encode([said.words])
        learn = self.policy.learning
        if learn is not None:
            invalid, reward = (self.slate == core.empty).sum(1), taken.sum(1).float()
            after = Transition(self.slate, invalid, mine, reward, no, no, self._observation())
            self.carry = learn(self.carry, after, ~no)
        likes = self._titles(self.slate[0][theirs.signals[0, :, 0] > 0.5])
        rated = f", rated {int(theirs.rating[0])} of 5" if theirs.rating is not None and theirs.rating[0] else ""
        wish = core.simulator.meant(state)[0]
        wants = f"; wants {wish}" if wish else ""
        return [f"   (the simulated user would have taken {', '.join(likes) or 'nothing'}{rated}{wants})"]

    def _observation(self) -> Observation:
        return {**self.core.observe(), "instruction": self.words}

    def _titles(self, rows: torch.Tensor) -> list[str]:
        titles = self.world.catalogue.titles
        return [visible(titles[row]) for row in rows.tolist() if row < len(titles)]
