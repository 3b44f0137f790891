"""Ctrl-C and TERM: a command ends within three seconds, with the exit code that shells know, and says what is kept.
A time limit ends work in the same way, and the command goes on with what it has."""

import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from recloop.encoders.base.errors import RecloopError

PATIENCE = 2.0
"""Seconds that a stopped command has to end by itself, before it is ended."""

_KEPT: list[Callable[[], str]] = []
"""What would be kept if the command were stopped now, the outermost first."""
_NOTHING_SAID = "nothing half-written was left; what was finished before is kept"


@contextmanager
def telling_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """A stop meanwhile ends in one line that says what is kept."""
    _KEPT.append(kept)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {kept()}") from None
    finally:
        _KEPT.remove(kept)


class Stops:
    """The signals that stop a command, while it is entered; in the main thread alone.

    The first one raises KeyboardInterrupt, further ones are ignored. Where that does not end the command in `PATIENCE`
    seconds, because it is at work deep inside a library, a thread ends it.

    Attributes:
        stopped_by: the signal that came first, or None.
        told: whether somebody has said what is kept.
    """

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        self.told = False
        self._before: dict[int, object] = {}

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after TERM."""
        return 128 + (self.stopped_by or signal.SIGINT)

    def __enter__(self) -> "Stops":
        if threading.current_thread() is threading.main_thread():
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self._sockets = (ours, theirs)
            self._wakeup = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._stop)
            threading.Thread(target=self._watch, args=(theirs,), daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._before and self.stopped_by is None:  # once stopped, the thread sees the process to its end
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            signal.set_wakeup_fd(self._wakeup)
            self._sockets[0].close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is None:
            self.stopped_by = number
            raise KeyboardInterrupt

    def _watch(self, told: socket.socket) -> None:
        """Wait for the first stop, in a thread that no busy library holds up, and then for the end of the process."""
        number = 0
        while number not in (signal.SIGINT, signal.SIGTERM):
            said = told.recv(1)
            if not said:
                told.close()
                return
            number = said[0]
        threading.Event().wait(PATIENCE)
        if not self.told:
            kept = _KEPT[-1]() if _KEPT else _NOTHING_SAID
            print(f"recloop: interrupted; {kept}", file=sys.stderr, flush=True)
        os._exit(128 + number)


def said_on_stop(stop: BaseException) -> str:
    """The line for a command that was stopped."""
    return str(stop) if isinstance(stop, KeyboardInterrupt) and str(stop) else f"interrupted; {_NOTHING_SAID}"


class TimeLimit:
    """Work within it is interrupted, as by Ctrl-C, once its time is up, and the program goes on behind it.

    Where there is no alarm (Windows, threads other than the main one) nothing is interrupted: ask `is_up` between
    parts.

    Args:
        seconds: None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.end = math.inf if seconds is None else time.monotonic() + seconds
        main = threading.current_thread() is threading.main_thread()
        self._alarm, self._rang = seconds is not None and main and hasattr(signal, "setitimer"), False

    @property
    def left(self) -> float:
        """Seconds; below zero once it is over."""
        return self.end - time.monotonic()

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return self.left <= 0

    def __str__(self) -> str:
        return "" if self.end == math.inf else f"{duration(max(self.left, 0))} left"

    def __enter__(self) -> "TimeLimit":
        if self._alarm:
            self._before: Any = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, max(self.left, 1e-6))
        return self

    def __exit__(self, kind: type[BaseException] | None, *reason: object) -> bool:
        if self._alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        return kind is not None and issubclass(kind, KeyboardInterrupt) and self._rang

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self._rang = True
        raise KeyboardInterrupt


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str | None) -> float | None:
    """A time in words as seconds; None stays None.

    >>> seconds_of("90s"), seconds_of("1h30m"), seconds_of("0.5m")
    (90.0, 5400.0, 30.0)
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not total:
        raise RecloopError(f"--budget {text} is no time; write 90s, 30m, 2h or 1h30m")
    return total


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(12.4), duration(1800), duration(5400)
    ('12s', '30m', '1h30m')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m"
