"""What users would ask for, by hand, and a world built with an instruction encoder."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.encoders.base.errors import WorldError
from recloop.encoders.instruction.facts import item_facts
from recloop.encoders.text.encoder import HashedText
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.instructions import instruction_vectors, log_facts, user_instructions, with_instruction
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal
from recloop.envs.logs.sequences import Sequences
from recloop.envs.world.world import World

CATEGORIES = ("shoe", "shoe", "shoe", "hat", "hat", "hat")


def _sequences(lists: list[list[int]], size: int = 6) -> Sequences:
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    items = np.array([item for own in lists for item in own], dtype=np.int64)
    feedback = np.ones((len(items), 1), dtype=np.float32)
    return Sequences(size, offsets, items, feedback, np.ones_like(feedback, dtype=np.bool_))


def test_a_wish_is_what_a_history_holds_more_of_than_usual() -> None:
    facts = item_facts([f"Item {row}" for row in range(6)], [""] * 6, categories=CATEGORIES)
    sequences = _sequences([[0, 1, 2], [3, 4], [0, 3], [5], []])
    instructions = user_instructions(facts, sequences, np.arange(4))
    assert instructions == ("a shoe item", "a hat item", "", "", "")


def test_users_without_attributes_wish_for_nothing() -> None:
    facts = item_facts(["a", "b"], ["", ""])
    assert user_instructions(facts, _sequences([[0, 1]], 2), np.arange(1)) == ("",)


@pytest.fixture
def log(world: World) -> LoggedBehavior:
    ids = world.catalogue.ids
    items = pd.DataFrame(
        {
            Columns.title: world.catalogue.titles,
            Columns.text: world.catalogue.texts,
            Columns.category: ["low"] * 20 + ["high"] * 20,
        },
        index=list(ids),
    )
    interactions = pd.DataFrame({Columns.user: ["u0"], Columns.item: [ids[0]], "click": [1.0]})
    return LoggedBehavior("tiny", interactions, pd.DataFrame(index=["u0"]), items, (Signal("click"),))


def test_a_world_with_instructions_has_a_wish_a_user(world: World, log: LoggedBehavior) -> None:
    made = with_instruction(world, log, HashedText(64), np.arange(8), seed=0)
    assert made.instruction is not None
    assert set(made.users.instructions) == {"a low item", "a high item", ""}
    assert torch.equal(made.users.instruction_vectors, instruction_vectors(made.instruction, made.users.instructions))
    assert any(line.startswith("instructions:") for line in made.card.learned)
    assert any("do not hear" in line for line in made.card.not_claimed)
    best = made.instruction.scores(["a high item"])[0].topk(5).indices
    assert (best >= 20).all()


def test_without_a_language_model_it_is_refused(world: World, log: LoggedBehavior) -> None:
    with pytest.raises(WorldError, match="needs a language model"):
        with_instruction(world, log, None, np.arange(8), seed=0)
    said: list[str] = []
    config = BuildConfig(encoder=EncoderConfig(text="none", instruction=True), use_cache=False)
    with pytest.raises(WorldError, match="needs a language model"):
        build_world(log, config, say=said.append)
    assert not said  # before anything was fitted


def test_likeness_is_told_by_the_given_users_alone(world: World, log: LoggedBehavior) -> None:
    many = replace(world.sequences, items=np.zeros_like(world.sequences.items))
    assert not any(kind == "alike" for kind, _ in log_facts(log, many, np.arange(8)).holders)
