"""Worlds whose users are known, so that a report can be held to what it must say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from recloop.encoders.text.encoder import HashedText
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns
from recloop.envs.logs.sequences import Sequences
from recloop.envs.simulation.rollout import Picked
from recloop.envs.truth.built_in import SoftFocus, TopicWorldConfig, _blank_world, _preferences, write_log
from recloop.envs.truth.topics import TopicUsers
from recloop.envs.truth.topics_catalogue import topic_catalogue
from recloop.envs.world.world import World

TRAIN, EVALUATE = 0, 3


@dataclass(frozen=True)
class Case:
    """A truth world with its log, its users and its logging policy."""

    world: World
    truth: TopicUsers
    focus: SoftFocus

    def pick(self, observation: Observation, carry: object, draw: Draw) -> Picked:
        """The logging policy."""
        return Picked(*self.focus(observation, self.world.slate_size, draw))


def make_case(users: int, train: int, seed: int = 0) -> Case:
    """The topic world; the first `train` users give the item rates, the others are measured on."""
    config = TopicWorldConfig(users=users, seed=seed)
    catalogue = topic_catalogue(config.topics, config.items_a_topic, seed)
    truth = TopicUsers(_preferences(config), catalogue.topic, catalogue.quality, config.rules)
    texts = HashedText(64).encode(list(catalogue.items[Columns.text]), False)
    world = _blank_world(config, catalogue, truth, texts)
    part = torch.full((users,), EVALUATE)
    part[:train] = TRAIN
    groups = torch.cat([catalogue.topic, torch.tensor([config.topics])]).unsqueeze(1)
    focus = SoftFocus(truth)
    world = replace(
        world,
        users=replace(world.users, part=part),
        catalogue=replace(world.catalogue, groups=groups, group_names=("topic",)),
        sequences=compile_sequences(write_log(world, focus, config))[0],
    )
    return Case(world, truth, focus)


@pytest.fixture(scope="session")
def small() -> Case:
    """120 users, 80 of them measured on."""
    return make_case(120, 40)


@pytest.fixture(scope="session")
def large() -> Case:
    """600 users, 450 of them measured on: some 2,000 sessions."""
    return make_case(600, 150)


def spoiled(sequences: Sequences, **changes: object) -> Sequences:
    """A log with some arrays of its slates replaced."""
    assert sequences.slates is not None
    return replace(sequences, slates=replace(sequences.slates, **changes))


def all_equal(array: np.ndarray, value: float) -> np.ndarray:
    """An array like another with one value everywhere."""
    return np.full_like(array, value)
