"""Settings by name: every annotation that configs use, and a word on each field of each registered config."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from recloop.agents.registry import POLICIES, facts_of
from recloop.agents.settings import settings_of, with_settings
from recloop.encoders.base.errors import RecloopError


@dataclass(frozen=True)
class Within:
    """Sizes.

    Args:
        size: of it,
            in metres.
    """

    size: int = 1


@dataclass(frozen=True)
class Example:
    """All kinds of fields.

    Args:
        one, other: numbers.
        within: sizes.
    """

    one: int = 1
    other: float = 0.5
    on: bool = False
    most: int | None = 3
    how: Literal["fast", "slow"] = "fast"
    names: tuple[str, ...] = ()
    file: Path | None = None
    within: Within = field(default_factory=Within)

    def __post_init__(self) -> None:
        if self.one > self.within.size * 10:
            raise RecloopError("too large for its size")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("one", "1_0", 10), ("one", "1e1", 10), ("one", 2.0, 2), ("other", "3e-4", 3e-4), ("other", 2, 2.0),
        ("on", "true", True), ("on", False, False), ("most", "none", None), ("most", None, None), ("most", "7", 7),
        ("how", "slow", "slow"), ("names", "a,b", ("a", "b")), ("names", ["a"], ("a",)), ("file", "x/y", Path("x/y")),
    ],
)  # fmt: skip
def test_text_becomes_what_the_field_is_annotated_with(name: str, given: Any, value: Any) -> None:
    found = getattr(with_settings(Example(), {name: given}, "it"), name)
    assert found == value
    assert type(found) is type(value)


def test_configs_within_and_fields_that_fit_only_together() -> None:
    both = with_settings(Example(), {"one": "90", "within.size": "9"}, "it")
    assert (both.one, both.within.size) == (90, 9)
    assert with_settings(Example(), {"within": {"size": 4}}, "it").within == Within(4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on": "maybe"}, "on=maybe of it does not fit: it takes bool, not the str 'maybe'"),
        ({"one": 1.5}, "one=1.5 of it does not fit: it takes int, not the float 1.5"),
        ({"one": True}, "it takes int, not the bool True"),
        ({"other": "nan"}, "it takes float, not the str 'nan'"),
        ({"most": "few"}, "it takes int or none, not the str 'few'"),
        ({"how": "soon"}, "it takes fast or slow, not the str 'soon'"),
        ({"within": 3}, "it takes Within, not the int 3"),
        ({"within.sise": 3}, "unknown setting of it's within 'sise'; did you mean 'size'"),
        ({"one.size": 3}, "unknown setting of it 'one.size'"),
        ({"xyz": 3}, "unknown setting of it 'xyz'; Known: file, how, most, names, on, one, other, within.size"),
    ],
)
def test_what_does_not_fit_says_value_and_type(given: dict[str, Any], says: str) -> None:
    with pytest.raises(RecloopError) as error:
        with_settings(Example(), given, "it")
    assert says in str(error.value)


def test_what_docstrings_say_of_fields() -> None:
    told = {s.name: s.told for s in settings_of(Example())}
    assert (told["one"], told["other"], told["within.size"]) == ("numbers.", "numbers.", "of it, in metres.")


@pytest.mark.parametrize("name", [name for name in POLICIES if facts_of(name).config_class])
def test_every_setting_of_every_policy_is_told(name: str) -> None:
    config_class = facts_of(name).config_class
    assert config_class is not None
    assert [s.name for s in settings_of(config_class()) if not s.told] == []
