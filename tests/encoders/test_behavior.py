"""A user's behaviour as one vector: pooled items, and what fitting reads in place of the loop's vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.behavior import ItemBehavior
from recloop.encoders.errors import EncoderError

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
