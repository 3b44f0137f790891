"""What a long build made so far, kept on disk by content: a killed build resumes, a second one is quick."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import recloop.encoders
import recloop.envs.users.fitted
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.manifest import check_files
from recloop.encoders.base.storage import replacing_folder

Made = TypeVar("Made")


class StageCache:
    """Folders named by the hash of everything a stage depends on: its inputs, its settings and the code that fits.

    Args:
        folder: where the stages lie; None keeps nothing.
        by_code: False where any fit will do, however the code has changed since: what does not load is made anew.
    """

    def __init__(self, folder: Path | None, by_code: bool = True) -> None:
        self.folder = folder
        self._code = _code_hash() if folder and by_code else b""

    def keep(
        self,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[], Made],
        save: Callable[[Made, Path], None],
        load: Callable[[Path], Made],
    ) -> Made:
        """What `make()` gave for these inputs before, or gives now. A damaged stage is made anew.

        Where the folder cannot be written, a warning says so and nothing is kept.

        Args:
            name: of the stage, the beginning of its folder's name.
            inputs: arrays, tensors and JSON facts; a change in any makes another stage.
            save: writes into an existing empty folder.
            load: reads what `save` wrote.
        """
        if self.folder is None:
            return make()
        stage = self.folder / f"{name}-{self._key(inputs)}"
        if stage.exists():
            try:
                check_files(stage, required=True)
                return load(stage)
            except (RecloopError, OSError, KeyError, ValueError, TypeError, RuntimeError):
                pass  # damaged: made anew below
        made = make()
        try:
            with replacing_folder(stage) as part:
                save(made, part)
        except OSError as error:
            said = f"{name} cannot be kept in {self.folder} ({error.strerror or error}); the next build fits it again"
            warnings.warn(said, stacklevel=2)
            return made
        return load(stage)

    def _key(self, inputs: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(self._code)
        for name in sorted(inputs):
            digest.update(name.encode())
            value = inputs[name]
            if isinstance(value, torch.Tensor):
                value = value.numpy()
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            else:
                digest.update(json.dumps(value, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:24]


def _code_hash() -> bytes:
    """Over the sources of the rooms that fit, so that a changed fit is not answered from the cache."""
    digest = hashlib.sha256()
    for package in (recloop.encoders, recloop.envs.users.fitted):
        for root in package.__path__:
            for source in sorted(Path(root).rglob("*.py")):
                digest.update(source.read_bytes())
    return digest.digest()
