"""Tensors and facts on disk: safetensors and JSON, written beside and then renamed. Nothing is unpickled."""

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.replacing import replacing_file, replacing_folder

__all__ = [
    "json_like",
    "read_json",
    "read_tensors",
    "replacing_file",
    "replacing_folder",
    "write_json",
    "write_tensors",
]


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
        try:
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, part)
        except SafetensorError as error:  # what the system says lies in its text alone
            code = re.search(r"os error (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors onto the CPU; `RecloopError` names the file where it is missing or broken."""
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise RecloopError(f"{path} is missing; the folder is incomplete, make it anew") from None
    except SafetensorError as error:
        raise RecloopError(f"{path} is damaged ({error}); make the folder anew") from None
