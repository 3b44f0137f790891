"""What a log of behaviour is: its columns, its signals, and the one immutable object that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

import pandas as pd

from recloop.encoders.base.described import Described
from recloop.encoders.base.errors import LogError
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.envs.logs.reading import LogReading


class Columns:
    """Every column name of the three tables, in one place."""

    user = "user"
    item = "item"
    time = "time"
    """Seconds since 1970-01-01 UTC, float; absent where the log has no times."""
    session = "session"
    session_end = "session_end"
    """Of the session this row belongs to: one of `SessionEnd`."""
    slate = "slate"
    """Rows with the same (user, slate) were shown together."""
    position = "position"
    """Place in the slate, from 0."""
    propensity = "propensity"
    """Probability in (0, 1] that the logging policy showed this item at this place."""
    policy = "policy"
    """Name of the logging policy that showed this row."""
    text = "text"
    """Of the items table: what the language model reads."""
    title = "title"
    """Of the items table: what a person reads."""
    entity = "entity"
    """Of the items table: the name of the item's entity in the knowledge graph, or missing."""
    category = "category"
    """Of the items table: the one category that an item belongs to, or missing."""

    apart = "apart"
    """Tells rows apart that are equal in all other columns and differ in what the log was not read for."""

    interactions = (user, item, time, session, session_end, slate, position, propensity, policy)


class Times(StrEnum):
    """What the times of a log mean."""

    behavioural = "behavioural"
    """When things were done."""
    entry = "entry"
    """When they were typed in, as in MovieLens: order within a user, but no rhythm."""
    none = "none"
    """The log holds order only."""


class SessionEnd(StrEnum):
    """Why a logged session ended."""

    left = "left"
    cut = "cut"
    unknown = "unknown"


@dataclass(frozen=True)
class Signal:
    """One named thing an answer carries.

    Args:
        name: the signal's name, also its column in the interactions table.
        kind: `binary` (0 or 1), `ordinal` (one of `levels`) or `continuous` (within `range`).
        levels: the ordered levels of an ordinal signal.
        range: lowest and highest value of a continuous signal.
        good: True where more of it is good for the user.
        given_on: the binary signal on whose positives this one exists (a rating exists only where the
            item was consumed); None where every shown position has it.
    """

    name: str
    kind: Literal["binary", "ordinal", "continuous"] = "binary"
    levels: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    good: bool = True
    given_on: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "ordinal" and len(self.levels) < 2:
            raise LogError(f"signal '{self.name}' is ordinal with levels {self.levels}; give two or more")
        if self.kind == "ordinal" and list(self.levels) != sorted(set(self.levels)):
            raise LogError(f"signal '{self.name}' has levels {self.levels}; give them rising, each once")
        if self.kind == "continuous" and (self.range is None or not self.range[0] < self.range[1]):
            raise LogError(f"signal '{self.name}' is continuous with range {self.range}; give (low, high)")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `Signal.of` undoes it."""
        return {**vars(self), "levels": list(self.levels), "range": list(self.range) if self.range else None}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Undo `as_dict`."""
        span = tuple(facts["range"]) if facts["range"] else None
        return cls(**{**facts, "levels": tuple(facts["levels"]), "range": span})

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value this signal takes."""
        if self.kind == "binary":
            return (0.0, 1.0)
        if self.kind == "ordinal":
            return (self.levels[0], self.levels[-1])
        return self.range or (0.0, 1.0)


@dataclass(frozen=True)
class LoggedBehavior(Described):
    """A log of behaviour: immutable, complete, and silent about what it does not hold.

    Args:
        name: what people call this log.
        interactions: one row an impression or interaction, in file order; columns as in `Columns` plus one
            a signal. Ids are strings. A log without exposures has one row a consumption.
        users: one row a user, indexed by external id; further columns are profile features.
        items: one row an item, indexed by external id, with `title` and `text`, and `entity` where the log
            has a knowledge graph.
        signals: what the answers carry. The first is the consumption: a binary signal that is 1 where the
            item was consumed. A log without exposures has it at 1 in every row.
        times: what the log's times mean.
        has_exposures: True where rows also exist for what was shown and not consumed.
        knowledge: triples about the items, or None.
        source: where it was read from, for error messages and the card.
    """

    name: str
    interactions: pd.DataFrame
    users: pd.DataFrame
    items: pd.DataFrame
    signals: tuple[Signal, ...]
    times: Times = Times.none
    has_exposures: bool = False
    knowledge: KnowledgeGraph | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())
    """What a reader could not know or had to decide, in plain sentences for the card."""
    dropped: tuple[tuple[str, int], ...] = field(default=())
    """Rows that a reader left out because they could not be read, by reason; cleaning reports them."""
    reading: LogReading = field(default=LogReading())
    """What the reader made of every column, and what may be wrong."""

    def __post_init__(self) -> None:
        if not self.signals:
            raise LogError(f"{self.name}: no signals; name at least the consumption")
        if self.signals[0].kind != "binary":
            raise LogError(
                f"{self.name}: the first signal '{self.signals[0].name}' is {self.signals[0].kind}; "
                "it must be the binary consumption"
            )
        needed = [Columns.user, Columns.item, *(s.name for s in self.signals)]
        missing = [c for c in needed if c not in self.interactions.columns]
        if missing:
            raise LogError(
                f"{self.name}: interactions lack the column(s) {', '.join(missing)}; "
                f"there are {', '.join(map(str, self.interactions.columns))}"
            )
        names = [signal.name for signal in self.signals]
        for signal in self.signals:
            if signal.given_on is not None and signal.given_on not in names:
                raise LogError(
                    f"{self.name}: '{signal.name}' is given on '{signal.given_on}', which is no signal; "
                    f"known: {', '.join(names)}"
                )
        if (self.times is Times.none) != (Columns.time not in self.interactions.columns):
            raise LogError(f"{self.name}: times are '{self.times}', yet the time column says otherwise")

    @property
    def consumption(self) -> Signal:
        """The binary signal that is 1 where the item was consumed."""
        return self.signals[0]

    @property
    def has_times(self) -> bool:
        """True where rows carry times of any meaning."""
        return self.times is not Times.none
