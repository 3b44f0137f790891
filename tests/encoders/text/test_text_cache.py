from pathlib import Path

import pytest
import torch

from recloop.encoders.text.cache import VectorCache, text_key

KEYS = [text_key("a"), text_key("b")]
ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_rows_come_back_by_key(tmp_path: Path) -> None:
    VectorCache(tmp_path, 2).write(KEYS, ROWS)
    VectorCache(tmp_path, 2).write([text_key("c")], torch.tensor([[5.0, 6.0]]))
    rows = VectorCache(tmp_path, 2).read()
    assert rows[text_key("b")].tolist() == [3.0, 4.0]
    assert rows[text_key("c")].tolist() == [5.0, 6.0]
    assert len(rows) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage", "empty"])
def test_a_damaged_file_is_not_believed(tmp_path: Path, damage: str) -> None:
    VectorCache(tmp_path, 2).write(KEYS, ROWS)
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-5],
            "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
            "garbage": b"not safetensors",
            "empty": b"",
        }[damage]
    )
    with pytest.warns(UserWarning, match="is damaged"):
        assert VectorCache(tmp_path, 2).read() == {}
    assert not path.exists()
    VectorCache(tmp_path, 2).write(KEYS, ROWS)
    assert len(VectorCache(tmp_path, 2).read()) == 2


def test_rows_of_another_length_are_not_believed(tmp_path: Path) -> None:
    VectorCache(tmp_path, 2).write(KEYS, ROWS)
    with pytest.warns(UserWarning, match="holds rows of"):
        assert VectorCache(tmp_path, 3).read() == {}


def test_rows_with_nan_are_not_believed(tmp_path: Path) -> None:
    VectorCache(tmp_path, 2).write(KEYS, torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]))  # whole, and of no use
    with pytest.warns(UserWarning, match="is damaged .it holds NaN. and is left out"):
        assert VectorCache(tmp_path, 2).read() == {}
    assert not list(tmp_path.iterdir())


def test_which_texts_were_cut_is_kept(tmp_path: Path) -> None:
    VectorCache(tmp_path, 2).write(KEYS, ROWS, torch.tensor([False, True]))
    cache = VectorCache(tmp_path, 2)
    cache.read()
    assert cache.cut == {KEYS[1]}


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = VectorCache(blocked / "cache", 2)
    with pytest.warns(UserWarning, match="Set RECLOOP_CACHE"):
        cache.write(KEYS, ROWS)
    assert cache.read()[KEYS[0]].tolist() == [1.0, 2.0]


def test_no_file_is_left_half_written(tmp_path: Path) -> None:
    VectorCache(tmp_path, 2).write(KEYS, ROWS)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_texts_that_are_no_valid_unicode_have_keys_too() -> None:
    assert text_key("\ud800") != text_key("?")
