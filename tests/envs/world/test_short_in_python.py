"""What a person meets in a notebook shows itself in ten lines, and as a card."""

from html.parser import HTMLParser

import pytest

from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world, written_log
from recloop.envs.world.world import World

CONFIG = BoredomWorldConfig(
    users=60, topics=2, items=40, slate_size=3, max_steps=6, dim=8, state_epochs=1, user_epochs=1
)


@pytest.fixture(scope="module")
def truth() -> World:
    return boredom_world(CONFIG)


def test_all_parts_of_a_world_are_short(truth: World) -> None:
    policies = [make_policy(name, truth, FitOptions()) for name in ("random", "popularity", "greedy")]
    parts = [truth, truth.catalogue, truth.users, truth.card, truth.sequences, truth.sequences.slates]
    parts += [
        written_log(truth, CONFIG),
        truth.state_encoder,
        truth.knowledge,
        truth.user_model,
        *truth.simulators.values(),
        *policies,
    ]
    for part in parts:
        lines = repr(part).splitlines()
        assert len(lines) <= 10, type(part)
        assert max(map(len, lines)) <= 160, type(part)
        assert lines[0].startswith(type(part).__name__)
        assert "tensor(" not in repr(part)
        HTMLParser().feed(part._repr_html_())


def test_a_world_says_what_one_looks_for(truth: World) -> None:
    said = repr(truth)
    assert said.startswith("World 'boredom'\n")
    assert "40, 60" in said
    assert "click, rating" in said
    assert "simulators: 1: truth" in said
