"""Folders and files are replaced whole: killed at any system call, the old or the new one is there, never neither."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from recloop.encoders.base import replacing
from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.locks import one_writer
from recloop.encoders.base.manifest import Manifest, check_files
from recloop.encoders.base.replacing import replacing_file, replacing_folder, sweep


def _write(folder: Path, text: str) -> None:
    with replacing_folder(folder) as part:
        for name in ("a", "b"):
            (part / name).write_text(text)


def _texts(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("a", "b")}


@pytest.mark.parametrize("without_exchange", [False, True])
def test_a_kill_at_any_call_leaves_the_old_or_the_new_folder(tmp_path: Path, without_exchange: bool) -> None:
    """Forked, so that a hundred deaths cost a second."""
    seen, place = set(), 0
    while "finished" not in seen:
        place += 1
        folder = tmp_path / str(place) / "kept"
        _write(folder, "old")
        seen.add(_killed_at(place, folder, without_exchange))
        sweep(folder.parent)
        texts = _texts(folder)
        assert texts in ({"old"}, {"new"}), place
        seen |= texts
        check_files(folder, required=True)
        assert [path.name for path in folder.parent.iterdir()] == ["kept"], place
    assert seen == {"old", "new", "killed", "finished"}
    assert place > 30


def _killed_at(place: int, folder: Path, without_exchange: bool) -> str:
    """Write the folder in a process of its own that dies at its call number `place` into the system."""
    child = os.fork()
    if child:
        return "killed" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9 else "finished"
    left = place

    def falling(frame: object, event: str, called: object) -> None:
        nonlocal left
        if event == "c_call" and getattr(called, "__module__", "") in ("posix", "_io"):
            left -= 1
            if left == 0:
                os._exit(9)

    if without_exchange:
        replacing._exchanged = lambda one, other: False  # type: ignore[assignment]
    try:
        sys.setprofile(falling)
        _write(folder, "new")
        sys.setprofile(None)
    finally:
        os._exit(0)


@pytest.mark.parametrize("without_exchange", [False, True])
def test_an_interruption_at_any_call_leaves_no_trace(
    tmp_path: Path, without_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without_exchange:
        monkeypatch.setattr(replacing, "_exchanged", lambda one, other: False)
    _write(tmp_path / "kept", "old")
    for name in ("replace", "rename", "fsync"):
        real = getattr(os, name)

        def stopped(*given: object, real=real) -> object:  # type: ignore[no-untyped-def]
            done = real(*given)
            raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patched:
            patched.setattr(os, name, stopped)
            with suppress(KeyboardInterrupt):
                _write(tmp_path / "kept", "new")
        sweep(tmp_path)
        assert _texts(tmp_path / "kept") in ({"old"}, {"new"}), name
        assert [path.name for path in tmp_path.iterdir()] == ["kept"], name


def test_a_reader_never_meets_a_missing_folder(tmp_path: Path) -> None:
    _write(tmp_path / "kept", "0")
    done, missing, met = threading.Event(), 0, 0

    def read() -> None:
        nonlocal missing, met
        while not done.is_set():
            met += 1
            missing += not (tmp_path / "kept").exists()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        _write(tmp_path / "kept", str(number))
    done.set()
    reader.join()
    assert met > 200
    assert missing == 0


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "kept") as part, replacing_file(tmp_path / "file") as other:
        (part / "a").write_text("half")
        sweep(tmp_path)
        assert part.exists()
        assert other.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "kept"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    _write(tmp_path / "large disk" / "kept", "old")
    (tmp_path / "kept").symlink_to(tmp_path / "large disk" / "kept")
    _write(tmp_path / "kept", "new")
    assert (tmp_path / "kept").is_symlink()
    assert _texts(tmp_path / "large disk" / "kept") == {"new"}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "a").write_text("neu"), "a is damaged"),
        (lambda f: (f / "a").write_text(""), "a is damaged"),
        (lambda f: (f / "a").unlink(), "a is missing"),
        (lambda f: (f / "c").write_text("more"), "c is not in"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: Manifest({}, {"seed": 1}).write(f), "is not in"),
    ],
)
def test_a_folder_that_is_not_as_it_was_written_is_refused(tmp_path: Path, harm, said: str) -> None:  # type: ignore[no-untyped-def]
    _write(tmp_path / "kept", "new")
    check_files(tmp_path / "kept", required=True)
    (tmp_path / "kept" / ".DS_Store").write_text("strewn")
    check_files(tmp_path / "kept", required=True)
    harm(tmp_path / "kept")
    with pytest.raises(RecloopError, match=said) as error:
        check_files(tmp_path / "kept", required=True)
    assert "\n" not in str(error.value)


def test_settings_in_a_manifest_are_covered_by_its_digest(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "kept", {"seed": 1}) as part:
        (part / "a").write_text("new")
    path = tmp_path / "kept" / "manifest.json"
    manifest = Manifest.read(tmp_path / "kept")
    assert manifest is not None
    assert manifest.made_with == {"seed": 1}
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(RecloopError, match="its digest differs"):
        Manifest.read(tmp_path / "kept")


HOLDER = """
import sys, time
from pathlib import Path
from recloop.encoders.base.locks import one_writer

with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_write_one_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RecloopError, match=rf"run is being written by process {holder.pid} on \S+ \(.*since 2"):
        one_writer(folder).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    with one_writer(folder), one_writer(folder):  # a command within a command
        assert (tmp_path / ".run.lock").exists()
    assert time.monotonic() - started < 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_has_one_lock_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    for name in (Path(), tmp_path / "link", tmp_path / "run"):
        with one_writer(name):
            assert (tmp_path / ".run.lock").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "run"]


def test_two_threads_never_write_one_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            with one_writer(tmp_path / "run"):
                pass
        except RecloopError as error:
            refused.append(str(error))

    with one_writer(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in refused[0]
