"""The text options of a build: which model reads how, what was cut is said, and histories read as text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.behavior import TextBehavior
from recloop.encoders.text.encoder import TextEncoder
from recloop.envs.build.encoders import EncoderConfig, Workshop, text_vectors
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.build.stages import StageCache
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.users.fitted import FitConfig
from recloop.envs.world.world import World

ITEMS, USERS, LENGTH = 20, 30, 8


def _log() -> LoggedBehavior:
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", float(t), 1.0, float(draw.integers(1, 6)))
        for user in range(USERS)
        for t, item in enumerate(draw.permutation(ITEMS)[:LENGTH])
    ]
    titles = [f"thing {i}" for i in range(ITEMS)]
    texts = [f"thing {i} " + "long " * (50 if i < 5 else 1) for i in range(ITEMS)]
    names = [Columns.user, Columns.item, Columns.time, "consume", "rating"]
    return LoggedBehavior(
        name="things",
        interactions=pd.DataFrame(rows, columns=names),
        users=pd.DataFrame(index=pd.Index([f"u{user}" for user in range(USERS)])),
        items=pd.DataFrame({"title": titles, "text": texts}, index=pd.Index([f"i{i}" for i in range(ITEMS)])),
        signals=(Signal("consume"), Signal("rating", "ordinal", levels=(1, 2, 3, 4, 5), given_on="consume")),
        times=Times.entry,
    )


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of 8 dimensions that knows the words of the log."""
    folder = tmp_path_factory.mktemp("decoder")
    words = ["<unk>", "thing", "long", "rated", ":", ";", *(str(i) for i in range(ITEMS))]
    core = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>").save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=1, n_positions=64))
    model.save_pretrained(folder)
    return folder


def _build(tmp_path: Path, said: list[str], **encoder: Any) -> World:
    config = BuildConfig(
        slate_size=2, history_length=LENGTH, shown_length=1, members=1, examine=False, cache=tmp_path,
        encoder=EncoderConfig(kg="none", dim=8, next_item=NextItemConfig(epochs=1)),
        users=FitConfig(epochs=1, hidden=8, rank=4, residual=4, negatives=4),
    )  # fmt: skip
    return build_world(_log(), replace(config, encoder=replace(config.encoder, **encoder)), say=said.append)


def test_texts_that_are_cut_are_said_each_time(decoder: Path, tmp_path: Path) -> None:
    config = EncoderConfig(text=str(decoder), text_pooling="last", text_max_length=16)
    shop = Workshop(0, "cpu", tmp_path, StageCache(None), False)
    for _ in range(2):  # the second time the vectors come from the cache
        said: list[str] = []
        text_vectors(_log(), config, shop, say=said.append)
        (line,) = said
        assert line.startswith("item texts: 5 of 20 (25.0%) are longer than 16 tokens")
    text_vectors(_log(), replace(config, text_max_length=60), shop, say=said.append)
    assert len(said) == 1


def test_histories_are_read_as_text_in_the_loop(decoder: Path, tmp_path: Path) -> None:
    world = _build(
        tmp_path, [], text=str(decoder), text_pooling="last", text_prefix="thing : ", behavior="text",
        behavior_refresh=2, segments=0, topics=0,
    )  # fmt: skip
    reader = world.state_encoder.behavior
    assert isinstance(reader, TextBehavior)
    assert isinstance(reader.text, TextEncoder)
    assert (reader.refresh, reader.text.truncate, reader.text.pooling, reader.text.prefix) == (
        2, "start", "last", "thing : ",
    )  # fmt: skip
    told = reader.texts(world.users.history[:1], world.users.feedback[:1])[0]
    assert told.startswith("rated ")
    assert told.count(";") == LENGTH - 1
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world").state_encoder
    profile = world.users.profile[:3]
    before, after = (
        encoder.vector(encoder.start(profile, world.users.history[:3], world.users.feedback[:3]))
        for encoder in (world.state_encoder, again)
    )
    torch.testing.assert_close(before, after)


def test_logged_histories_are_read_once_and_kept(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command on the same world reads none anew: states are kept, and where they are not, what was read is."""
    monkeypatch.setenv("RECLOOP_CACHE", str(tmp_path))
    world = _build(tmp_path, [], text=str(decoder), text_pooling="last", behavior="text", segments=-1, topics=0)
    world.save(tmp_path / "world")
    states = world.warm_states
    again = World.load(tmp_path / "world")
    torch.testing.assert_close(again.warm_states.behavior, states.behavior)
    reader = again.state_encoder.behavior
    assert isinstance(reader, TextBehavior)
    assert isinstance(reader.text, TextEncoder)
    assert reader.text.report.texts == 0
    del vars(again)["warm_states"]
    torch.testing.assert_close(again.warm_states.behavior, states.behavior)
    assert (reader.text.report.texts, reader.text.report.encoded) == (USERS, 0)


def test_a_way_to_read_histories_that_nobody_knows() -> None:
    with pytest.raises(EncoderError, match="unknown behavior 'texts'; did you mean 'text'"):
        EncoderConfig(behavior="texts")  # type: ignore[arg-type]


def test_histories_as_text_need_a_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"without a text model; set --encoder\.text"):
        _build(tmp_path, [], text="none", behavior="text", segments=0, topics=0)
