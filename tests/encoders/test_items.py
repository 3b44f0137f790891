from pathlib import Path

import pytest
import torch

from recloop.encoders.errors import EncoderError
from recloop.encoders.items import ItemEncoder

TEXT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
ENTITIES = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, -1.0]])


def test_rows_have_length_one_and_the_empty_place_is_zero() -> None:
    table = ItemEncoder(4, 8, TEXT, ENTITIES).table()
    assert table.shape == (5, 8)
    torch.testing.assert_close(table[:4].norm(dim=1)[[0, 1, 3]], torch.ones(3))
    assert table[4].abs().sum() == 0


def test_missing_text_or_link_is_a_learned_vector() -> None:
    encoder = ItemEncoder(4, 8, TEXT, ENTITIES)
    before = encoder()
    with torch.no_grad():
        encoder.text_stand_in += 0.5
    after = encoder()
    assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]])
    assert not torch.allclose(before[2], after[2])
    after[2].sum().backward()  # row 2 has neither text nor link
    stand_in = encoder.text_stand_in
    assert isinstance(stand_in, torch.nn.Parameter)
    assert stand_in.grad is not None
    assert stand_in.grad.abs().sum() > 0


def test_inputs_are_centred_and_of_mean_length_one_by_hand() -> None:
    encoder = ItemEncoder(3, 2, torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    assert encoder.text.tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert encoder.text_missing.tolist() == [False, False, True]


def test_likeness_survives_the_projection() -> None:
    """Before any fitting, items with near texts have near vectors."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(20, 64, generator=generator)
    text[1] = text[0] + 0.1 * torch.randn(64, generator=generator)
    vectors = ItemEncoder(20, 32, text)()
    likeness = vectors @ vectors[0]
    assert likeness[1] > 0.9
    assert likeness[2:].abs().max() < 0.7


def test_some_rows_equal_those_of_the_whole() -> None:
    rows = torch.tensor([3, 0, 0])
    for encoder in (ItemEncoder(4, 8, TEXT, ENTITIES), ItemEncoder(4, 8, None, ENTITIES), ItemEncoder(4, 8)):
        torch.testing.assert_close(encoder(rows), encoder()[rows])


def test_all_texts_missing_is_no_reason_to_fail() -> None:
    assert torch.isfinite(ItemEncoder(3, 4, torch.zeros(3, 5)).table()).all()


@pytest.mark.parametrize("parts", [(TEXT, ENTITIES), (TEXT, None), (None, ENTITIES), (None, None)])
def test_save_and_load_give_equal_bits(parts: tuple[torch.Tensor | None, ...], tmp_path: Path) -> None:
    encoder = ItemEncoder(4, 8, *parts)
    encoder.save(tmp_path / "items")
    assert torch.equal(ItemEncoder.load(tmp_path / "items").table(), encoder.table())


def test_rows_that_do_not_fit_are_named() -> None:
    with pytest.raises(EncoderError, match=r"text vectors are \(4, 3\); 5 items"):
        ItemEncoder(5, 8, TEXT)
