"""One number for what a value holds: equal contents, equal digest, on any device."""

import hashlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.storage import json_like


def digest_of_value(value: Any) -> str:
    """sha256 over tensors, arrays, artifacts, modules, dataclasses, containers and plain facts.

    Of anything else, such as users of a person's own, the class and the file it is written in are all that counts.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", value: Any) -> None:
    match value:
        case None | bool() | int() | float() | str():
            _say(digest, type(value).__name__, repr(value))
        case Tensor():
            _say(digest, "tensor", str(value.dtype), str(tuple(value.shape)))
            flat = value.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
            digest.update(flat.view(torch.uint8).numpy().tobytes())  # as bytes: NumPy knows no bfloat16
        case np.ndarray():
            _say(digest, "array", str(value.dtype), str(value.shape))
            digest.update(np.ascontiguousarray(value).tobytes())
        case Artifact():
            _say(digest, type(value).__qualname__)
            for part in (json_like(value.stored_facts()), value.stored_tensors(), value.stored_children()):
                _feed(digest, part)
        case nn.Module():
            _say(digest, type(value).__qualname__)
            _feed(digest, value.state_dict())
        case Mapping():
            _say(digest, "mapping", str(len(value)))
            for name in sorted(value, key=str):
                _say(digest, str(name))
                _feed(digest, value[name])
        case list() | tuple():
            _say(digest, "list", str(len(value)))
            for one in value:
                _feed(digest, one)
        case _ if is_dataclass(value) and not isinstance(value, type):
            _say(digest, type(value).__qualname__)
            _feed(digest, {field.name: getattr(value, field.name) for field in fields(value)})
        case _:
            _feed_source(digest, value if inspect.isroutine(value) or isinstance(value, type) else type(value))


def _feed_source(digest: "hashlib._Hash", code: Any) -> None:
    """What is known of code: its name and the file that it is written in."""
    _say(digest, code.__module__, code.__qualname__)
    with suppress(TypeError, OSError):  # made in a session, or built in
        digest.update(Path(inspect.getfile(code)).read_bytes())


def _say(digest: "hashlib._Hash", *words: str) -> None:
    for word in words:
        said = word.encode("utf-8", "surrogatepass")
        digest.update(len(said).to_bytes(8, "little") + said)
