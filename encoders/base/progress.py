"""Progress of long work: a bar in a terminal or a notebook, a plain line now and then in a file or a pipe."""

import sys
import time
from collections.abc import Iterable
from threading import RLock
from typing import Any, TextIO

from tqdm import tqdm

_FIRST_LINE, _LONGEST_PAUSE = 15.0, 600.0
"""Seconds until the first line in a file, and most seconds between two; the pause doubles with every line."""
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}{postfix}"


def progress_bar(things: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """A progress bar with the options of `tqdm`, on stderr, in the form that suits where stderr goes.

    A terminal gets the bar, a notebook a widget where it has them. A file or pipe gets nothing of short work and few
    plain lines of long work, without carriage returns.
    """
    if "ipykernel" in sys.modules:
        return _notebook_bar(things, options)
    if sys.stderr.isatty():
        return _Bar(things, **options)
    return _Bar(things, **{"desc": "progress", **options}, file=_Lines(sys.stderr), bar_format=_LINE)


def _notebook_bar(things: Iterable[Any] | None, options: dict[str, Any]) -> "tqdm[Any]":
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets: the bar is text then
        from tqdm.auto import tqdm as fitting
    return fitting(things, **options)


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar of one process: the lock that `tqdm` has is a semaphore of the system, which a killed process leaves."""

    _lock = RLock()


class _Lines:
    """Takes what a bar draws over and over, and writes few lines of it; the last one where there were others."""

    encoding = "ascii"

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._pause = stream, _FIRST_LINE
        self._due = time.monotonic() + _FIRST_LINE
        self._last, self._written = "", ""

    def write(self, drawn: str) -> None:
        """What `tqdm` draws: the line anew, or the line break that ends it."""
        self._last = drawn.strip() or self._last
        due = time.monotonic() >= self._due if drawn.strip() else bool(self._written)
        if due and self._last != self._written:
            self._stream.write(f"{self._last}\n")
            self._stream.flush()
            self._written = self._last
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._due = time.monotonic() + self._pause

    def flush(self) -> None:
        """Lines are flushed as they are written."""
