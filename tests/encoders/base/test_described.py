"""Short in Python: ten lines at most, whatever is held, and a card whose texts are texts."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from recloop.encoders.base.described import Described


@dataclass(frozen=True)
class Shelf(Described):
    """A dataclass of the usual kinds of values."""

    name: str
    titles: tuple[str, ...]
    table: torch.Tensor
    inner: "Shelf | None" = None


class Weighed(nn.Module, Described):
    """A module says what it holds, not how it is wired."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
        self.register_buffer("table", torch.zeros(3, 4))
        self.size = 12345


class Odd(Weighed):
    """Keeps the words its author wrote."""

    def __repr__(self) -> str:
        return "odd"


class OddToo(Odd):
    """Of one that has words of its own."""


def test_few_facts_a_line_each() -> None:
    inner = Shelf("b", (), torch.zeros(0))
    shelf = Shelf("a", tuple(f"Film {i}" for i in range(1000)), torch.zeros(2, 3), inner)
    assert repr(shelf) == (
        "Shelf 'a'\n  titles: 1,000: Film 0, Film 1, Film 2, Film 3, Film 4, ...\n  table: float32 (2, 3)\n"
        "  inner: Shelf 'b'"
    )
    assert repr(Weighed()) == "Weighed\n  size: 12,345\n  table: float32 (3, 4)\n  layers: Sequential"
    assert (repr(Odd()), repr(OddToo())) == ("odd", "odd")


def test_ten_lines_at_most() -> None:
    thing = Weighed()
    for i in range(30):
        setattr(thing, f"n{i}", "x" * 1000)
    lines = repr(thing).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "  and 25 more"
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize("name", ["<b>", "\x1b[2J", "[red]"])
def test_names_are_data_here_too(name: str) -> None:
    shelf = Shelf(name, (name,), torch.zeros(1))
    assert repr(shelf).isprintable() or "\x1b" not in repr(shelf)
    card = shelf._repr_html_()
    assert card.count("<b>") == 3  # its head and two facts
    assert card.startswith("<div>")
    assert "\x1b" not in card
