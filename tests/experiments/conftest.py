"""Small worlds that every experiment is tried in."""

from dataclasses import replace
from pathlib import Path

import pytest

from recloop.envs.truth.boredom import BoredomRules, BoredomUsers
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.world import World


@pytest.fixture(scope="session")
def truth() -> World:
    """60 users who are written down, 40 items."""
    return boredom_world(
        BoredomWorldConfig(
            users=60, topics=2, items=40, slate_size=3, max_steps=6, dim=8, state_epochs=1, user_epochs=1
        )
    )


@pytest.fixture(scope="session")
def judged(truth: World) -> World:
    """A world as one learned from a log: it trains in `train` and is judged by users who tire sooner."""
    users = truth.simulators["truth"]
    assert isinstance(users, BoredomUsers)
    judge = BoredomUsers(users.preference, users.topic, users.traits, BoredomRules(bored_at=1, fade=0.5))
    return replace(truth, simulators={"train": users, "validation": users, "judge": judge})


@pytest.fixture(scope="session")
def folder(judged: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judged world on disk."""
    place = tmp_path_factory.mktemp("worlds") / "judged"
    judged.save(place)
    return place
