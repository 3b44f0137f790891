"""A command that is stopped ends within three seconds, whatever it is at, and says what is kept."""

import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import ctypes, sys, time
from recloop.experiments.cli import guarded
from recloop.experiments.stopping import telling_what_is_kept

def swallowed():
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        raise ImportError("a library made its own of it")

def deaf():
    ctypes.CDLL(None).sleep(5)  # twice: the first is ended by the signal itself
    ctypes.CDLL(None).sleep(30)

def run():
    print("ready", flush=True)
    with telling_what_is_kept(lambda: "all of it is kept"):
        {"waiting": lambda: time.sleep(30), "swallowed": swallowed, "deaf": deaf}[sys.argv[1]]()

guarded(run)
"""


@pytest.mark.parametrize("kind", ["waiting", "swallowed", "deaf"])
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_within_three_seconds(kind: str, stop: signal.Signals, code: int) -> None:
    arguments = [sys.executable, "-c", COMMAND, kind]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    started = time.monotonic()
    process.send_signal(stop)
    _, errors = process.communicate(timeout=40)
    assert time.monotonic() - started < 3
    assert process.returncode == code
    assert errors.startswith("recloop: interrupted; ")
    assert len(errors.splitlines()) == 1
    assert "kept" in errors
