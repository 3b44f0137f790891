"""Studies side by side: workers die with their parent, and after a stop nothing new begins."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from recloop.experiments.cli import guarded
from recloop.experiments.comparison.workers import work_through
from recloop.experiments.stopping import telling_what_is_kept

@dataclass(frozen=True)
class Unit:
    name: str
    folder: Path
    seconds: float

def work(unit):
    (unit.folder / f"{unit.name}.begun").write_text(str(os.getpid()))
    if unit.name == "fails":
        raise ValueError("it fails")
    if unit.name == "dies":
        os._exit(5)
    time.sleep(unit.seconds)
    (unit.folder / f"{unit.name}.done").write_text("")

def study():
    folder, seconds, names = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    with telling_what_is_kept(lambda: f"{len(list(folder.glob('*.done')))} of {len(names)} are kept"):
        work_through([Unit(name, folder, seconds) for name in names], work, 2, "study", False)
    print("finished")

if __name__ == "__main__":
    guarded(study)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "out").mkdir()
    return tmp_path / "study.py"


def _started(script: Path, seconds: float, *names: str) -> "subprocess.Popen[str]":
    arguments = [sys.executable, str(script), str(script.parent / "out"), str(seconds), *names]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _begun(out: Path, count: int) -> list[int]:
    """Processes of the units that have begun, once there are so many."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        found = [path.read_text() for path in out.glob("*.begun")]
        if len([text for text in found if text]) >= count:
            return [int(text) for text in found if text]
        time.sleep(0.02)
    raise AssertionError("the units do not begin")


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_units_are_done_side_by_side(script: Path) -> None:
    said, errors = _started(script, 0.0, "a", "b", "c").communicate(timeout=60)
    assert said == "finished\n", errors
    assert len(list((script.parent / "out").glob("*.done"))) == 3


def test_workers_die_with_a_killed_parent_and_nothing_new_begins(script: Path) -> None:
    parent = _started(script, 1.0, "a", "b", "c", "d")
    workers = _begun(script.parent / "out", 2)
    parent.kill()
    parent.communicate()
    time.sleep(1.5)
    assert [process for process in workers if _alive(process)] == []
    assert len(list((script.parent / "out").glob("*.begun"))) == 2


def test_workers_that_are_still_importing_die_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("""
import os, time
from pathlib import Path
if os.environ["PARENT"] != str(os.getpid()):
    (Path(__file__).parent / f"{os.getpid()}.importing").touch()
    time.sleep(30)

def work(unit):
    pass
""")
    program = f"""
import os, sys
os.environ["PARENT"] = str(os.getpid())
sys.path.insert(0, {str(tmp_path)!r})
from recloop.experiments.comparison.workers import side_by_side
from slow import work
list(side_by_side(["a", "b"], work, 2))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    limit = time.monotonic() + 60
    while len(workers := list(tmp_path.glob("*.importing"))) < 2 and time.monotonic() < limit:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    time.sleep(1)
    assert len(workers) == 2
    assert [path.stem for path in workers if _alive(int(path.stem))] == []


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_ends_everything_at_once_and_says_what_is_kept(script: Path, stop: signal.Signals, code: int) -> None:
    parent = _started(script, 30.0, "a", "b", "c", "d")
    workers = _begun(script.parent / "out", 2)
    started = time.monotonic()
    os.killpg(parent.pid, stop)  # as a terminal does: to all of them
    _, errors = parent.communicate(timeout=30)
    assert time.monotonic() - started < 3
    assert parent.returncode == code
    assert errors.strip() == "recloop: interrupted; 0 of 4 are kept"
    assert [process for process in workers if _alive(process)] == []
    assert len(list((script.parent / "out").glob("*.begun"))) == 2


def test_what_fails_or_dies_is_told_and_what_had_begun_is_finished(script: Path) -> None:
    failed = _started(script, 0.5, "fails", "b", "c", "d")
    _, errors = failed.communicate(timeout=60)
    assert "ValueError: it fails" in errors
    assert (script.parent / "out" / "b.done").exists()
    died = _started(script, 0.0, "dies", "b")
    _, errors = died.communicate(timeout=60)
    assert died.returncode == 2
    assert "a process of --jobs died (exit code 5)" in errors
