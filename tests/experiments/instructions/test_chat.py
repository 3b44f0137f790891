"""Being the user of a policy, in the terminal."""

from pathlib import Path

import pytest

from recloop.encoders.base.errors import RecloopError
from recloop.experiments.instructions.chat import ChatConfig, Said, main, understood
from recloop.experiments.instructions.command import InstructionsConfig
from recloop.experiments.instructions.command import main as measure
from recloop.experiments.instructions.speak import SpeakConfig
from recloop.experiments.instructions.speak import main as speak


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speaking") / "w"
    speak(SpeakConfig("clicks", out))
    return out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 3", Said((1, 3), "", False)),
        ("2, something funny", Said((2,), "something funny", False)),
        ("a film of 1994", Said((), "a film of 1994", False)),
        ("7", Said((), "7", False)),
        ("", Said((), "", False)),
        (" BYE ", Said((), "", True)),
    ],
)
def test_what_a_person_types(line: str, said: Said) -> None:
    assert understood(line, 5) == said


def test_a_conversation_hears_the_words(folder: Path) -> None:
    lines, answers = [], iter(["something about jazz", "1 2", "bye"])
    taken = main(ChatConfig("instruction-tuned", folder), ask=lambda _: next(answers), say=lines.append)
    assert taken == 2
    assert lines[3].count("Jazz") == 5
    assert "the simulated user would have taken" in lines[2]


def test_an_ended_input_ends_it(folder: Path) -> None:
    def ask(_: str) -> str:
        raise EOFError

    assert main(ChatConfig("popularity", folder, turns=2), ask=ask, say=lambda _: None) == 0


def test_bad_input(folder: Path) -> None:
    with pytest.raises(RecloopError, match="--user 100000; the world has users 0 to"):
        main(ChatConfig("popularity", folder, user=100_000), ask=lambda _: "bye", say=lambda _: None)
    with pytest.raises(RecloopError, match="no world folder either"):
        speak(SpeakConfig("klicks", folder.parent / "x"))


def test_the_table_says_what_hearing_is_worth(tmp_path: Path) -> None:
    config = InstructionsConfig(("clicks",), ("words",), episodes=60, seeds=1, out=tmp_path / "t.csv", progress=False)
    rows = {(row["what"], row["policy"]): float(row["low"]) for row in measure(config)}
    assert rows["return, to deaf", "words"] > 0
    assert rows["return, to deaf", "planner, wish known"] > 0
    assert (tmp_path / "t.csv").read_text().startswith("what,world,policy,seeds,mean,low,high,command,commit")
