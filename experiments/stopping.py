"""Ctrl-C and TERM: a command ends within three seconds, with the exit code that shells know, and says what is kept."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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
