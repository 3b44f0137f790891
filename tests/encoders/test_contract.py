"""What every encoder promises, checked over all of them; and that none is left out."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import recloop.encoders
from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.fit import KeepsFit
from recloop.encoders.contract import ENCODERS, Encoder
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.items.encoder import ItemEncoder
from recloop.encoders.knowledge.triple_scores import Embeddings
from recloop.encoders.patterns import BehaviorTopics, UserSegments
from recloop.encoders.state.behavior import ItemBehavior, TextBehavior
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import HashedText, TextEncoder

Case = tuple[Encoder, Callable[[Any], torch.Tensor]]
"""An encoder, and some vectors of it."""


def _state_vectors(encoder: StateEncoder) -> torch.Tensor:
    state = encoder.start(torch.zeros(2, 0), torch.tensor([[0, 1], [4, 2]]), torch.ones(2, 2, 1))
    return encoder.vector(state)


@pytest.fixture(params=ENCODERS, ids=lambda kind: kind.__name__)
def case(request: pytest.FixtureRequest, tiny_model: Any) -> Case:
    kind = request.param
    if kind is StateEncoder:
        return StateEncoder(torch.eye(4), [(0.0, 1.0)]), _state_vectors
    if kind is ItemEncoder:
        return ItemEncoder(4, 3, {"text": torch.eye(4)}), lambda encoder: encoder.table()
    if kind is TextEncoder:
        return TextEncoder(tiny_model("bert"), use_cache=False), lambda e: e.encode(["red hat", "old shoe"])
    if kind is HashedText:
        return HashedText(16), lambda encoder: encoder.encode(["red hat"])
    if kind is Embeddings:
        return Embeddings("transe", torch.eye(4), torch.ones(2, 4)), lambda encoder: encoder.vectors()
    if kind is TextBehavior:
        text = TextEncoder(tiny_model("bert"), truncate="start", use_cache=False)
        made = TextBehavior(text, ["red hat", "old shoe"], [("rating", 1.0, 5.0)])
        return made, lambda encoder: encoder.encode(torch.tensor([[0, 1], [2, 0]]), torch.ones(2, 2, 1))
    if kind is ItemBehavior:
        history = torch.tensor([[0, 2], [3, 1]])
        return ItemBehavior(torch.eye(3)), lambda encoder: encoder.encode(history, torch.ones(2, 2, 1))
    if kind is UserSegments:
        return UserSegments.fit(torch.eye(4), 2), lambda segments: segments.encode(torch.eye(4))
    if kind is BehaviorTopics:
        return BehaviorTopics.fit(np.eye(3), "abc", 2), lambda topics: topics.mix([["a", "b"], ["c"]])
    if kind is InstructionEncoder:
        head, table = torch.eye(16)[:, :4], torch.eye(5, 4)
        return InstructionEncoder(HashedText(16), head, torch.zeros(4), table), lambda e: e.encode(["red hat", ""])
    raise AssertionError(f"{kind.__name__} has no case here; add one")


def test_it_keeps_the_contract(case: Case) -> None:
    encoder, vectors = case
    assert isinstance(encoder, Encoder)
    before = torch.random.get_rng_state()
    rows = vectors(encoder)
    assert torch.equal(before, torch.random.get_rng_state())
    assert rows.dtype is torch.float32
    assert rows.shape[-1] == encoder.dim
    assert torch.isfinite(rows).all()


def test_it_survives_the_disk_without_pickle(case: Case, tmp_path: Path) -> None:
    encoder, vectors = case
    encoder.save(tmp_path / "saved")
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} <= {".json", ".safetensors"}
    again = type(encoder).load(tmp_path / "saved")
    assert again.dim == encoder.dim
    assert torch.equal(vectors(again), vectors(encoder))


def test_a_broken_folder_is_one_line(case: Case, tmp_path: Path) -> None:
    encoder, _ = case
    encoder.save(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecloopError) as error:
        type(encoder).load(tmp_path / "saved")
    assert str(tmp_path / "saved") in str(error.value)
    assert "\n" not in str(error.value)


def test_no_encoder_is_left_out() -> None:
    found = set()
    for module in pkgutil.walk_packages(recloop.encoders.__path__, "recloop.encoders."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            ours = kind.__module__.startswith("recloop.encoders") and kind not in (Encoder, Artifact, KeepsFit)
            if ours and hasattr(kind, "save") and hasattr(kind, "load"):
                found.add(kind)
    assert found == set(ENCODERS)
