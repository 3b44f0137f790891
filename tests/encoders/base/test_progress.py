"""Progress: a bar where somebody looks, few plain lines where it goes to a file."""

import io
import re
import sys
from pathlib import Path

import pytest

from recloop.encoders.base import progress
from recloop.encoders.base.progress import progress_bar


class Terminal(io.StringIO):
    """Says that somebody looks."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int = 1000) -> str:
    """What a loop writes whose steps take `seconds` each."""
    clock = [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress_bar(total=steps, desc="work", unit="step", mininterval=0, miniters=1) as bar:
        for _ in range(steps):
            clock[0] += seconds
            bar.set_postfix(loss="0.5")
            bar.update()
    return stream.getvalue()


def test_short_work_leaves_a_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch, 0.01) == ""


def test_long_work_writes_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(io.StringIO(), monkeypatch, 10.0)  # nearly three hours
    assert "\r" not in said
    assert 5 <= len(said.splitlines()) <= 30
    assert said.isascii()
    assert said.splitlines()[-1].startswith("work: 1000 of 1000 steps in ")
    assert "loss=0.5" in said


def test_a_terminal_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "100%" in shown(Terminal(), monkeypatch, 0.01)


def test_nothing_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.0)
    assert list(progress_bar(range(3), disable=True)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_notebook_gets_what_fits_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    from tqdm.auto import tqdm

    assert type(progress_bar(range(3), disable=True)) is tqdm


def test_all_loops_share_the_helper() -> None:
    root = Path(__file__).parents[3]
    sources = [path for room in ("encoders", "envs", "agents", "experiments") for path in (root / room).rglob("*.py")]
    homes = [str(path.relative_to(root)) for path in sources if re.search(r" tqdm\(|\(tqdm\)", path.read_text("utf-8"))]
    assert homes == ["encoders/base/progress.py"]
