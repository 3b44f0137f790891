"""Vectors that items carry: tables of images, sound or anything else by item id, from files that need no unpickling."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from recloop.encoders.base.errors import EncoderError

Array = npt.NDArray[Any]
Table = tuple[Sequence[Any] | Array, Array]
"""Ids and vectors as a file holds them, before anything is checked."""

_RESERVED = ("text", "neighbours")
"""What `fit_state_encoder` is given, or adds, under these names."""
_NUMPY_ERRORS = (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)
_ID_COLUMNS = ("item", "item_id", "id", "ids")


@dataclass(frozen=True)
class ModalityReport:
    """What a table of vectors holds of a catalogue.

    Args:
        width: length of a vector.
        found: items of the catalogue that have a vector.
        missing: items of the catalogue without one, or with zeros.
        unknown: ids of the table that the catalogue does not know.
        dropped: rows with NaN or infinity that `on_bad="drop"` left out; their items count as missing.
    """

    width: int
    found: int
    missing: int
    unknown: int
    dropped: int

    def __str__(self) -> str:
        dropped = f"; dropped for NaN or infinity: {self.dropped}" if self.dropped else ""
        known = f"{self.found} of {self.found + self.missing} items"
        return f"{known} have a vector of {self.width}; ids not in the catalogue: {self.unknown}{dropped}"


def read_modality(
    path: Path | str, item_ids: Sequence[str], on_bad: Literal["error", "drop"] = "error"
) -> tuple[Tensor, ModalityReport]:
    """The vectors that a catalogue's items have in a file: float32 (N, w), zeros where an item has none.

    Read are, by the name's ending, and never unpickled:

    - `.npz`: arrays `ids` (M,) and `vectors` (M, w);
    - `.npy`: (M, w), with the ids beside it as `.json` (a list) or `.txt` (one a line) of the same name;
    - `.safetensors`: a tensor `vectors` (M, w), with the ids as a JSON list `ids` in its metadata, or beside it;
    - `.parquet`: a column of lists of one length, and a column of ids (`item`, `item_id`, `id`, `ids`, or the only
      other one).

    Args:
        path: the file. Whole-number ids are read as text: 7 is the item "7".
        item_ids: the N external ids of the catalogue, in its order.
        on_bad: what rows with NaN or infinity do: stop with an error, or count as missing.

    Raises:
        EncoderError: for a file that is missing, broken or of another shape, an id given twice, no id that the
            catalogue knows, or rows with NaN or infinity.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise EncoderError(f"{path} ends in '{path.suffix}'; vectors are read from {', '.join(_READERS)}")
    if not path.is_file():
        raise EncoderError(f"{path} is no file; give a table of vectors by item id ({', '.join(_READERS)})")
    raw_ids, vectors = _READERS[path.suffix](path)
    ids = _as_text(path, raw_ids)
    _check(path, ids, vectors)
    row_of = {item: row for row, item in enumerate(item_ids)}
    source = np.array([k for k, item in enumerate(ids) if item in row_of], dtype=np.int64)
    if not len(source):
        raise EncoderError(
            f"{path}: none of its {len(ids)} ids is in the catalogue of {len(item_ids)} items; it has "
            f"{_first(ids)}, the catalogue has {_first(item_ids)}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is caught below
        rows = torch.from_numpy(np.asarray(vectors[source], dtype=np.float32))
    good = torch.isfinite(rows).all(dim=1)
    bad = int((~good).sum())
    if bad and on_bad == "error":
        first = ids[int(source[int((~good).nonzero()[0])])]
        raise EncoderError(
            f"{path}: {bad} of {len(rows)} vectors hold NaN or infinity, the first that of item '{first}'; mend them, "
            'or leave them out with on_bad="drop"'
        )
    table = torch.zeros(len(item_ids), rows.shape[1])
    places = torch.tensor([row_of[ids[k]] for k in source], dtype=torch.int64)
    table[places[good]] = rows[good]
    found = int((table != 0).any(dim=1).sum())
    return table, ModalityReport(
        width=table.shape[1],
        found=found,
        missing=len(item_ids) - found,
        unknown=len(ids) - len(source),
        dropped=bad,
    )


def modality_paths(pairs: Iterable[str]) -> dict[str, Path]:
    """Files by the name of what they hold, from "NAME=PATH".

    >>> modality_paths(["image=posters.npz"])
    {'image': PosixPath('posters.npz')}
    """
    paths: dict[str, Path] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name.isidentifier() or not path:
            raise EncoderError(f"'{pair}' names no table of vectors; write NAME=PATH, such as image=posters.npz")
        if name in _RESERVED or name in paths:
            why = "is what recloop makes itself" if name in _RESERVED else "is given twice"
            raise EncoderError(f"'{pair}': '{name}' {why}; give the table another name")
        paths[name] = Path(path).expanduser()
    return paths


def _check(path: Path, ids: Sequence[str], vectors: Array) -> None:
    if vectors.dtype.kind not in "fiu":
        raise EncoderError(f"{path}: vectors are of type {vectors.dtype}; they must be numbers")
    if vectors.ndim != 2 or not vectors.shape[1] or len(vectors) != len(ids):
        raise EncoderError(
            f"{path}: vectors are {vectors.shape} and there are {len(ids)} ids; {len(ids)} ids need ({len(ids)}, width)"
        )
    seen: set[str] = set()
    for item in ids:
        if item in seen:
            raise EncoderError(f"{path}: item '{item}' has two vectors; keep one")
        seen.add(item)


def _as_text(path: Path, ids: Sequence[Any] | Array) -> list[str]:
    """Ids as text: text as it is, whole numbers as written."""
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1 or ids.dtype.kind not in "UiuS":
            raise EncoderError(f"{path}: ids are {ids.shape} of type {ids.dtype}; give one text or whole number a row")
        ids = (np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids).tolist()
    for item in ids:
        if not isinstance(item, str | int) or isinstance(item, bool):
            raise EncoderError(f"{path}: {item!r} is no item id; ids are text or whole numbers")
    return [str(item) for item in ids]


def _first(ids: Sequence[str]) -> str:
    return ", ".join(f"'{item}'" for item in ids[:3]) + (", ..." if len(ids) > 3 else "")


def _read_npz(path: Path) -> Table:
    with _loaded(path, None) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise EncoderError(f"{path} is no .npz archive; write it by np.savez(path, ids=ids, vectors=vectors)")
        lacking = [name for name in ("ids", "vectors") if name not in arrays]
        if lacking:
            raise EncoderError(f"{path} has no array '{lacking[0]}', but {', '.join(arrays) or 'none'}")
        return tuple(_array(path, arrays, name) for name in ("ids", "vectors"))  # type: ignore[return-value]


def _read_npy(path: Path) -> Table:
    vectors = _loaded(path, "r")
    if not isinstance(vectors, np.ndarray):
        raise EncoderError(f"{path} is an archive of arrays; call it .npz")
    return _ids_beside(path), vectors


def _loaded(path: Path, mmap: Literal["r"] | None) -> Any:
    try:
        return np.load(path, allow_pickle=False, mmap_mode=mmap)
    except _NUMPY_ERRORS as error:
        raise EncoderError(f"{path} {_why(error)}") from None


def _array(path: Path, arrays: np.lib.npyio.NpzFile, name: str) -> Array:
    try:
        _check_length(path, arrays, name)
        found: Array = arrays[name]
        return found
    except _NUMPY_ERRORS as error:
        raise EncoderError(f"{path}: '{name}' {_why(error)}") from None


def _check_length(path: Path, arrays: np.lib.npyio.NpzFile, name: str) -> None:
    """Raise `EncoderError` where an array's header asks for more memory than the archive holds values for."""
    assert arrays.zip is not None
    place = arrays.zip.getinfo(f"{name}.npy")
    with arrays.zip.open(place) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
    asked = math.prod(shape) * kind.itemsize
    if asked > place.file_size and not kind.hasobject:
        raise EncoderError(
            f"{path}: '{name}' says that it is {shape} of {kind}, {asked:,} bytes, and holds {place.file_size:,}; "
            "write it anew"
        )


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "pickle" in text.lower() or "Python objects" in text:
        return "holds Python objects, which nothing here unpickles; save ids as np.array(ids, dtype=str)"
    return f"cannot be read as NumPy arrays ({text}); write it anew"


def _read_safetensors(path: Path) -> Table:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if "vectors" not in names:
                raise EncoderError(f"{path} has no tensor 'vectors', but {', '.join(names) or 'none'}")
            vectors = file.get_tensor("vectors")
            told = (file.metadata() or {}).get("ids")
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path} is damaged ({error}); write it anew") from None
    ids = _ids_beside(path) if told is None else _id_list(f"{path}: 'ids' in its metadata", told)
    return ids, (vectors.float() if vectors.is_floating_point() else vectors).numpy()


def _read_parquet(path: Path) -> Table:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read as Parquet ({' '.join(str(error).split())})") from None
    kinds = pyarrow.types
    lists = [f.name for f in table.schema if kinds.is_list(f.type) or kinds.is_large_list(f.type)]
    lists += [f.name for f in table.schema if kinds.is_fixed_size_list(f.type)]
    others = [name for name in table.column_names if name not in lists]
    named = [name for name in _ID_COLUMNS if name in others] or others
    if len(lists) != 1 or len(named) != 1:
        raise EncoderError(
            f"{path} has columns {', '.join(table.column_names)}; it needs one of lists and one of ids, such as 'item'"
        )
    rows = table[lists[0]].combine_chunks()
    widths = set(rows.value_lengths().to_pylist())
    if len(widths) > 1 or None in widths:
        known = ", ".join(str(width) for width in sorted(widths - {None})[:5])
        raise EncoderError(f"{path}: lists in '{lists[0]}' are {known} long or absent; all need one length")
    flat = rows.flatten().to_numpy(zero_copy_only=False)  # a null, which is how pandas writes NaN, is NaN
    return table[named[0]].to_pylist(), flat.reshape(len(table), -1 if len(table) else 0)


def _ids_beside(path: Path) -> list[Any]:
    """Ids from the `.json` or `.txt` of the same name."""
    listed, lines = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        if listed.is_file():
            return _id_list(str(listed), listed.read_text(encoding="utf-8"))
        if lines.is_file():
            return lines.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EncoderError(f"the ids beside {path} cannot be read ({error})") from None
    raise EncoderError(f"{path} does not say whose vectors it holds; put the ids beside it, in {listed.name} as a list")


def _id_list(where: str, text: str) -> list[Any]:
    try:
        ids = json.loads(text)
    except json.JSONDecodeError as error:
        raise EncoderError(f"{where} is not valid JSON ({error})") from None
    if not isinstance(ids, list):
        raise EncoderError(f"{where} must be a list of item ids, in the order of the vectors")
    return ids


_READERS: Mapping[str, Callable[[Path], Table]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
