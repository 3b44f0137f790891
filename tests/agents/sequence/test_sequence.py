"""Sequence models: every backbone and loss learns the obvious, repeats to the bit, and reads the past alone."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recloop.agents import FitOptions
from recloop.agents.policy import ScoringPolicy
from recloop.agents.registry import make_policy
from recloop.agents.sequence.batches import windows
from recloop.agents.sequence.config import GSASRecConfig, SequenceConfig
from recloop.agents.sequence.losses import place_loss
from recloop.agents.sequence.model import SequenceModel
from recloop.agents.sequence.teaching import lessons_of
from recloop.agents.sequence.training import train_sequence_model
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.built_in import built_in_world

BACKBONES = ("sasrec", "ligr", "hstu", "bert4rec", "gru", "lstm")
LOSSES = ("softmax", "sampled", "bce", "gbce")
CONFIG = SequenceConfig(length=8, dim=16, blocks=1, epochs=20, batch_items=64, dropout=0.1, learning_rate=0.02)


def sequences_of(lists: list[list[int]], items: int) -> Sequences:
    flat = np.array([i for row in lists for i in row], dtype=np.int64)
    ones = np.ones((len(flat), 1), dtype=np.float32)
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Sequences(items, offsets, flat, ones, ones > 0)


def circles(users: int) -> Sequences:
    """Everyone goes round eight items from a start of their own; items 8 to 11 are never met."""
    rng = np.random.default_rng(0)
    return sequences_of([[(s + i) % 8 for i in range(n)] for s, n in rng.integers(3, 9, (users, 2))], 12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 5))
def test_windows_hold_every_item_once(lengths: list[int], length: int, seed: int) -> None:
    owner, first, size = windows(np.array(lengths), length, np.random.default_rng(seed))
    assert size.min() >= 1
    assert size.max() <= length
    held = sorted((o, f + i) for o, f, s in zip(owner, first, size, strict=True) for i in range(s))
    assert held == [(user, place) for user, count in enumerate(lengths) for place in range(count)]


@pytest.mark.parametrize(
    ("backbone", "loss"), [*((b, "softmax") for b in BACKBONES), *(("sasrec", loss) for loss in LOSSES[1:])]
)
def test_a_circle_is_learned(backbone: str, loss: str) -> None:
    epochs = 60 if backbone == "bert4rec" else 30
    config = replace(CONFIG, backbone=backbone, loss=loss, negatives=8, masked=0.4, epochs=epochs, patience=60)  # type: ignore[arg-type]
    model = train_sequence_model(circles(60), np.arange(60), config, FitOptions(seed=1))
    history = torch.tensor([[12, 12, 12, 3, 4, 5], [12, 12, 12, 12, 6, 7]])
    with torch.no_grad():
        assert model.scores(history).argmax(1).tolist() == [6, 0]


def test_training_repeats_to_the_bit_and_says_how_it_went() -> None:
    curves: dict[str, list[float]] = {}

    def log(tag: str, value: float, step: int) -> None:
        curves.setdefault(tag, []).append(value)

    before = torch.random.get_rng_state()
    model = train_sequence_model(circles(60), np.arange(60), CONFIG, FitOptions(seed=1, log=log))
    again = train_sequence_model(circles(60), np.arange(60), CONFIG, FitOptions(seed=1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert curves["validation/loss"][0] > min(curves["validation/loss"])
    assert len(curves["train/loss"]) == len(curves["train/learning_rate"]) <= CONFIG.epochs


def test_an_interrupted_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    config, folder = replace(CONFIG, loss="sampled", epochs=6, patience=6), tmp_path / "kept"
    whole = train_sequence_model(circles(60), np.arange(60), config, FitOptions(seed=1))

    def stop(tag: str, value: float, step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sequence_model(circles(60), np.arange(60), config, FitOptions(seed=1, checkpoint=folder, log=stop))
    resumed: list[int] = []
    options = FitOptions(seed=1, checkpoint=folder, resumed=resumed.append)
    again = train_sequence_model(circles(60), np.arange(60), config, options)
    assert resumed == [3]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    with pytest.raises(PolicyError, match="another training"):
        train_sequence_model(circles(61), np.arange(61), config, options)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_causal_model_never_reads_ahead_and_padding_changes_nothing(backbone: str) -> None:
    config = replace(CONFIG, backbone=backbone, length=6, dropout=0.0)  # type: ignore[arg-type]
    model = SequenceModel(12, config, seed=1).eval()
    with torch.no_grad():
        if config.causal:
            one, other = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[1, 2, 3, 9, 12]])
            ours, theirs = (model(items, model.table())[:, :4] for items in (one, other))
            torch.testing.assert_close(ours, theirs)
        wide = model.scores(torch.tensor([[9, 10, 9, 1, 2, 3, 4, 5, 6], [12] * 9, [12] * 7 + [4, 5]]))
        torch.testing.assert_close(wide[0:1], model.scores(torch.tensor([[1, 2, 3, 4, 5, 6]])))
        torch.testing.assert_close(wide[1:2], model.scores(torch.tensor([[12]])))
        torch.testing.assert_close(wide[2:3], model.scores(torch.tensor([[4, 5]])))
    assert torch.isfinite(wide).all()


def test_nothing_is_read_of_users_that_are_not_given() -> None:
    """A marker planted in the other users' behaviour changes no weight."""
    plain, users = circles(30), np.arange(20)
    marked = sequences_of([plain.of(u)[0].tolist() if u < 20 else [11, 10, 11] for u in range(30)], 12)
    models = [
        train_sequence_model(log, users, replace(CONFIG, epochs=2), FitOptions(seed=2)) for log in (plain, marked)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


def test_sampled_softmax_estimates_the_whole_one() -> None:
    """With many negatives the mean over draws comes close to the loss over the catalogue."""
    model = SequenceModel(40, replace(CONFIG, loss="sampled", negatives=4000), seed=3)
    torch.nn.init.normal_(model.items, generator=torch.Generator().manual_seed(1))
    hidden, target = torch.randn(5, 16, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 3, 9, 20, 39])
    table, counts = model.table(), torch.arange(40.0)
    sampled = place_loss(model, counts, torch.Generator().manual_seed(0), half=False)(hidden, target, table)
    whole = torch.nn.functional.cross_entropy(model.logits(hidden, table), target)
    assert sampled.item() == pytest.approx(whole.item(), rel=0.02)


def test_gbce_is_plain_cross_entropy_without_calibration_and_weighs_positives_less_with_it() -> None:
    """t = 0 gives beta = 1; t = 1 gives beta = the sampling rate (Petrov and Macdonald 2023)."""
    hidden, target = torch.ones(1, 16), torch.tensor([5])
    values = []
    for t in (0.0, 1.0):
        model = SequenceModel(12, GSASRecConfig(dim=16, negatives=4, calibration=t), seed=1)
        own = (hidden[0] @ model.items[5] + model.bias[5]).item()
        loss = place_loss(model, torch.ones(12), torch.Generator().manual_seed(0), half=False)
        values.append(loss(hidden, target, model.table()).item())
    drop = (1 - 4 / 11) * np.log1p(np.exp(-own)) / 5
    assert values[0] - values[1] == pytest.approx(drop, rel=1e-4)


def test_items_told_by_content_score_what_nobody_consumed() -> None:
    """Item 8 has the vector of item 0 and was never met: after 7 it scores as item 0 does, but for its bias."""
    vectors = torch.eye(12)
    vectors[8] = vectors[0]
    config = replace(CONFIG, items=("text",), epochs=40, patience=40)
    model = train_sequence_model(circles(60), np.arange(60), config, FitOptions(seed=1), {"text": vectors})
    with torch.no_grad():
        scores = model.scores(torch.tensor([[5, 6, 7]]))[0] - model.bias
    assert float(scores[8]) == pytest.approx(float(scores[0]), abs=1e-4)
    assert int(scores[:8].argmax()) == 0
    assert "projections.text.weight" in model.state_dict()  # for texts of other catalogues
    mixed = replace(CONFIG, items=("ids", "text"), epochs=1)
    model = train_sequence_model(circles(60), np.arange(60), mixed, FitOptions(seed=1), {"text": vectors})
    assert not any("projections" in name for name in model.state_dict())


class Backwards(ScoringPolicy):
    """Expects what came before the last item on the built-in world's shelf: nothing that the log would teach."""

    name = "backwards"

    def scores(self, observation: Observation) -> Tensor:
        n = len(self._serving().world.catalogue)
        last = observation["history"][:, -1] % n
        return 8.0 * torch.nn.functional.one_hot((last - 1) % n, n).float()


def test_a_teacher_is_followed_where_it_weighs_enough() -> None:
    world = built_in_world()
    teacher = Backwards()
    teacher.serving = Serving.of(world)
    users = world.users.rows("train").numpy()
    lessons = lessons_of(teacher, world, users, 8, cuts=8)
    assert lessons.items.shape == lessons.odds.shape
    torch.testing.assert_close(lessons.odds.sum(1), torch.ones(len(lessons.odds)))
    config = replace(CONFIG, epochs=15, patience=15, teaching=20.0, stop_by="ndcg", held_out=0.0)
    alone, taught = (
        train_sequence_model(world.sequences, users, config, FitOptions(seed=1), lessons=given)
        for given in (None, lessons)
    )
    agrees = [
        (model.scores(lessons.history).gather(1, lessons.items).argmax(1) == 0).float().mean().item()
        for model in (alone, taught)
    ]
    assert agrees[1] > agrees[0] + 0.3
    with pytest.raises(PolicyError, match="gives slates and no scores"):
        lessons_of(make_policy("random", world), world, users, 8, cuts=1)


def test_training_on_nothing_and_content_that_is_missing_are_errors() -> None:
    with pytest.raises(PolicyError, match="consumed nothing"):
        train_sequence_model(sequences_of([[], [1]], 3), np.array([0]), CONFIG)
    with pytest.raises(PolicyError, match="items=knowledge, and there are no such vectors"):
        train_sequence_model(circles(5), np.arange(5), replace(CONFIG, items=("ids", "knowledge")))
    with pytest.raises(PolicyError, match="needs negatives"):
        train_sequence_model(sequences_of([[0, 0]], 1), np.arange(1), replace(CONFIG, loss="bce"))


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"dropout": 1.0}, {"epochs": 0}, {"masked": 0.0}, {"calibration": 2.0}, {"items": ()}]
)
def test_sizes_that_do_not_fit_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match=next(iter(wrong))):
        SequenceConfig(**wrong)  # type: ignore[arg-type]


def test_every_pair_of_backbone_and_loss_gives_a_finite_loss() -> None:
    for backbone, loss in itertools.product(BACKBONES, LOSSES):
        config = replace(CONFIG, backbone=backbone, loss=loss, epochs=1, negatives=5)  # type: ignore[arg-type]
        model = train_sequence_model(circles(8), np.arange(8), config)
        assert torch.isfinite(model.scores(torch.tensor([[1, 2]]))).all(), (backbone, loss)
