"""A user's behaviour as one vector: pooled items, and what fitting reads in place of the loop's vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import EncoderError, LogError
from recloop.encoders.state.behavior import ItemBehavior, TextBehavior, load_behavior
from recloop.encoders.text.encoder import HashedText, TextEncoder
from recloop.encoders.text.history import HistoryTemplate

TABLE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 4.0]])
N = len(TABLE)


def feedback(history: torch.Tensor) -> torch.Tensor:
    return torch.ones(*history.shape, 1)


def encode(behavior: ItemBehavior, *rows: list[int]) -> list[list[float]]:
    history = torch.tensor(rows)
    return behavior.encode(history, feedback(history)).tolist()


def test_the_mean_of_what_is_there_and_known() -> None:
    mean = ItemBehavior(TABLE)
    assert (mean.dim, mean.catalogue_size, mean.refresh) == (2, 4, 0)
    # Item 2 has no vector and takes no part; N is an empty place.
    assert encode(mean, [0, 3, 2], [N, 1, N], [N, N, N], [2, 2, N]) == [[2.0, 2.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


def test_an_item_counts_less_the_more_came_after_it() -> None:
    decayed = ItemBehavior(TABLE, pooling="decay", decay=0.5)
    (row,) = encode(decayed, [0, N, 1])  # weights 1/2 and 1: an empty place is no age
    assert row == pytest.approx([1 / 3, 2 / 3])


def test_only_the_window_is_read() -> None:
    assert encode(ItemBehavior(TABLE, window=1), [0, 1, N], [N, 3, 0]) == [[0.0, 1.0], [1.0, 0.0]]


def test_cuts_of_histories_worked_out_by_hand() -> None:
    behavior = ItemBehavior(torch.eye(7), window=3)
    offsets = np.array([0, 5, 5, 7, 11])
    items = np.array([0, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3])
    vectors, newest = behavior.prefixes(offsets, items, np.ones((11, 1), dtype=np.float32), every=2)
    # User 0 is cut after 2 and 4 of 5 items, user 2 never (a cut after its 2nd and last would serve no row), user 3
    # after 2 of 4.
    assert newest.tolist() == [-1, -1, 0, 0, 1, -1, -1, -1, -1, 2, 2]
    assert vectors.shape == (3, 7)
    assert [sorted(row.nonzero()[:, 0].tolist()) for row in vectors] == [[0, 1], [1, 2, 3], [5, 6]]


@pytest.mark.parametrize("every", [1, 3, 50])
def test_cuts_know_nothing_of_their_row_and_lag_by_less_than_the_distance(every: int) -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 9, 30)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = draw.integers(0, N, offsets[-1])
    signals = np.ones((len(items), 1), dtype=np.float32)
    behavior = ItemBehavior(TABLE, window=4)
    vectors, newest = behavior.prefixes(offsets, items, signals, every)
    for user in range(30):
        own = items[offsets[user] : offsets[user + 1]]
        for place in range(len(own)):
            told = place - place % every
            row = int(newest[offsets[user] + place])
            assert (row == -1) == (told == 0)
            if told:
                history = torch.from_numpy(own[:told])[None]
                torch.testing.assert_close(vectors[row], behavior.encode(history, feedback(history))[0])
    assert set(range(len(vectors))) == set(newest.tolist()) - {-1}  # none is made that nobody reads


def test_it_survives_the_disk(tmp_path: Path) -> None:
    before = ItemBehavior(TABLE, pooling="decay", window=2, decay=0.7)
    before.save(tmp_path / "behavior")
    after = ItemBehavior.load(tmp_path / "behavior")
    assert encode(after, [0, 3, 1]) == encode(before, [0, 3, 1])


def test_unfitting_settings() -> None:
    with pytest.raises(EncoderError, match="pooling='max' of behaviour is unknown"):
        ItemBehavior(TABLE, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match=r"decay=1\.0"):
        ItemBehavior(TABLE, decay=1.0)
    with pytest.raises(EncoderError, match="must be finite"):
        ItemBehavior(TABLE * torch.nan)
    with pytest.raises(EncoderError, match="every=0"):
        ItemBehavior(TABLE).prefixes(np.array([0]), np.zeros(0, np.int64), np.zeros((0, 1), np.float32), 0)


# ---- the whole history through a language model

TITLES = ["red shoe", "old blue hat", "warm coat", "the green coat"]
SIGNALS = [("consume", 0.0, 1.0), ("rating", 1.0, 5.0)]
LINES = HistoryTemplate(lines=("{title} {rating:g}", "{title}"), separator=" ; ")
HISTORY = torch.tensor([[N, 0, 1], [0, 1, N], [N, N, N], [1, 2, 3]])
GIVEN = torch.tensor(
    [[[0, 0], [1, 5], [1, 0]], [[1, 5], [1, 0], [0, 0]], [[0, 0]] * 3, [[1, 1], [1, 2], [1, 3]]]
).float()


class Counted(HashedText):
    """Counts the texts it reads."""

    read = 0

    def encode(self, texts: Sequence[str], progress: bool = False, keep: bool = True) -> torch.Tensor:
        self.read += len(texts)
        return super().encode(texts, progress, keep)


def test_a_history_is_the_vector_of_its_text(tiny_model: Any) -> None:
    model = TextEncoder(tiny_model("qwen2"), pooling="last", truncate="start", dtype="float32", use_cache=False)
    behavior = TextBehavior(model, TITLES, SIGNALS, LINES)
    assert behavior.texts(HISTORY, GIVEN) == [
        "red shoe 5 ; old blue hat",
        "red shoe 5 ; old blue hat",
        "",
        "old blue hat 1 ; warm coat 2 ; the green coat 3",
    ]
    vectors = behavior.encode(HISTORY, GIVEN)
    assert vectors.shape == (4, 16)
    direct = [model.encode([text])[0] for text in behavior.texts(HISTORY, GIVEN)]
    torch.testing.assert_close(vectors, torch.stack(direct), atol=1e-5, rtol=0)
    assert vectors[2].abs().sum() == 0
    assert model.report.encoded == 2 + 3  # the first two are one text, and three went in by themselves


def test_the_newest_is_kept_in_the_window_and_by_the_model(tiny_model: Any) -> None:
    folder = tiny_model("gpt2")
    model = TextEncoder(folder, max_length=3, truncate="start", dtype="float32", use_cache=False)
    template = HistoryTemplate(lines=("{title}",), separator=" ")
    whole = TextBehavior(model, TITLES, SIGNALS, template).encode(HISTORY[3:], GIVEN[3:])
    torch.testing.assert_close(whole[0], model.encode(["the green coat"])[0], atol=1e-5, rtol=0)
    hashed = TextBehavior(HashedText(16), TITLES, SIGNALS, template, window=2)
    assert hashed.texts(HISTORY, GIVEN)[3] == "warm coat the green coat"
    with pytest.raises(EncoderError, match="truncate='end' would cut the newest"):
        TextBehavior(TextEncoder(folder, use_cache=False), TITLES, SIGNALS)


def test_a_user_who_comes_again_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Counted(8)
    behavior = TextBehavior(text, TITLES, SIGNALS, LINES)
    first = behavior.encode(HISTORY, GIVEN)
    assert text.read == 2
    assert torch.equal(behavior.encode(HISTORY.flip(0), GIVEN.flip(0)).flip(0), first)
    assert text.read == 2
    monkeypatch.setattr("recloop.encoders.state.behavior._RECENT", 1)
    assert torch.equal(behavior.encode(HISTORY, GIVEN), first)  # the last in is what stays: the fourth
    behavior.encode(HISTORY[3:], GIVEN[3:])
    assert text.read == 2
    behavior.encode(HISTORY[:1], GIVEN[:1])
    assert text.read == 3


def test_cuts_for_fitting_are_what_the_loop_sees() -> None:
    behavior = TextBehavior(HashedText(16), TITLES, SIGNALS, LINES, window=3, refresh=2)
    items = np.array([0, 1, 2, 3, 0])
    signals = np.array([[1, 5], [1, 0], [1, 2], [1, 3], [1, 4]], dtype=np.float32)
    vectors, newest = behavior.prefixes(np.array([0, 5]), items, signals, every=behavior.refresh)
    assert newest.tolist() == [-1, -1, 0, 0, 1]
    for row, cut in ((0, 2), (1, 4)):
        seen = behavior.encode(torch.from_numpy(items[:cut])[None], torch.from_numpy(signals[:cut])[None])
        assert torch.equal(vectors[row], seen[0])


def test_logged_histories_are_kept_on_disk_and_others_are_not(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")

    def fresh() -> TextBehavior:
        text = TextEncoder(folder, truncate="start", cache=tmp_path / "cache")
        return TextBehavior(text, TITLES, SIGNALS, LINES)

    def encoded(behavior: TextBehavior) -> int:
        assert isinstance(behavior.text, TextEncoder)
        return behavior.text.report.encoded

    fresh().encode(HISTORY[:1], GIVEN[:1], keep=True)
    fresh().encode(HISTORY[3:], GIVEN[3:])
    again = fresh()
    again.encode(HISTORY, GIVEN)
    assert encoded(again) == 1


def test_it_comes_back_with_its_model(tiny_model: Any, tmp_path: Path) -> None:
    model = TextEncoder(tiny_model("bert"), truncate="start", prefix="warm ", use_cache=False)
    before = TextBehavior(model, TITLES, SIGNALS, LINES, window=2, refresh=3)
    before.save(tmp_path / "behavior")
    after = load_behavior(tmp_path / "behavior")
    assert (after.window, after.refresh, after.dim, after.catalogue_size) == (2, 3, 16, 4)
    assert torch.equal(after.encode(HISTORY, GIVEN), before.encode(HISTORY, GIVEN))
    with pytest.raises(EncoderError, match="holds behaviour of kind 'text', not 'items'"):
        ItemBehavior.load(tmp_path / "behavior")


def test_unfitting_settings_of_text() -> None:
    with pytest.raises(LogError, match="did you mean 'rating'"):
        TextBehavior(HashedText(8), TITLES, SIGNALS, HistoryTemplate(lines=("{ratng}",)))
    with pytest.raises(EncoderError, match="refresh=0"):
        TextBehavior(HashedText(8), TITLES, SIGNALS, refresh=0)
