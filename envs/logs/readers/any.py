"""One door to every reader: look at what a path holds and read it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recloop.encoders.errors import LogError
from recloop.envs.logs.readers.atomic import read_atomic_log
from recloop.envs.logs.readers.sequence_text import read_sequence_log
from recloop.envs.logs.schema import LoggedBehavior

Reader = Callable[..., LoggedBehavior]


def read_log(path: str | Path, **options: Any) -> LoggedBehavior:
    """Read a log, whatever its format.

    Looked for, in this order: a RecBole `*.inter`; a `*.sequences.txt`. A folder must hold one log.

    Args:
        path: a folder, or the file of the interactions.
        options: go to the reader that fits; all take `on_bad_rows`.

    Raises:
        LogError: nothing known is there, or more than one log; else what the reader refuses.
    """
    place = Path(path)
    reader, found = _recognise(place)
    return reader(found, **options)


def _recognise(place: Path) -> tuple[Reader, Path]:
    if not place.exists():
        raise LogError(f"{place} is not there; check the path")
    for pattern, reader in ((".inter", read_atomic_log), (".sequences.txt", read_sequence_log)):
        if place.is_file():
            found = [place] if place.name.endswith(pattern) else []
        else:
            found = sorted(place.glob(f"*{pattern}"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise LogError(f"{place} holds more than one log ({names}); give one of these files")
        if found:
            return reader, found[0]
    raise LogError(f"{place} holds no log: looked for *.inter and *.sequences.txt")
