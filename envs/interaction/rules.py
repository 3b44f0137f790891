"""What a shop asks of every slate, whoever picks it: which items, how many of a kind, how much for a group, stock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
import yaml
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.item_columns import Labels
from recloop.envs.world.tables import Catalogue


@dataclass(frozen=True)
class Rules:
    """What every slate keeps; nothing by default. An entry names an item by its id, or a group as `column=value`.

    Args:
        only: entries that alone may be shown; everything where empty.
        never: entries that may not, whatever `only` says.
        at_most: how many items with one value of a column a slate may hold, by column: `{"brand": 2}`. Items without a
            value are not counted.
        at_least: the share of the places of every slate that goes to a group, rounded up to whole places:
            `{"producer=local": 0.2}` is 2 places of 10, and 1 of 3.
        stock: units of each item, as the name of a column of numbers, or by item id; items not named never run out.
            All users of a run, the lanes of one core, take from one stock: an item is shown to no more users at once
            than it has units, and to nobody once they are gone. It is filled up at a reset and, in a run that goes on,
            every time limit of an episode.
        takes: the signal that takes a unit of stock; default the consumption.
    """

    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    at_most: Mapping[str, int] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    stock: str | Mapping[str, int] | None = None
    takes: str | None = None

    def __post_init__(self) -> None:
        for column, most in self.at_most.items():
            if isinstance(most, bool) or not isinstance(most, int) or most < 1:
                raise RecloopError(f"rule at_most {column}: {most!r} is no number of items; give 1 or more")
        for group, share in self.at_least.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise RecloopError(f"rule at_least {group}: {share!r} is no share of a slate; give a number in (0, 1]")
        for item, units in self.stock.items() if isinstance(self.stock, Mapping) else ():
            if isinstance(units, bool) or not isinstance(units, int) or units < 0:
                raise RecloopError(f"rule stock {item}: {units!r} is no number of units; give 0 or more")

    def __bool__(self) -> bool:
        return self != Rules()

    @classmethod
    def of(cls, given: "Rules | Mapping[str, Any] | Path | str | None") -> Self:
        """Rules as they are, from a mapping by name, or from a YAML or JSON file."""
        if given is None or isinstance(given, Rules):
            return cls(**vars(given)) if given is not None else cls()
        if isinstance(given, str | Path):
            return cls.of(_read(Path(given)))
        known = {one.name for one in fields(cls)}
        for name in given:
            if name not in known:
                raise RecloopError(unknown_name("rule", str(name), known))
        held = {name: value for name, value in given.items() if value is not None}
        made: dict[str, Any] = {}
        for name, value in held.items():
            if name in ("only", "never"):
                made[name] = _entries(name, value)
            elif isinstance(value, str) and name in ("stock", "takes"):
                made[name] = value
            elif name != "takes":
                made[name] = _table(name, value)
            else:
                raise RecloopError(f"rule takes: {value!r} is no name of a signal")
        return cls(**made)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is asked, nothing else; `Rules.of` undoes it."""
        held = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {name: value for name, value in held.items() if value}

    def by_item(self) -> "Rules":
        """Those that look at single items: what is left where a slate has one place and stands for one of many."""
        return Rules(only=self.only, never=self.never, stock=self.stock, takes=self.takes)

    def in_words(self) -> list[str]:
        """A sentence a rule."""
        lines = [f"Only these are shown: {', '.join(self.only)}."] if self.only else []
        lines += [f"Never shown: {', '.join(self.never)}."] if self.never else []
        lines += [f"At most {n} item(s) of one {column} a slate." for column, n in self.at_most.items()]
        lines += [f"At least {share:.0%} of the places of a slate for {g}." for g, share in self.at_least.items()]
        if self.stock:
            units = f"column {self.stock}" if isinstance(self.stock, str) else f"{len(self.stock)} item(s)"
            lines.append(f"Stock ({units}), shared by all users of a run: who comes late finds less.")
        return lines


def members(entry: str, catalogue: Catalogue, rule: str) -> Tensor:
    """bool (N,): the items of an entry, an item id or `column=value`; `RecloopError` where there is none."""
    if entry in catalogue.rows:
        chosen = torch.zeros(len(catalogue), dtype=torch.bool)
        chosen[catalogue.rows[entry]] = True
        return chosen
    column, equals, value = entry.partition("=")
    if not equals:
        raise RecloopError(f"rule {rule}: no item '{entry}' among {len(catalogue)}; name an id or a group column=value")
    found = labelled(column, catalogue, rule)
    if value not in found.names:
        raise RecloopError(f"rule {rule}: {unknown_name(column, value, found.names)}")
    return found.codes[:-1] == found.names.index(value)


def labelled(column: str, catalogue: Catalogue, rule: str) -> Labels:
    """A column of the items table as words, or a grouping of the catalogue by number."""
    if column in catalogue.group_names and column not in (*catalogue.columns.labels, *catalogue.columns.numbers):
        codes = catalogue.groups[:, catalogue.group_names.index(column)]
        return Labels(codes, tuple(map(str, range(int(codes[-1])))))
    try:
        return catalogue.columns.labelled(column)
    except RecloopError:
        known = (*catalogue.columns.labels, *catalogue.columns.numbers, *catalogue.group_names)
        raise RecloopError(f"rule {rule}: {unknown_name('item column', column, known)}") from None


def units_of(rules: Rules, catalogue: Catalogue) -> Tensor | None:
    """int64 (N+1,) units of each item, as good as endless where no rule speaks of it; None without stock."""
    if not rules.stock:
        return None
    units = torch.full((len(catalogue) + 1,), 1 << 40)
    if isinstance(rules.stock, str):
        column = catalogue.columns.numbers.get(rules.stock)
        if column is None:
            known = catalogue.columns.numbers
            raise RecloopError(f"rule stock: {unknown_name('column of numbers', rules.stock, known)}")
        if bool(column.isnan().any()) or bool((column < 0).any()):
            raise RecloopError(f"rule stock: column '{rules.stock}' has cells that are missing or below 0; fill them")
        units[:-1] = column[:-1].to(torch.int64)
        return units
    for item, count in rules.stock.items():
        if item not in catalogue.rows:
            raise RecloopError(f"rule stock: no item '{item}' among {len(catalogue)}; name items by id")
        units[catalogue.rows[item]] = count
    return units


def least_places(share: float, slate_size: int) -> int:
    """Whole places that a share of a slate takes, rounded up.

    >>> least_places(0.2, 10), least_places(0.3, 10), least_places(0.1, 3)
    (2, 3, 1)
    """
    return math.ceil(share * slate_size - 1e-9)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        facts = yaml.safe_load(path.read_text("utf-8"))  # JSON is YAML
    except OSError as error:
        raise RecloopError(f"--rules {path} cannot be read ({error.strerror}); name a YAML or JSON file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecloopError(f"--rules {path} is neither YAML nor JSON ({' '.join(str(error).split())})") from None
    if not isinstance(facts, Mapping):
        raise RecloopError(f"--rules {path} holds no rules; write such as never: [item-17] or at_most: {{brand: 2}}")
    return facts


def _entries(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(str(entry) for entry in value)
    if isinstance(value, str | int):
        return (str(value),)
    raise RecloopError(f"rule {name}: {value!r} is no list; write such as {name}: [item-17, brand=Acme]")


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RecloopError(f"rule {name}: {value!r} is no table; write such as {name}: {{brand: 2}}")
    return {str(key): number for key, number in value.items()}
