"""Commands in processes of their own: killed, stopped, two at once, on disks that are full or cannot be written."""

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.experiments.comparison.result_store import digest_of_folder
from recloop.experiments.comparison.tracking import Tags, logged_curves
from recloop.experiments.studies.faults.outcomes import HARMLESS, REFUSED, Ending, wrong

PATIENCE = 3.0
"""Seconds within which a stopped command must have ended."""
_GRACE = 2.0
"""Seconds after which no process of a killed command may be alive."""
_FOREVER = 600.0
"""Seconds after which a command hangs."""
_RECLOOP = "from recloop.experiments.cli import main\nmain()"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Tried:
    """A command that writes into a folder.

    Args:
        name: what tables call it.
        arguments: of the program, for a folder.
        outputs: what it writes there of all that must not depend on what disturbed it, as globs; of folders whose
            name holds `tensorboard` the curves count, of all others every byte.
        program: Python; `recloop` if not told.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    outputs: tuple[str, ...]
    program: str = _RECLOOP

    def result(self, place: Path) -> dict[str, str]:
        """Digests of the outputs, by path."""
        found = sorted(path for pattern in self.outputs for path in place.glob(pattern))
        return {str(path.relative_to(place)): _digest(path) for path in found}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to.

    Args:
        result: digests of its outputs.
        seconds: it took.
        writing: of these, from its first file on.
    """

    result: Mapping[str, str]
    seconds: float
    writing: float


def commands(log: Path, world: Path, names: Sequence[str]) -> list[Tried]:
    """Build, train and compare, small, by name.

    Raises:
        RecloopError: a name that is none of these.
    """

    def build(place: Path) -> list[str]:
        encoder = "--encoder.text none --encoder.kg none --encoder.segments -1 --encoder.topics 0 --encoder.dim 8"
        fits = "--encoder.next-item.epochs 1 --users.epochs 1 --members 1 --no-examine --slate-size 3 --no-progress"
        small = f"{encoder} {fits}"
        return ["build", str(log), "--out", str(place / "out"), "--cache", str(place / "cache"), *small.split()]

    def train(place: Path) -> list[str]:
        small = "--agent a2c --steps 2560 --checkpoint-every 1 --episodes 4 --no-progress"
        paths = ["--out", str(place / "out"), "--checkpoint", str(place / "checkpoint")]
        return ["train", str(world), *paths, *small.split()]

    def compare(place: Path, more: tuple[str, ...] = ()) -> list[str]:
        small = "--policies random popularity a2c --steps 1280 --seeds 2 --episodes 8 --no-progress"
        return ["compare", str(world), "--out", str(place / "out"), *small.split(), *more]

    written = ("out/results.csv", "out/claims.json", "out/policies/*", "out/tensorboard/*")
    known = {
        "build": Tried("build", build, ("out/*",)),
        "train": Tried("train", train, ("out/*", "out-tensorboard")),
        "compare": Tried("compare", compare, written),
        "compare --jobs 2": Tried("compare --jobs 2", lambda place: compare(place, ("--jobs", "2")), written),
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecloopError(unknown_name("command", unknown[0], known))
    return [known[name] for name in names]


class Running:
    """A command in a process and a session of its own, all of which is over where the block is left.

    Args:
        tried: the command.
        place: its folder.
        before: Python to run in the process before the program.
    """

    def __init__(self, tried: Tried, place: Path, before: str = "") -> None:
        self._place = place
        self._process = subprocess.Popen(
            [sys.executable, "-c", before + tried.program, *tried.arguments(place)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **_ENVIRONMENT}, text=True, errors="replace",
        )  # fmt: skip
        self._said: list[str] = []  # no file: it would be on a disk that is not full
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        self._said.extend(self._process.stdout or ())

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *reason: object) -> None:
        self.send(signal.SIGKILL, all_of_them=True)
        self._process.wait()

    def wait(self, seconds: float = _FOREVER) -> int | None:
        """The exit code, negative for a signal; None where it has not ended."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def writes(self) -> None:
        """Wait until it has written something, or has ended."""
        while self.wait(0.01) is None and not any(self._place.iterdir()):
            pass

    def send(self, number: int, all_of_them: bool = False) -> None:
        """Send a signal to the process, or to its workers too, as a terminal does."""
        with suppress(ProcessLookupError):
            (os.killpg if all_of_them else os.kill)(self._process.pid, number)

    @property
    def alive(self) -> list[int]:
        """The processes of the command that are, but for those that wait to be buried."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self._process.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found

    @property
    def last_line(self) -> str:
        """The last it said before it ended."""
        self._listener.join(1)
        return self._said[-1].rstrip("\n") if self._said else ""

    @property
    def last_lines(self) -> str:
        """The last few it said, in one."""
        self._listener.join(1)
        return " | ".join(line.strip() for line in self._said[-8:])

    @property
    def in_one_line(self) -> bool:
        """Whether it said what is wrong in one line."""
        return self.last_line.startswith("recloop: ") and not any("Traceback" in line for line in self._said)


def undisturbed(tried: Tried, place: Path) -> Undisturbed:
    """Run a command to its end, as all others are measured by.

    Raises:
        RuntimeError: it did not end well.
    """
    place.mkdir(parents=True)
    started = time.monotonic()
    with Running(tried, place) as running:
        running.writes()
        began, code = time.monotonic(), running.wait()
        if code != 0:
            raise RuntimeError(f"{tried.name} ended with {code}: {running.last_line}")
    ended = time.monotonic()
    return Undisturbed(tried.result(place), ended - started, ended - began)


def kills(tried: Tried, sound: Undisturbed, place: Path, luck: random.Random) -> Iterator[Ending]:
    """Kill a command at random for ever, after it first wrote, and run it again; what became of each."""
    for here in _places(place):
        moment = luck.uniform(0, sound.writing)
        with Running(tried, here) as running:
            running.writes()
            if running.wait(moment) is not None:
                continue  # it was faster
            running.send(signal.SIGKILL)
            running.wait()
            time.sleep(_GRACE)
            alive = running.alive
        fault = f"{len(alive)} process(es) alive {_GRACE:g} s later" if alive else _gone_on(tried, sound, here)
        yield wrong(f"killed {moment:.2f} s after its first file: {fault}") if fault else Ending(HARMLESS)


def stops(tried: Tried, sound: Undisturbed, place: Path, luck: random.Random) -> Iterator[Ending]:
    """Stop a command at random for ever, by Ctrl-C or TERM, and run it again; what became of each."""
    for here in _places(place):
        stop = luck.choice((signal.SIGINT, signal.SIGTERM))
        moment = luck.uniform(0, sound.writing)
        with Running(tried, here) as running:
            running.writes()
            if running.wait(moment) is not None:
                continue  # it was faster
            running.send(stop, all_of_them=stop == signal.SIGINT)  # a terminal asks all, `kill` the one it names
            code = running.wait(PATIENCE)
            late = code in (0, -stop) and not _differs(tried, sound, here)  # its work was done
            fault = "" if late else _badly_stopped(running, code, stop)
        fault = fault or _gone_on(tried, sound, here)
        outcome = Ending(HARMLESS if late else REFUSED)
        yield wrong(f"{stop.name} {moment:.2f} s after its first file: {fault}") if fault else outcome


def two_writers(tried: Tried, sound: Undisturbed, place: Path) -> Iterator[Ending]:
    """Start a command in the folder of one that is held up, for ever: it must be refused, the first go on unharmed."""
    for here in _places(place):
        fault = _crowded(tried, sound, here)
        yield wrong(fault) if fault else Ending(REFUSED)


def _crowded(tried: Tried, sound: Undisturbed, place: Path) -> str:
    with Running(tried, place) as first:
        while not any(place.rglob(".*.lock")):
            if first.wait(0.01) is not None:
                return f"no lock was seen: {first.last_line}"
        first.send(signal.SIGSTOP, all_of_them=True)
        with Running(tried, place) as second:
            code = second.wait()
            if code != 2 or not second.in_one_line or "is being written by process" not in second.last_line:
                return f"the second ended with {code}: {second.last_line}"
        first.send(signal.SIGCONT, all_of_them=True)
        code = first.wait()
        return f"the first ended with {code}: {first.last_line}" if code else _differs(tried, sound, place)


def on_disk(tried: Tried, place: Path, room: int | None) -> Iterator[Ending]:
    """Run a command on a disk of `room` KiB, for ever: it must say so in one line and leave nothing.

    Args:
        room: None for a disk that cannot be written. Nothing is tried where this user may mount none.
    """
    for here in _places(place):
        with _small_disk(here, room) as mounted:
            if not mounted:
                return
            with Running(tried, here) as running:
                fault = _badly_refused(running, running.wait()) or _left_behind(here)
        yield wrong(fault) if fault else Ending(REFUSED)


def on_filling_disk(tried: Tried, sound: Undisturbed, place: Path, luck: random.Random) -> Iterator[Ending]:
    """Run a command where no file may grow beyond a size, for ever at random, and again where it may."""
    for here in _places(place):
        size = int(math.exp(luck.uniform(math.log(1 << 7), math.log(1 << 16))))
        with Running(tried, here, before=_NO_ROOM.format(size=size)) as running:
            code = running.wait()
            fault = "" if code == 0 else _badly_refused(running, code) or _left_behind(here)
        fault = fault or _gone_on(tried, sound, here)
        outcome = Ending(HARMLESS if code == 0 else REFUSED)
        yield wrong(f"no more than {size} bytes: {fault}") if fault else outcome


_NO_ROOM = """
import resource
from recloop.experiments import output

output._ROOM = 0  # nobody looked beforehand
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""


@contextmanager
def _small_disk(place: Path, room: int | None) -> Iterator[bool]:
    options = "ro" if room is None else f"size={room}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode
    try:
        yield mounted == 0
    finally:
        if mounted == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


def _gone_on(tried: Tried, sound: Undisturbed, place: Path) -> str:
    """What is wrong after the command was run once more; empty where its outputs are as if nothing had happened."""
    with Running(tried, place) as again:
        code = again.wait()
        return f"run again it ended with {code}: {again.last_line}" if code else _differs(tried, sound, place)


def _differs(tried: Tried, sound: Undisturbed, place: Path) -> str:
    found = tried.result(place)
    names = sorted(name for name in {*sound.result, *found} if sound.result.get(name) != found.get(name))
    return f"{', '.join(names)} differ from an undisturbed run's" if names else _left_behind(place)


def _badly_stopped(running: Running, code: int | None, stop: signal.Signals) -> str:
    if code != 128 + stop:
        return f"it did not end within {PATIENCE:g} s" if code is None else f"it ended with {code}: {running.last_line}"
    if not running.in_one_line or "kept" not in running.last_line:
        return f"it does not say in one line what is kept: {running.last_lines}"
    time.sleep(0.2)
    return f"{len(running.alive)} process(es) live on" if running.alive else ""


def _badly_refused(running: Running, code: int | None) -> str:
    return "" if code == 2 and running.in_one_line else f"it ended with {code}: {running.last_line}"


def _left_behind(place: Path) -> str:
    """Half-written things and locks below a folder."""
    names = sorted(path.name for path in place.rglob(".*") if path.suffix in (".part", ".old", ".lock"))
    return f"left behind: {', '.join(names)}" if names else ""


def _digest(path: Path) -> str:
    """Of a file or folder, or of the curves in one: their points, but for how fast it was."""
    if "tensorboard" not in str(path):
        return digest_of_folder(path)
    curves = logged_curves(path, sys.maxsize)
    return digest_of_value({tag: curve for tag, curve in curves.items() if tag != Tags.train_speed})


def _places(place: Path) -> Iterator[Path]:
    """Folders, a new one each time."""
    for number in count():
        here = place / str(number)
        here.mkdir(parents=True)
        yield here
