"""Files and folders that are replaced whole: killed at any moment, the old or the new one is there, never neither."""

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recloop.encoders.base.locks import claim
from recloop.encoders.base.manifest import Manifest

_LEFT = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>part|old)")
"""Names of what is being written, and of what was moved away for it."""
_AT_CWD, _EXCHANGE, _SWAP = -100, 2, 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _within_part(path):  # the folder around it is replaced whole
        yield path
        return
    sweep(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        claim(handle)
        yield part
        part.chmod(0o644)
        _sync(part)
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path, made_with: Mapping[str, Any] | None = None, manifest: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; exchange the two on success, remove what is over on any end.

    A reader meets the old or the new folder where the system can exchange two names (Linux, macOS); elsewhere two
    renames stand for it, and `sweep` undoes the first where the second was not reached.

    Args:
        folder: what is replaced; of a link, what it points to.
        made_with: settings that the manifest keeps.
        manifest: whether the folder gets one (`recloop.encoders.base.manifest`); one for all that is below it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _within_part(folder):
        if folder.exists() and any(folder.iterdir()):
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        yield folder
        return
    folder = Path(os.path.realpath(folder))
    sweep(folder.parent)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    handle = None
    try:
        part.chmod(0o755)
        handle = _held(part)
        yield part
        if manifest:
            Manifest.of(part, made_with).write(part)
        _sync_tree(part)
        if folder.exists():
            _exchange(part, folder)
        else:
            os.rename(part, folder)
        _sync_folder(folder.parent)
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(part, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove from `folder` what dead processes left half-written, and put back what they had only moved away."""
    try:
        left = [entry.name for entry in os.scandir(folder) if _LEFT.fullmatch(entry.name)]
    except OSError:
        return  # not there, or not ours to read
    for found in filter(None, map(_LEFT.fullmatch, left)):
        path, place = folder / found[0], folder / found["name"]
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            if not claim(handle):
                continue  # somebody is at it, or nobody can tell
            if found["kind"] == "old" and not place.exists():
                os.replace(path, place)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue  # a disk that cannot be written: it stays
        finally:
            os.close(handle)


def _exchange(part: Path, folder: Path) -> None:
    """Swap two names; what was `folder` lies at `part` then, or is gone."""
    if _exchanged(part, folder):
        return
    old = part.with_suffix(".old")
    handle = _held(folder)
    try:
        os.replace(folder, old)
        os.replace(part, folder)
    finally:
        if not folder.exists():  # interrupted between the two
            os.replace(old, folder)
        if handle is not None:
            os.close(handle)
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the system swapped two names in one step; False where it cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, _SWAP)
    elif hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_CWD, names[0], _AT_CWD, names[1], _EXCHANGE)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _held(path: Path) -> int | None:
    """A folder that a sweep lets be until the handle is closed."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # Windows opens no folders
    claim(handle)
    return handle


def _within_part(path: Path) -> bool:
    return any(_LEFT.fullmatch(name) for name in path.parts)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.EBADF, errno.ENOTSUP):
            raise


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(root, name))
        _sync_folder(Path(root))
