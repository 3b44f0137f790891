"""Commands in processes of their own: killed, stopped, two at once, on disks that are full or cannot be written."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from recloop.experiments.cli import main as recloop
from recloop.experiments.comparison.result_store import digest_of_folder
from recloop.experiments.studies.faults.damage import HARMLESS, REFUSED, WRONG

PATIENCE = 3.0
"""Seconds within which a stopped command must have ended."""
_GRACE = 2.0
"""Seconds after which no process of a killed command may be alive."""


@dataclass(frozen=True)
class Tried:
    """A command that writes into a folder.

    Args:
        name: what tables call it.
        arguments: of `recloop`, for a folder.
        result: digest of what it wrote there, of all that must not depend on when it was killed.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], str]


def commands(log: Path, world: Path, jobs: int) -> tuple[Tried, ...]:
    """Build, train and compare, small."""

    def build(place: Path) -> list[str]:
        encoder = "--encoder.text none --encoder.kg none --encoder.segments -1 --encoder.topics 0 --encoder.dim 8"
        fits = "--encoder.next-item.epochs 1 --users.epochs 1 --members 1 --no-examine --slate-size 3"
        small = f"{encoder} {fits}"
        return ["build", str(log), "--out", str(place / "out"), "--cache", str(place / "cache"), *small.split()]

    def train(place: Path) -> list[str]:
        small = "--agent a2c --steps 2560 --checkpoint-every 1 --episodes 4"
        paths = ["--out", str(place / "out"), "--checkpoint", str(place / "checkpoint")]
        return ["train", str(world), *paths, *small.split()]

    def compare(place: Path, more: tuple[str, ...] = ()) -> list[str]:
        small = "--policies random popularity a2c --steps 1280 --seeds 2 --episodes 8"
        return ["compare", str(world), "--out", str(place / "out"), *small.split(), *more]

    def results(place: Path) -> str:
        policies = digest_of_folder(place / "out" / "policies")
        return digest_of_folder(place / "out" / "results.csv") + policies + left_behind(place)

    def folder(place: Path) -> str:
        return digest_of_folder(place / "out") + left_behind(place)

    side_by_side = Tried(f"compare --jobs {jobs}", lambda place: compare(place, ("--jobs", str(jobs))), results)
    return (
        Tried("build", build, folder),
        Tried("train", train, folder),
        Tried("compare", compare, results),
        *((side_by_side,) if jobs > 1 else ()),
    )


def left_behind(place: Path) -> str:
    """Names of half-written things and locks below a folder."""
    names = (path.name for path in place.rglob(".*"))
    return " ".join(sorted(name for name in names if name.endswith((".part", ".old", ".lock"))))


class Running:
    """A command in a process of its own, forked from this one, which has imported everything already.

    Args:
        arguments: of `recloop`.
        said: file for what it says.
        before: called in the process, before the command.
    """

    def __init__(self, arguments: list[str], said: Path, before: Callable[[], None] = lambda: None) -> None:
        self.said = said
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            _become([*arguments, "--no-progress"], said, before)

    def wait(self, seconds: float = 600.0) -> int | None:
        """The exit code, negative for a signal; None where it has not ended."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None

    def send(self, number: int, all_of_them: bool = False) -> None:
        """Send a signal to the process, or to its workers too, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process, number) if all_of_them else os.kill(self.process, number)

    @property
    def alive(self) -> bool:
        """Whether any process of the command is."""
        try:
            os.killpg(self.process, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def last_line(self) -> str:
        """The last it said."""
        lines = self.said.read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    @property
    def in_one_line(self) -> bool:
        """Whether it said what is wrong in one line."""
        return self.last_line.startswith("recloop: ") and "Traceback" not in self.said.read_text(errors="replace")


def finished(tried: Tried, place: Path) -> tuple[str, float]:
    """The result of an undisturbed run, and its seconds."""
    place.mkdir(parents=True)
    started = time.monotonic()
    running = Running(tried.arguments(place), place / "said")
    code = running.wait()
    if code != 0:
        raise RuntimeError(f"{tried.name} ended with {code}: {running.said.read_text(errors='replace')}")
    return tried.result(place), time.monotonic() - started


def kills(tried: Tried, sound: str, seconds: float, place: Path, luck: random.Random) -> Iterator[str]:
    """Kill a command at random for ever and run it again; what became of each."""
    number = 0
    while True:
        number += 1
        here = place / str(number)
        here.mkdir(parents=True)
        running = Running(tried.arguments(here), here / "killed")
        ended = running.wait(luck.uniform(0.05, seconds))
        if ended is None:
            running.send(signal.SIGKILL)
            running.wait()
            time.sleep(_GRACE)
        survived = running.alive
        again = Running(tried.arguments(here), here / "said")
        sound_again = again.wait() == 0 and tried.result(here) == sound
        yield HARMLESS if sound_again and not survived else WRONG


def stops(tried: Tried, seconds: float, place: Path, luck: random.Random) -> Iterator[str]:
    """Stop a command at random for ever, by Ctrl-C and TERM; what became of each."""
    number = 0
    while True:
        number += 1
        here = place / str(number)
        here.mkdir(parents=True)
        stop = luck.choice((signal.SIGINT, signal.SIGTERM))
        running = Running(tried.arguments(here), here / "said")
        if running.wait(luck.uniform(0.3, seconds)) is not None:
            yield HARMLESS  # it was faster
            continue
        running.send(stop, all_of_them=True)
        code = running.wait(PATIENCE)
        right = code == 128 + stop and running.in_one_line and "kept" in running.last_line
        if code is None:
            running.send(signal.SIGKILL, all_of_them=True)
            running.wait()
        elif code == 0 and not running.alive:
            right = True  # it had just ended
        yield REFUSED if right and not running.alive and not _soon_alive(running) else WRONG


def two_writers(tried: Tried, sound: str, place: Path) -> str:
    """Start a command twice in one folder: one is refused in a line that names the other, and the result is sound."""
    place.mkdir(parents=True)
    first = Running(tried.arguments(place), place / "first")
    time.sleep(0.3)
    second = Running(tried.arguments(place), place / "second")
    codes = sorted([first.wait() or 0, second.wait() or 0])
    refused = second if "is being written by process" in second.last_line else first
    named = refused.in_one_line and "is being written by process" in refused.last_line
    return REFUSED if codes == [0, 2] and named and tried.result(place) == sound else WRONG


def on_disk(tried: Tried, place: Path, before: Callable[[], None] = lambda: None) -> str:
    """Run a command where it cannot write: it must end in one line and leave nothing."""
    said = place.parent / f"{place.name}.said"
    running = Running(tried.arguments(place), said, before)
    code = running.wait()
    sound = code == 2 and running.in_one_line and not left_behind(place)
    return REFUSED if sound else WRONG


@contextmanager
def small_disk(place: Path, room: int | None) -> Iterator[bool]:
    """A disk of `room` KiB at `place`, None for one that cannot be written; False where this user may mount none."""
    place.mkdir(parents=True)
    options = "ro" if room is None else f"size={room}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode
    try:
        yield mounted == 0
    finally:
        if mounted == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


def _soon_alive(running: Running) -> bool:
    time.sleep(0.2)
    return running.alive


def _die_with(parent: int) -> None:
    """A study that is stopped leaves no command running."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _become(arguments: list[str], said: Path, before: Callable[[], None]) -> None:
    code = 1
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    try:
        os.setpgid(0, 0)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        before()
        recloop(arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
