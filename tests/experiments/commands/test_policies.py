"""What policies there are is listed."""

import pytest

from recloop.agents.registry import known_policies
from recloop.experiments.cli import main


def test_every_policy_is_listed_with_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policies"])
    said = capsys.readouterr().out
    assert all(f" {name} " in said for name in known_policies())
    assert "Kang and McAuley 2018" in said
    assert "a user model" in said


def test_one_group_alone(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policies", "--groups", "bandit"])
    said = capsys.readouterr().out
    assert "linucb" in said
    assert "sasrec" not in said


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["policies", "--groups", "bandits"])
    assert "unknown group of policies 'bandits'; did you mean 'bandit'" in capsys.readouterr().err
