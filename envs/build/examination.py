"""What a world's users are held against before anybody believes them."""

from collections.abc import Callable
from dataclasses import replace

from recloop.envs.evidence.fidelity import FidelityConfig, fidelity_of, marked
from recloop.envs.evidence.replay import replay_gate
from recloop.envs.world.world import World

GATES = "gates"
"""Key of the replay gates among a card's figures."""


def examined(
    world: World, *, seed: int = 0, device: str = "cpu", say: Callable[[str], None] = lambda line: None
) -> World:
    """The world with fidelity reports and replay gates of its training users and its judge on the card.

    Both look at users that nothing was fitted on. The gates need a log that says what was shown.
    """
    names = [name for name in ("train", "judge") if name in world.simulators]
    say("users against the log's other users")
    config = FidelityConfig(seed=seed, device=device)
    world = marked(world, *(fidelity_of(world, name, config=config) for name in names))
    if world.sequences.slates is None:
        return world
    say("logging policies replayed in the users")
    gates = [replay_gate(world, name, seed=seed + 1, device=device) for name in names]
    card = world.card
    figures = {**card.figures, GATES: {gate.simulator: gate.as_dict() for gate in gates}}
    return replace(world, card=replace(card, learned=(*card.learned, *(g.sentence for g in gates)), figures=figures))
