from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.encoders.items.encoder import ItemEncoder
from recloop.encoders.items.fusion import FUSIONS

TEXT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
ENTITIES = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-2.0, 0.5]])
SOURCES = {"text": TEXT, "entities": ENTITIES}
"""Items 0 and 3 have both, item 1 text alone, item 4 a link alone, item 2 nothing."""


def _trained(fusion: str, sources: dict[str, Tensor] | None = None) -> ItemEncoder:
    """An encoder whose weights have moved away from where they start."""
    encoder = ItemEncoder(5, 8, SOURCES if sources is None else sources, fusion=fusion)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.5 * torch.randn(weight.shape, generator=generator)
    return encoder


@pytest.mark.parametrize("fusion", FUSIONS)
def test_rows_have_length_one_and_the_empty_place_is_zero(fusion: str) -> None:
    for encoder in (ItemEncoder(5, 8, SOURCES, fusion=fusion), _trained(fusion)):
        table = encoder.table()
        assert table.shape == (6, 8)
        torch.testing.assert_close(table[:5].norm(dim=1), torch.ones(5))
        assert table[5].abs().sum() == 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_some_rows_equal_those_of_the_whole_and_so_do_their_gradients(fusion: str) -> None:
    rows = torch.tensor([3, 0, 0, 2, 4])
    for encoder in (_trained(fusion), _trained(fusion, {"entities": ENTITIES}), _trained(fusion, {})):
        weights = list(encoder.parameters())
        aim = torch.arange(40.0).view(5, 8).cos()
        some, whole = encoder(rows), encoder()[rows]
        torch.testing.assert_close(some, whole)
        ours = torch.autograd.grad((some * aim).sum(), weights, allow_unused=True)
        theirs = torch.autograd.grad((whole * aim).sum(), weights, allow_unused=True)
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b)


def test_fusions_start_alike_where_nothing_is_missing() -> None:
    """Before any fitting all three are the sum of the sources: the same direction."""
    tables = [ItemEncoder(5, 8, SOURCES, fusion=fusion)()[[0, 3]] for fusion in FUSIONS]
    torch.testing.assert_close(tables[1], tables[0])
    torch.testing.assert_close(tables[2], tables[0])


def test_concat_is_one_linear_map_of_all_sources_side_by_side() -> None:
    encoder = _trained("concat")
    side_by_side = torch.cat([encoder.get_buffer("text_rows"), encoder.get_buffer("entities_rows")], dim=1)
    expected = torch.nn.functional.normalize(side_by_side @ encoder.weight, dim=1)
    torch.testing.assert_close(encoder()[[0, 3]], expected[[0, 3]])


def test_concat_puts_a_learned_token_where_a_source_is_missing() -> None:
    encoder = _trained("concat")
    before = encoder().detach()
    with torch.no_grad():
        encoder.get_parameter("mix.missing_tokens")[0] += 0.5  # of the text, which items 2 and 4 lack
    after = encoder().detach()
    assert [bool((before[i] == after[i]).all()) for i in range(5)] == [True, True, True, True, False]


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_a_missing_source_gets_no_weight(fusion: str) -> None:
    """Item 1 has text alone and item 4 a link alone: each points where its one source points."""
    encoder = _trained(fusion)
    text = encoder.get_buffer("text_rows")[1] @ encoder.weight[:3]
    link = encoder.get_buffer("entities_rows")[4] @ encoder.weight[3:]
    expected = torch.nn.functional.normalize(torch.stack([text, link]), dim=1)
    torch.testing.assert_close(encoder()[[1, 4]], expected)


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_weights_follow_what_is_learned(fusion: str) -> None:
    """Told to listen to text, an item with both sources goes where its text points; item 2 does not move."""
    encoder = _trained(fusion)
    before = encoder()[2].detach()
    optimiser = torch.optim.Adam(encoder.mix.parameters(), lr=0.2)
    aim = torch.nn.functional.normalize(encoder.get_buffer("text_rows") @ encoder.weight[:3], dim=1).detach()
    for _ in range(60):
        optimiser.zero_grad()
        (-(encoder() * aim)[[0, 3]].sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert (encoder() * aim)[[0, 3]].sum(1).min() > 0.99
    assert torch.equal(encoder()[2], before)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_weight_is_learned(fusion: str) -> None:
    encoder = _trained(fusion)
    encoder().pow(3).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_stay_small_from_the_start(fusion: str) -> None:
    """An item that no source speaks of must not blow up the step of all others."""
    encoder = ItemEncoder(5, 8, SOURCES, fusion=fusion)
    encoder().pow(3).sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.norm() < 100, name


def test_sources_are_centred_and_of_mean_length_one_by_hand() -> None:
    encoder = ItemEncoder(3, 2, {"text": torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]])})
    assert encoder.get_buffer("text_rows").tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert encoder.get_buffer("text_missing").tolist() == [False, False, True]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_wide_source_does_not_drown_a_narrow_one(fusion: str) -> None:
    generator = torch.Generator().manual_seed(0)
    wide, narrow = 50 * torch.randn(200, 2048, generator=generator), 0.01 * torch.randn(200, 16, generator=generator)
    both = ItemEncoder(200, 64, {"image": wide, "entities": narrow}, fusion=fusion)()
    for name, rows in (("image", wide), ("entities", narrow)):
        heard = both @ both.T
        said = ItemEncoder(200, 64, {name: rows})()
        likeness = torch.corrcoef(torch.stack([heard.flatten(), (said @ said.T).flatten()]))[0, 1]
        assert likeness > 0.4


def test_likeness_survives_the_projection() -> None:
    """Before any fitting, items with near texts have near vectors."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(20, 64, generator=generator)
    text[1] = text[0] + 0.1 * torch.randn(64, generator=generator)
    vectors = ItemEncoder(20, 32, {"text": text})()
    likeness = vectors @ vectors[0]
    assert likeness[1] > 0.9
    assert likeness[2:].abs().max() < 0.7


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("rows", [torch.zeros(3, 5), torch.ones(3, 5)])
def test_sources_that_say_nothing_are_no_reason_to_fail(fusion: str, rows: Tensor) -> None:
    encoder = ItemEncoder(3, 4, {"text": rows}, fusion=fusion)
    assert encoder.get_buffer("text_missing").all()
    torch.testing.assert_close(encoder().norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("names", [("text", "entities"), ("entities",), ()])
def test_save_and_load_give_equal_bits(fusion: str, names: tuple[str, ...], tmp_path: Path) -> None:
    encoder = _trained(fusion, {name: SOURCES[name] for name in names})
    encoder.save(tmp_path / "items")
    again = ItemEncoder.load(tmp_path / "items")
    assert torch.equal(again.table(), encoder.table())
    assert (again.fusion, list(again.sources.items())) == (fusion, list(encoder.sources.items()))


def test_a_file_that_lacks_a_source_is_named(tmp_path: Path) -> None:
    ItemEncoder(5, 8, SOURCES).save(tmp_path / "items")
    tensors = read_tensors(tmp_path / "items" / "items.safetensors")
    write_tensors(tmp_path / "items" / "items.safetensors", {n: t for n, t in tensors.items() if n != "text_rows"})
    Manifest.of(tmp_path / "items").write(tmp_path / "items")
    with pytest.raises(EncoderError, match=r"items\.safetensors does not fit"):
        ItemEncoder.load(tmp_path / "items")


@pytest.mark.parametrize("names", [("text",), ()])
def test_sizes_are_held_against_the_weights_before_memory_is_asked_for(names: tuple[str, ...], tmp_path: Path) -> None:
    ItemEncoder(5, 8, {name: SOURCES[name] for name in names}).save(tmp_path)
    facts = read_json(tmp_path / "items.json")
    write_json(tmp_path / "items.json", {**facts, "dim": 10**15})
    Manifest.of(tmp_path).write(tmp_path)
    with pytest.raises(EncoderError, match=r"weight is \(., 8\), by its facts \(., 1000000000000000\)"):
        ItemEncoder.load(tmp_path)


def test_rows_that_do_not_fit_are_named() -> None:
    with pytest.raises(EncoderError, match=r"text vectors are \(5, 3\); 6 items"):
        ItemEncoder(6, 8, {"text": TEXT})
    with pytest.raises(EncoderError, match="finite"):
        ItemEncoder(5, 8, {"text": TEXT * torch.nan})


def test_names_that_do_not_fit_are_named() -> None:
    with pytest.raises(EncoderError, match="unknown item fusion 'gate'; did you mean 'gated'"):
        ItemEncoder(5, 8, SOURCES, fusion="gate")
    with pytest.raises(EncoderError, match=r"'film\.poster' cannot name a source"):
        ItemEncoder(5, 8, {"film.poster": TEXT})
