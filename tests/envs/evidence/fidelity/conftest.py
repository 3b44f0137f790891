"""Worlds whose users are known, so that a report can be held to what it must say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth import LoggingPolicy, logging_policy
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.built_in import LOGGING, BoredomWorldConfig, unlearned_world, written_log
from recloop.envs.world.world import World

TRAIN, EVALUATE = 0, 3


@dataclass(frozen=True)
class Case:
    """A truth world with its log, its users and its logging policy."""

    world: World
    truth: BoredomUsers
    pick: LoggingPolicy


def make_case(users: int, train: int, seed: int = 0) -> Case:
    """The built-in world; the first `train` users give the item rates, the others are measured on."""
    config = BoredomWorldConfig(users=users, seed=seed)
    world = unlearned_world(config)
    truth = world.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    part = torch.full((users,), EVALUATE)
    part[:train] = TRAIN
    sequences = compile_sequences(written_log(world, config))[0]
    world = replace(world, users=replace(world.users, part=part), sequences=sequences)
    return Case(world, truth, logging_policy(world, LOGGING, seed))


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
