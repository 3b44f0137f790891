"""Who writes where: a folder has one writer, and what a dead process held is free at once."""

import errno
import json
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from recloop.encoders.base.errors import RecloopError

try:
    import fcntl
except ImportError:  # Windows: nothing there tells the files of a dead process from those of a living one
    fcntl = None  # type: ignore[assignment]


class FolderInUse(RecloopError):
    """Another process, or another thread of this one, writes there."""


_HELD: set[tuple[str, int]] = set()
"""Locks of this process, by path and thread: a command within a command writes under the lock of the outer one."""


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes `folder`, under the lock `.NAME.lock` beside it.

    The system lets go of the lock when its holder dies, however it dies; the file names the holder for people.

    Raises:
        FolderInUse: another process, or another thread of this one, holds it; the line names it.
    """
    place = Path(os.path.realpath(folder))  # one lock, by whatever name the folder goes
    path = place.parent / f".{place.name}.lock"
    mine = (str(path), threading.get_ident())
    if mine in _HELD:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    held = _opened(path, folder)
    _HELD.add(mine)
    try:
        os.truncate(held, 0)
        os.write(held, (json.dumps(_myself()) + "\n").encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(held)
        _HELD.discard(mine)


def claim(handle: int) -> bool | None:
    """Hold an open file or folder until it is closed; False where another process does, None where nobody can tell."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _opened(path: Path, folder: Path) -> int:
    """The lock file, held by this process."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        got = claim(handle)
        if got is False:
            holder = _holder(handle)
            os.close(handle)
            raise FolderInUse(f"{folder} is being written by {holder}; wait for it, or name another folder")
        if got is None:
            warnings.warn(f"{folder} cannot be locked on this file system; start no second writer there", stacklevel=4)
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass  # its last holder took it away between the two: once more
        os.close(handle)


def _myself() -> dict[str, str | int]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    program = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started, "program": program}


def _holder(handle: int) -> str:
    try:
        facts = json.loads(os.pread(handle, 4096, 0))
        return f"process {facts['process']} on {facts['host']} ({facts['program']}, since {facts['started']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
