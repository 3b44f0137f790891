import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from recloop.encoders.base.errors import EncoderError
from recloop.encoders.items.modalities import modality_paths, read_modality

IDS = ("7", "b", "Ünder 3")
CATALOGUE = ("b", "9", "7", "zero")
VECTORS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
EXPECTED = [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
"""The catalogue knows two of the file's three ids; two of its four items have no vector."""

KINDS = ("npz", "npy+json", "npy+txt", "safetensors", "safetensors+json", "parquet", "parquet fixed")


def _write(folder: Path, kind: str, ids: Any = IDS, vectors: Any = VECTORS) -> Path:
    path = folder / f"posters.{kind.replace('+', ' ').split()[0]}"
    if kind == "npz":
        np.savez(path, ids=np.array(ids), vectors=vectors)
    elif kind.startswith("npy"):
        np.save(path, vectors)
    elif kind.startswith("safetensors"):
        told = {"ids": json.dumps(list(ids))} if kind == "safetensors" else None
        save_file({"vectors": torch.as_tensor(vectors).bfloat16()}, path, told)
    elif kind == "parquet":
        pd.DataFrame({"item": ids, "poster": list(vectors)}).to_parquet(path)
    else:
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
        pyarrow.parquet.write_table(pyarrow.table({"item": list(ids), "poster": lists}), path)
    if kind.endswith("+json"):
        path.with_suffix(".json").write_text(json.dumps(list(ids)), encoding="utf-8")
    if kind.endswith("+txt"):
        path.with_suffix(".txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_by_hand(kind: str, tmp_path: Path) -> None:
    table, report = read_modality(_write(tmp_path, kind), CATALOGUE)
    assert table.dtype is torch.float32
    assert table.tolist() == EXPECTED
    assert (report.width, report.found, report.missing, report.unknown, report.dropped) == (2, 2, 2, 1, 0)
    assert str(report) == "2 of 4 items have a vector of 2; ids not in the catalogue: 1"


@pytest.mark.parametrize("kind", ["npz", "npy+json", "safetensors", "parquet"])
def test_whole_numbers_are_ids_as_they_are_written(kind: str, tmp_path: Path) -> None:
    table, _ = read_modality(_write(tmp_path, kind, ids=[7, 10, 12]), CATALOGUE)
    assert table.tolist() == [[0, 0], [0, 0], [1, 2], [0, 0]]


@pytest.mark.parametrize("kind", ["npz", "npy+json", "safetensors", "parquet"])
def test_rows_with_nan_are_named_or_dropped(kind: str, tmp_path: Path) -> None:
    vectors = np.vstack([VECTORS, [[0.0, 0.0]]])
    vectors[0, 1], vectors[2, 0] = np.nan, np.inf  # the item of row 2 is unknown: its vector is not used
    path = _write(tmp_path, kind, ids=(*IDS, "zero"), vectors=vectors)
    with pytest.raises(EncoderError, match=r"1 of 3 vectors hold NaN or infinity, the first that of item '7'"):
        read_modality(path, CATALOGUE)
    table, report = read_modality(path, CATALOGUE, on_bad="drop")
    assert table.tolist() == [[3, 4], [0, 0], [0, 0], [0, 0]]
    assert (report.found, report.missing, report.dropped) == (1, 3, 1)


def test_what_float32_cannot_hold_is_infinite(tmp_path: Path) -> None:
    path = _write(tmp_path, "npz", vectors=VECTORS * 1e300)
    with pytest.raises(EncoderError, match="2 of 2 vectors hold NaN or infinity"):
        read_modality(path, CATALOGUE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_twice_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="item 'b' has two vectors"):
        read_modality(_write(tmp_path, kind, ids=("b", "7", "b")), CATALOGUE)


@pytest.mark.parametrize("kind", ["npz", "npy+txt", "safetensors"])
def test_shapes_that_do_not_fit_are_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"vectors are \(2, 2\) and there are 3 ids"):
        read_modality(_write(tmp_path, kind, vectors=VECTORS[:2]), CATALOGUE)
    with pytest.raises(EncoderError, match=r"vectors are \(3,\)"):
        read_modality(_write(tmp_path, kind, vectors=VECTORS[:, 0]), CATALOGUE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_other_items_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"none of its 3 ids is in the catalogue of 2 items; it has '7', 'b'"):
        read_modality(_write(tmp_path, kind), ("tt1", "tt2"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_is_one_line(kind: str, tmp_path: Path) -> None:
    path = _write(tmp_path, kind)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"no table"):
        path.write_bytes(broken)
        with pytest.raises(EncoderError) as error:
            read_modality(path, CATALOGUE)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    objects = np.array(IDS, dtype=object)
    for name, arrays in (
        ("ids", {"ids": objects, "vectors": VECTORS}),
        ("vectors", {"ids": np.array(IDS), "vectors": np.array([[1, None]] * 3, dtype=object)}),
    ):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=True, **arrays)  # type: ignore[arg-type]
        with pytest.raises(EncoderError, match=f"'{name}' holds Python objects, which nothing here unpickles"):
            read_modality(tmp_path / f"{name}.npz", CATALOGUE)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    (tmp_path / "a.txt").write_text("7\nb\nc\n")
    with pytest.raises(EncoderError, match="holds Python objects"):
        read_modality(tmp_path / "a.npy", CATALOGUE)


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", names=np.array(IDS), vectors=VECTORS)
    np.save(tmp_path / "b.npy", VECTORS)
    save_file({"images": torch.ones(3, 2)}, tmp_path / "c.safetensors")
    pd.DataFrame({"item": IDS, "year": [1, 2, 3]}).to_parquet(tmp_path / "d.parquet")
    pd.DataFrame({"item": IDS, "poster": [[1.0, 2.0], [1.0], [2.0, 3.0]]}).to_parquet(tmp_path / "e.parquet")
    np.savez(tmp_path / "f.npz", ids=np.array([0.5, 1.0, 2.0]), vectors=VECTORS)
    (tmp_path / "g.txt").write_text("7\n")
    for name, message in {
        "a.npz": "has no array 'ids', but names, vectors",
        "b.npy": r"put the ids beside it, in b\.json",
        "c.safetensors": "has no tensor 'vectors', but images",
        "d.parquet": "has columns item, year; it needs one of lists",
        "e.parquet": "lists in 'poster' are 1, 2 long",
        "f.npz": r"ids are \(3,\) of type float64",
        "g.txt": r"ends in '\.txt'; vectors are read from \.npz, \.npy",
        "h.npz": "is no file",
    }.items():
        with pytest.raises(EncoderError, match=message):
            read_modality(tmp_path / name, CATALOGUE)


def test_ids_beside_must_be_a_list_of_ids(tmp_path: Path) -> None:
    path = _write(tmp_path, "npy+json")
    for text, message in (('{"7": 0}', "must be a list"), ("[7,", "not valid JSON"), ("[true, 1, 2]", "True is no")):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(EncoderError, match=message):
            read_modality(path, CATALOGUE)


def test_paths_by_name() -> None:
    assert modality_paths(("image=a/b=c.npz", "audio=d.npy")) == {"image": Path("a/b=c.npz"), "audio": Path("d.npy")}
    for pairs, message in (
        (["posters.npz"], "write NAME=PATH"),
        (["=posters.npz"], "write NAME=PATH"),
        (["image="], "write NAME=PATH"),
        (["film poster=a.npz"], "write NAME=PATH"),
        (["text=a.npz"], "'text' is what recloop makes itself"),
        (["neighbours=a.npz"], "'neighbours' is what recloop makes itself"),
        (["image=a.npz", "image=b.npz"], "'image' is given twice"),
    ):
        with pytest.raises(EncoderError, match=message):
            modality_paths(pairs)


@pytest.mark.parametrize("rows", [10**10, 2**62])
def test_more_vectors_than_the_file_holds_are_refused_before_memory_is_asked_for(tmp_path: Path, rows: int) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (rows, 8)})  # type: ignore[no-untyped-call]
    np.savez(tmp_path / "a.npz", ids=np.array(["a", "b"]))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("vectors.npy", header.getvalue() + bytes(64))
    with pytest.raises(EncoderError, match=r"a\.npz: 'vectors' says that it is \(.*, 8\) of float32, .* and holds"):
        read_modality(tmp_path / "a.npz", CATALOGUE)
