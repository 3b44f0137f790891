"""Where a command writes: looked at, locked and tried before anything costly, and never replaced by other settings."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.locks import one_writer
from recloop.encoders.base.manifest import Manifest, difference
from recloop.encoders.base.replacing import sweep
from recloop.encoders.base.storage import json_like

_ROOM = 1 << 22
"""Bytes that must fit before a fit begins."""


@contextmanager
def replacing_output(
    folder: Path, marker: str, what: str, made_with: Mapping[str, Any], overwrite: bool
) -> Iterator[dict[str, Any]]:
    """Be the one that replaces a folder; yields the settings for its manifest.

    Args:
        folder: what `--out` names.
        marker: file that shows that a folder is a `what`.
        what: `world` or `policy`.
        made_with: settings that decide what the folder will hold.
        overwrite: whether what was made with others may be replaced.

    Raises:
        RecloopError: something else is there, or one of other settings; another process writes it; it cannot be
            written, or nothing fits there any more.
    """
    checked_out(folder, marker, what)
    settings: dict[str, Any] = plain(made_with)
    with writing(folder):
        if (folder / marker).exists() and not overwrite:
            manifest = Manifest.read(folder)
            refuse_others(folder, what, {} if manifest is None else manifest.made_with, settings)
        yield settings


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the one that writes into or in place of `folder`: locked, swept, and with room to write."""
    with one_writer(folder):
        sweep(folder.parent)
        sweep(folder)
        try:
            with tempfile.TemporaryFile(dir=folder.parent) as tried:
                tried.write(bytes(_ROOM))
        except OSError as error:
            raise RecloopError(
                f"{folder} cannot be written ({error.strerror or error}); make room there, or name another folder"
            ) from None
        yield


def checked_out(folder: Path, marker: str, what: str) -> None:
    """Raise `RecloopError` where writing `folder` would replace something that is not a `what`.

    A folder is replaced whole, so it must be new, empty, or hold the file `marker` of an earlier one.
    """
    if folder.is_file():
        raise RecloopError(f"--out {folder} is a file; name a folder for the {what}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists():
        raise RecloopError(
            f"--out {folder} exists and is no {what} ({marker} is missing); it would be replaced, name another folder"
        )


def refuse_others(folder: Path, what: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raise `RecloopError` for a folder that was made with other settings, or with settings that nobody knows."""
    differs = difference(theirs, mine) if theirs else "nobody knows its settings"
    if differs is not None:
        raise RecloopError(
            f"--out {folder} holds another {what}: {differs}; add --overwrite to replace it, or name another folder"
        )


def plain(settings: Any) -> Any:
    """Settings as JSON has them; paths are whole, so that the folder one stands in does not matter."""
    if isinstance(settings, Path):
        return str(settings.resolve())
    if isinstance(settings, Mapping):
        return {str(name): plain(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(value) for value in settings]
    return json_like(settings)
