"""Make a world whose users say what they want, from a world or a truth world.

recloop speak worlds/ml-100k --out worlds/speaking
recloop speak clicks --out worlds/clicks-speaking --speech.strength 3 --speech.spoken 0.3
recloop compare worlds/speaking --policies popularity sasrec instruction-tuned --out runs/speaking

Which wishes there are is read off the items' attributes; how strong they are, how long they last and in which words
they are said is assumed: `--speech.*`. Strength 0 is the world without words, bit for bit.
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from recloop.encoders.text.encoder import TextEncoder
from recloop.envs.build.speaking import speaking_world
from recloop.envs.users.speaking.users import SpeakingUsers, Speech
from recloop.envs.world.world import World
from recloop.experiments.asked import named_world
from recloop.experiments.output import checked_out
from recloop.experiments.settings import at_least


@dataclass(frozen=True)
class SpeakConfig:
    """Make a world whose users say what they want."""

    world: tyro.conf.Positional[str]
    """World folder, or a truth world by name."""
    out: Path
    """Folder of the world that is made."""
    speech: Speech = field(default_factory=Speech)
    """How strong wishes are, how they come and go, and how users answer."""
    text: str | None = None
    """Language model that reads the words in a world without an instruction encoder; default hashed words."""
    wishes: int = 32
    """Attributes that may be wished for at most."""
    wordings: int = 4
    """Ways to say each."""
    seed: int = 0
    """Of the words, and of the instruction encoder's fit."""

    def __post_init__(self) -> None:
        at_least(2, wishes=self.wishes)
        at_least(1, wordings=self.wordings)


def main(config: SpeakConfig) -> World:
    """Make it, save it, and print how its users speak."""
    checked_out(config.out, "world.json", "a world")
    world = speaking_world(
        named_world(config.world),
        config.speech,
        text=None if config.text is None else TextEncoder(config.text),
        most=config.wishes,
        wordings=config.wordings,
        seed=config.seed,
    )
    world.save(config.out)
    users = next(iter(world.simulators.values()))
    assert isinstance(users, SpeakingUsers)
    for name, first in zip(users.wishes.names, users.wishes.texts[:: users.wishes.wordings], strict=True):
        print(f"{name}: '{first}'")
    print(f"{config.out}: assumed is {world.card.assumed[-1]}")
    return world
