"""Texts made to harm, everywhere in a world: shown as they are in terminal, report and spreadsheet, and no path."""

import csv
import io
import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.names import csv_rows, visible
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.world.world import World
from recloop.experiments.commands.compare import compare
from recloop.experiments.commands.inspect import print_user, print_world
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.config import CompareConfig
from recloop.experiments.comparison.results import Comparison
from recloop.experiments.report import report
from recloop.experiments.report.tables import PlainConsole, print_comparison
from recloop.experiments.studies.faults.outcomes import HARMLESS, REFUSED, Ending, wrong

HOSTILE = (
    *("Film [/b]", "[red]y[/red]", "\x1b[2J\x1b]0;owned\x07", "<script>alert(1)</script>", '" onload="x', "&lt;"),
    *("=HYPERLINK(1)", "@SUM(A1)", "-2+3", "../../outside", ":smile:", "日本", "a\u202eb", "$x^{", "%s {0}"),
    "Cafe, noir",
)
_LETTERS = "ab <>&\"'[]{}/\\.:;,=+-@%$#\t\r\n\x00\x07\x1b\x9b\u2028\u202e日é"


def compared(world: World, out: Path) -> Comparison:
    """A small comparison to show."""
    policies = ("random", "popularity")
    return compare(world, CompareConfig(Path("w"), policies, seeds=1, episodes=8, out=out, progress=False))


def texts(comparison: Comparison, place: Path, luck: random.Random) -> Iterator[Ending]:
    """Put a random text everywhere, for ever; what became of each."""
    while True:
        drawn = "".join(luck.choices(_LETTERS, k=luck.randint(1, 12)))
        name = luck.choice((luck.choice(HOSTILE), drawn, luck.choice(HOSTILE) + drawn))
        if not name.strip():
            continue
        kind = HARMLESS
        try:
            for border in (in_terminal, in_report, in_spreadsheet):
                border(relabelled(comparison, name), name)
            kind = in_files(comparison.world, name, place)
        except Exception as error:
            yield wrong(f"{name!r}: {error!r}")
        else:
            yield Ending(kind)


def in_terminal(found: Comparison, name: str) -> None:
    """Raise `ValueError` unless the words of a name are shown, and nothing moves a cursor."""
    shows: tuple[Callable[[PlainConsole], object], ...] = (
        lambda console: print_world(found.world, 3, console),
        lambda console: print_user(found.world, f"{name}4", 3, 3, console),
        lambda console: print_comparison(found, claims_of(found), Path("run"), console),
    )
    for show in shows:
        said = io.StringIO()
        show(PlainConsole(file=said, width=2000))
        if visible(said.getvalue(), keep="\n") != said.getvalue():
            raise ValueError("the terminal is moved")
        if not all(visible(word) in said.getvalue() for word in name.split()):
            raise ValueError("the terminal lacks it")


def in_report(found: Comparison, name: str) -> None:
    """Raise `ValueError` unless the page has the tags that it has with a plain name, and the name as text."""
    plain = relabelled(found, "plain")
    expected = _Page(report.html(plain, claims_of(plain), {"command": "recloop compare plain"}))
    page = _Page(report.html(found, claims_of(found), {"command": f"recloop compare {name}"}))
    if page.tags != expected.tags:
        raise ValueError("the report has other tags")
    if visible(name, keep="\n\t") not in page.text:
        raise ValueError("the report lacks it")


def in_spreadsheet(found: Comparison, name: str) -> None:
    """Raise `ValueError` unless the table holds the name, and no cell that is worked out."""
    text = found.csv()
    head, first = csv_rows(text)[:2]
    if first[head.index("policy")] != name:
        raise ValueError("the table lacks it")
    for row in csv.reader(io.StringIO(text, newline="")):
        if any(cell[:1] in set("=+-@\t\r") and not math.isfinite(float(cell)) for cell in row if cell):
            raise ValueError("a cell is worked out")


def in_files(world: World, name: str, place: Path) -> str:
    """Save a world whose users are called so: `REFUSED` in one line, or `HARMLESS` and back under the same name.

    Raises:
        ValueError: something lies outside the world's folder, or came back otherwise.
    """
    shutil.rmtree(place, ignore_errors=True)
    (place / "in").mkdir(parents=True)
    kind = HARMLESS
    try:
        named = renamed(world, name)
        named.save(place / "in" / "world")
        if World.load(place / "in" / "world").fingerprint != named.fingerprint:
            raise ValueError("it came back otherwise")
    except RecloopError as error:
        if "\n" in str(error):
            raise ValueError(f"not in one line: {error}") from None
        kind = REFUSED
    if [path.name for path in place.rglob("*") if path.parent in (place, place / "in")] not in (
        ["in"],
        ["in", "world"],
    ):
        raise ValueError("something lies outside the world's folder")
    return kind


def renamed(world: World, name: str) -> World:
    """The world with `name` in all its texts."""
    signals = [replace(s, name=f"{name}{i}", given_on=s.given_on and f"{name}0") for i, s in enumerate(world.signals)]
    ids = tuple(f"{name}{i}" for i in range(len(world.catalogue)))
    reward, titles = world.reward, tuple(f"{name} {i}" for i in range(len(world.catalogue)))
    return replace(
        world,
        name=name,
        signals=tuple(signals),
        catalogue=replace(world.catalogue, ids=ids, titles=titles),
        users=replace(world.users, ids=tuple(f"{name}{i}" for i in range(len(world.users)))),
        reward=replace(reward, signals={f"{name}0": 1.0}) if isinstance(reward, WeightedReward) else reward,
        card=replace(
            world.card, learned=(name,), assumed=(name,), not_claimed=(name,), figures={name: {name: {name: 1}}}
        ),
        simulators={**world.simulators, name: world.simulators[world.evaluation_simulators[-1]]},
    )


def relabelled(comparison: Comparison, name: str) -> Comparison:
    """The comparison in that world, its first policy and first simulator called `name` too."""
    first, base = comparison.labels[0], comparison.simulators[0]

    def new(key: tuple[str, int, str]) -> tuple[str, int, str]:
        return (name if key[0] == first else key[0], key[1], name if key[2] == base else key[2])

    return replace(
        comparison,
        world=renamed(comparison.world, name),
        contenders=(replace(comparison.contenders[0], label=name), *comparison.contenders[1:]),
        simulators=(name, *comparison.simulators[1:]),
        rollouts={new(key): rollout for key, rollout in comparison.rollouts.items()},
    )


class _Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {sorted(name for name, _ in attrs)}")

    def handle_data(self, data: str) -> None:
        self.text += data
