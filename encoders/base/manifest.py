"""What a folder was made of: a digest of every file, and the settings that it was made with."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import RecloopError

MANIFEST = "manifest.json"
ANEW = "make the folder anew"


@dataclass(frozen=True)
class Manifest:
    """The contents of a folder.

    Args:
        files: sha256 by path from the folder, `/` between names; all files but the manifest.
        made_with: settings by name, as JSON; empty where nobody said.
    """

    files: Mapping[str, str]
    made_with: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, made_with: Mapping[str, Any] | None = None) -> "Manifest":
        """Of the files that are there now."""
        return cls({name: file_digest(folder / name) for name in _names(folder)}, dict(made_with or {}))

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Of a folder as it was written; None where it has none: it is older, or lies in a folder that has one.

        Raises:
            RecloopError: the manifest is damaged.
        """
        path = folder / MANIFEST
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            kept = {"files": facts["files"], "made_with": facts["made_with"]}
            if facts["digest"] != _digest(kept):
                raise ValueError("its digest differs")
            return cls(**kept)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecloopError(f"{path} is damaged ({' '.join(str(error).split())}); {ANEW}") from None

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        kept = {"files": dict(self.files), "made_with": dict(self.made_with)}
        text = json.dumps({**kept, "digest": _digest(kept)}, indent=1, sort_keys=True, default=str)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    def check(self, folder: Path, below: str = "") -> None:
        """Raise `RecloopError` for the first file below `below` that is missing, strange or not as it was written."""
        mine = {name: digest for name, digest in self.files.items() if name.startswith(below)}
        for name in sorted({*mine, *(name for name in _names(folder) if name.startswith(below))}):
            path = folder / name
            if name not in mine:
                raise RecloopError(f"{path} is not in {folder / MANIFEST}; remove it, or {ANEW}")
            if not path.is_file():
                raise RecloopError(f"{path} is missing; the folder is incomplete, make it anew")
            if file_digest(path) != mine[name]:
                raise RecloopError(f"{path} is damaged: it is not what {MANIFEST} says of it; {ANEW}")


def check_files(folder: Path, required: bool) -> None:
    """Hold the files of a folder against its manifest, or against that of a folder above it that they are a part of.

    Args:
        required: False for older formats, which had none.

    Raises:
        RecloopError: a file was changed, cut, added or lost, or there is no manifest where there must be one.
    """
    manifest = Manifest.read(folder)
    if manifest is not None:
        return manifest.check(folder)
    below, above = folder.name, folder.parent
    while required and above != above.parent:
        manifest = Manifest.read(above)
        if manifest is not None and any(name.startswith(f"{below}/") for name in manifest.files):
            return manifest.check(above, f"{below}/")
        below, above = f"{above.name}/{below}", above.parent
    if required:
        raise RecloopError(f"{folder / MANIFEST} is missing; the folder is incomplete, make it anew")


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any], everything: bool = False) -> str | None:
    """The first setting that differs, in words; None where all are equal.

    Args:
        everything: whether a name that one of the two lacks counts; a later recloop may know more settings.

    >>> difference({"seed": 0, "encoder": {"dim": 64}}, {"seed": 0, "encoder": {"dim": 32}, "new": 1})
    'its encoder.dim is 64, here it is 32'
    """
    for name in sorted({*theirs, *mine} if everything else {*theirs} & {*mine}):
        one, other = theirs.get(name), mine.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found = difference(one, other, everything)
            if found is not None:
                return found.replace("its ", f"its {name}.", 1)
        elif one != other:
            return f"its {name} is {str(one)[:60]}, here it is {str(other)[:60]}"
    return None


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """Files below a folder but the manifest, and but hidden ones, which systems strew."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(p.as_posix() for p in paths if p.as_posix() != MANIFEST and not p.name.startswith("."))


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
