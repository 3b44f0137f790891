"""Worlds of items that carry vectors: users keep to one kind of item, and only the posters show the kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.users.fitted import FitConfig
from recloop.envs.world.world import World

ITEMS, USERS, LENGTH = 48, 60, 6
KIND = np.arange(ITEMS) % 3
BARE = np.arange(ITEMS) % 8 == 5


def _log() -> LoggedBehavior:
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", float(t), 1.0)
        for user in range(USERS)
        for t, item in enumerate(rng.choice(np.flatnonzero(user % 3 == KIND), LENGTH, replace=False))
    ]
    titles = [f"Item {i}" for i in range(ITEMS)]
    return LoggedBehavior(
        name="posters",
        interactions=pd.DataFrame(rows, columns=[Columns.user, Columns.item, Columns.time, "consume"]),
        users=pd.DataFrame(index=pd.Index([f"u{user}" for user in range(USERS)])),
        items=pd.DataFrame({"title": titles, "text": titles}, index=pd.Index([f"i{i}" for i in range(ITEMS)])),
        signals=(Signal("consume"),),
        times=Times.entry,
    )


def _posters(folder: Path, bad: int = 0) -> Path:
    """Posters of all items but the bare ones, in another order, beside one of an item that is not sold."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3, 128))[KIND] + rng.normal(size=(ITEMS, 128))
    order = rng.permutation(np.flatnonzero(~BARE))
    table = np.vstack([vectors[order], np.ones((1, 128))])
    table[:bad] = np.nan
    np.savez(folder / "posters.npz", ids=np.array([*(f"i{i}" for i in order), "gone"]), vectors=table)
    return folder / "posters.npz"


def _world(**encoder: Any) -> World:
    config = BuildConfig(
        slate_size=3, history_length=8, shown_length=2, members=1, examine=False, use_cache=False,
        encoder=EncoderConfig(text="none", dim=16, next_item=NextItemConfig(epochs=3, batch_users=4)),
        users=FitConfig(epochs=1, hidden=8, rank=4, residual=4, negatives=16),
    )  # fmt: skip
    return build_world(_log(), replace(config, encoder=replace(config.encoder, **encoder)))


def _gathered(world: World) -> float:
    """How much nearer items with posters are to their own kind than to others."""
    vectors = world.item_vectors[:-1][~BARE].numpy()
    likeness, kind = vectors @ vectors.T, KIND[~BARE]
    same = kind[:, None] == kind
    return float(likeness[same & ~np.eye(len(kind), dtype=bool)].mean() - likeness[~same].mean())


@pytest.mark.parametrize("fusion", ["concat", "gated", "attention"])
def test_a_world_of_posters(fusion: str, tmp_path: Path) -> None:
    world = _world(modalities=(f"image={_posters(tmp_path)}",), item_fusion=fusion)
    assert _gathered(world) > 0.3
    assert (world.item_vectors[:-1].norm(dim=1) - 1).abs().max() < 1e-5
    assert world.card.figures["items_with_image"] == 42
    assert (
        "Item vectors 'image': 42 of 48 items have a vector of 128; ids not in the catalogue: 1." in world.card.learned
    )


def test_two_tables_beside_text_survive_the_disk(tmp_path: Path) -> None:
    posters = _posters(tmp_path)
    clips = tmp_path / "clips.parquet"
    pd.DataFrame({"item": ["i1", "i5"], "clip": [[1.0, 2.0], [2.0, 0.5]]}).to_parquet(clips)
    world = _world(text="hashed", modalities=(f"image={posters}", f"audio={clips}"), item_fusion="gated")
    assert world.card.figures["items_with_audio"] == 2
    world.save(tmp_path / "world")
    assert (World.load(tmp_path / "world").item_vectors == world.item_vectors).all()


def test_bad_posters_stop_the_build_or_are_dropped(tmp_path: Path) -> None:
    given = (f"image={_posters(tmp_path, bad=2)}",)
    with pytest.raises(EncoderError, match="2 of 42 vectors hold NaN or infinity"):
        _world(modalities=given)
    assert _world(modalities=given, bad_vectors="drop").card.figures["items_with_image"] == 40


def test_options_that_do_not_fit_are_named_at_once() -> None:
    with pytest.raises(EncoderError, match="unknown item fusion 'gate'; did you mean 'gated'"):
        EncoderConfig(item_fusion="gate")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="write NAME=PATH"):
        EncoderConfig(modalities=("posters.npz",))
