"""What is measured of a world once its users are fitted: its log's support, patterns, fidelity and replay gates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from recloop.envs.build.card import reward_on_card
from recloop.envs.evidence.fidelity import FidelityConfig, fidelity_of, marked
from recloop.envs.evidence.gates import gate_outcomes, gated
from recloop.envs.evidence.replay.gate import held_out
from recloop.envs.evidence.replay.unexplained import UNEXPLAINED, sentence, unexplained
from recloop.envs.evidence.support.model import SupportConfig, SupportModel
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.interaction.reward import Reward
from recloop.envs.interaction.reward_terms import kept_reward
from recloop.envs.logs.sequences import Ints
from recloop.envs.world.patterns import PatternConfig, fit_patterns, item_attributes
from recloop.envs.world.world import World


def examined(
    world: World, *, seed: int = 0, device: str = "cpu", say: Callable[[str], None] = lambda line: None
) -> World:
    """The world with fidelity reports and replay gates of its training users and its judges on the card.

    Both look at users that nothing was fitted on. The gates need a log that says what was shown.
    """
    names = world.evaluation_simulators
    say("users against the log's other users")
    config = FidelityConfig(seed=seed, device=device)
    world = marked(world, *(fidelity_of(world, name, config=config) for name in names))
    if world.sequences.slates is None:
        return world
    say("logging policies replayed in the users")
    world = gated(world, names, seed=seed, device=device)
    outcomes = gate_outcomes(world.card, names)
    failed = [gate.simulator for gate in outcomes if gate.verdict is Verdict.failed]
    gains = {name: unexplained(world, world.simulators[name], held_out(world, name), seed) for name in failed}
    said = tuple(gate.sentence for gate in outcomes) + tuple(sentence(name, gains[name]) for name in failed)
    card = replace(world.card, figures={**world.card.figures, UNEXPLAINED: gains}) if failed else world.card
    return replace(world, card=replace(card, learned=(*card.learned, *said)))


def with_support(world: World, users: Ints | None = None, config: SupportConfig | None = None) -> World:
    """The world with its log's support, which its card tells of.

    Args:
        world: its sequences are the log.
        users: int64 whose steps are the log; default all but those of part `evaluate`, who are what policies meet.
        config: how it is measured.
    """
    if users is None:
        users = np.sort(np.concatenate([world.users.rows(part).numpy() for part in ("train", "judge")]))
    support = SupportModel.fit(
        world.sequences,
        users,
        world.catalogue.groups,
        world.item_vectors,
        signals=world.signals,
        reward=world.reward,
        slate_size=world.slate_size,
        columns=world.catalogue.columns,
        history=world.users.history.shape[1],
        shown=world.users.shown.shape[1],
        config=config,
    )
    card = world.card
    if support.is_empty:
        card = replace(card, not_claimed=(*card.not_claimed, support.sentence))
    else:
        card = replace(card, learned=(*card.learned, support.sentence))
    return replace(world, support=support, card=card)


def with_reward(world: World, reward: str | Sequence[str] | Mapping[str, float] | Reward) -> World:
    """The world with another reward; what logged steps were worth, which brackets read, is measured anew.

    Args:
        reward: as `recloop.envs.interaction.reward_terms.parsed_reward` takes it; it must be one a folder can keep.

    Raises:
        RecloopError: for a reward that this world does not have.
    """
    items = world.catalogue
    kept = kept_reward(reward, world.signals, items.columns, len(items))
    changed = replace(world, reward=kept, card=reward_on_card(world.card, kept))
    return changed if world.support is None else replace(changed, support=with_support(changed).support)


def with_patterns(
    world: World, config: PatternConfig | None = None, attributes: Sequence[Sequence[str]] | None = None
) -> World:
    """Any world with patterns of its train users; see `fit_patterns`. Its users' features stay as they are.

    Args:
        attributes: default what the world's own graph says of its items.
    """
    items, train = world.catalogue, world.users.rows("train").numpy()
    if attributes is None and items.entities:
        attributes = item_attributes(world.knowledge, items.entities)
    found = fit_patterns(
        world.sequences, train, world.item_vectors, items.titles, items.texts, attributes, config or PatternConfig()
    )
    if found is None:
        return replace(world, patterns=None)
    card = replace(world.card, learned=(*world.card.learned, *found.sentences()))
    return replace(world, patterns=found, card=card)
