"""Tensors and facts on disk: safetensors and JSON, written beside and then renamed. Nothing is unpickled."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recloop.encoders.base.errors import RecloopError


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; swap it in on success, remove it on any failure.

    A killed run leaves the last good `folder` in place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    part.chmod(0o755)
    old = part.with_name(part.name + ".old")
    try:
        yield part
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, facts: Any) -> None:
    """Write `facts` as indented JSON with sorted keys; the file is replaced whole."""
    with replacing_file(path) as part:
        part.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; `RecloopError` names the file where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecloopError(f"{path} is missing; the folder is incomplete, make it anew") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecloopError(f"{path} is not valid JSON ({error}); make the folder anew") from None


def json_like(facts: Any) -> Any:
    """`facts` as they come back from a JSON file, and equal to themselves: lists for tuples, None for NaN.

    >>> json_like({"pair": (1, float("nan"))})
    {'pair': [1, None]}
    """
    if isinstance(facts, Mapping):
        return {name: json_like(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [json_like(value) for value in facts]
    return None if isinstance(facts, float) and math.isnan(facts) else facts


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as safetensors; the file is replaced whole."""
    with replacing_file(path) as part:
        save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, part)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors onto the CPU; `RecloopError` names the file where it is missing or broken."""
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise RecloopError(f"{path} is missing; the folder is incomplete, make it anew") from None
    except SafetensorError as error:
        raise RecloopError(f"{path} is damaged ({error}); make the folder anew") from None
