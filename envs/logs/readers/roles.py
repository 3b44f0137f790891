"""Which column of a table is what: by what a person names, then by usual names held against the values."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.columns.cells import codes, is_text, no_value
from recloop.envs.logs.readers.columns.names import ALIASES, LISTED, SHOWN_AND_TAKEN, TIME_NAMES, plain, usually_called
from recloop.envs.logs.readers.columns.time_column import time_column
from recloop.envs.logs.readers.columns.times import Moments, Unit, moments_of
from recloop.envs.logs.readers.text_table import TextTable, shown
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns, Signal

MATRIX_FROM = 8
"""Columns of numbers from which on a table without items is taken for a matrix."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which column of a file is what. None: the column with a usual name, where there is one (`ALIASES`).

    Args:
        user: ids of users.
        item: ids of items; a list, or text of ids between blanks, where one row is a slate or a user.
        time: numbers since 1970-01-01 UTC, dates, or text that says a moment.
        session: ids of sessions, unique within a user.
        session_end: `left`, `cut` or `unknown`, of the session the row belongs to.
        slate: ids of slates; rows of one (user, slate) were shown together.
        position: place in the slate, a number.
        propensity: probability in (0, 1] that the logging policy showed this item at this place.
        policy: names of the logging policies.
        event: what was done: the column of an event log (view, click, purchase).
        title: of the items table, what a person reads.
        signals: the answers by column name, the consumption first. Where the first is no consumption (not
            binary, or given on another), one that is 1 in every row is put before it. Empty: by their names.
        time_unit: of a numeric time, `s`, `ms`, `us` or `ns`; None goes by the size of the numbers.
        time_format: of a time in text, as `strftime` writes it; None finds it.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    session: str | None = None
    session_end: str | None = None
    slate: str | None = None
    position: str | None = None
    propensity: str | None = None
    policy: str | None = None
    event: str | None = None
    title: str | None = None
    signals: tuple[Signal, ...] = ()
    time_unit: Unit | None = None
    time_format: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The file's column by what it is, where somebody said so; columns of the log alone."""
        known = (*Columns.interactions, "event")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name in known}
        return {column: name for column, name in values.items() if name is not None}


COLUMN_NAMES = tuple(f.name for f in fields(ColumnMapping) if f.name != "signals")
"""What `--columns WHAT=COLUMN` can say."""


@dataclass(frozen=True)
class Roles:
    """The columns of a table by what they are.

    Args:
        mapping: as given, with every role that was found by its name and values.
        moments: the time as read, or None.
        uses: every column that has a role, or could have had one and has none.
        warnings: what a reader of the card should know.
    """

    mapping: ColumnMapping
    moments: Moments | None
    uses: tuple[ColumnUse, ...]
    warnings: tuple[str, ...]

    def column(self, role: str) -> str:
        """The file's column that is the user, or the item."""
        return self.mapping.named[role]


def roles_of(
    table: TextTable,
    given: ColumnMapping,
    *,
    ignore: Sequence[str] = (),
    needs_user: bool = True,
    find_time: bool = True,
) -> Roles:
    """Find the columns of a log.

    What is named stands. Every other role goes to the column with a usual name; where two have one, to the finer,
    if each of its values comes with one value of the other. A column is taken for a time by its values.

    Args:
        table: the file.
        given: what somebody named.
        ignore: columns that are left out.
        needs_user: whether a log without users is refused.
        find_time: whether the time is looked for.

    Raises:
        LogError: a named column that is not there, one column for two roles, two columns that could be one role;
            no user or no item.
    """
    names = [str(name) for name in table.frame.columns if name not in ignore]
    table.require(*given.named.values(), *ignore)
    _each_once(table, given)
    signals = {signal.name for signal in given.signals}
    taken = set(given.named.values()) | signals
    uses = [ColumnUse("log", name, role, "as named") for role, name in given.named.items()]
    uses += [ColumnUse("log", name, "not used", "left out as asked (--ignore)") for name in ignore]
    found: dict[str, str] = {}
    for role, aliases in ALIASES.items():
        if role in given.named:
            continue
        candidates = usually_called(names, aliases, taken)
        fits, why = _FITS.get(role, (_is_filled, "every cell is empty"))
        wrong = [name for name in candidates if not fits(table.frame[name], name)]
        uses += [ColumnUse("log", name, "not used", f"called like the {role}, but {why}") for name in wrong]
        taken.update(wrong)
        candidates = [name for name in candidates if name not in wrong]
        if candidates:
            chosen, others = _finest(table, role, candidates)
            found[role] = chosen
            taken.add(chosen)
            uses.append(ColumnUse("log", chosen, role, "by its name"))
            uses += [ColumnUse("log", name, "not used", f"says no more than {chosen}, the {role}") for name in others]
            taken.update(others)
    warnings: list[str] = []
    moments = None
    if given.time is not None and find_time:
        moments = moments_of(table, given.time, given.time_unit, given.time_format)
        if moments is None:
            example = table.frame[given.time][~no_value(table.frame[given.time])].head(1).tolist() or [""]
            raise LogError(
                f"{table.path}, column {shown(given.time)}: {shown(example[0])} is no time; name the column of times, "
                "or say how it is written: --columns time_format=%d/%m/%Y"
            )
        moments.require_one_reading(table, given.time)
    elif find_time:
        ids = (given.user or found.get(Columns.user), given.item or found.get(Columns.item))
        chosen_time, moments, seen = time_column(
            table, [n for n in names if n not in taken], given.time_unit, given.time_format, ids, warnings
        )
        if chosen_time is not None:
            found[Columns.time] = chosen_time
        uses += seen
    for role in (Columns.user, Columns.item):
        if role not in {**found, **given.named} and (role != Columns.user or needs_user):
            _nobody(table, role, names)
    mapping = replace(given, **found)  # type: ignore[arg-type]
    return Roles(mapping, moments, tuple(uses), tuple(warnings))


def usual_columns(names: Iterable[str]) -> dict[str, str]:
    """The user and the item among `names`, by their usual names alone.

    >>> usual_columns(["userId", "movieId", "rating"])
    {'user': 'userId', 'item': 'movieId'}
    """
    every = list(names)
    found = {role: usually_called(every, ALIASES[role], set()) for role in (Columns.user, Columns.item)}
    return {role: columns[0] for role, columns in found.items() if columns}


def _each_once(table: TextTable, given: ColumnMapping) -> None:
    by_column: dict[str, str] = {}
    for role, name in given.named.items():
        if name in by_column:
            raise LogError(
                f"{table.path}: column {shown(name)} is named as {by_column[name]} and as {role}; name each once"
            )
        by_column[name] = role


def _finest(table: TextTable, role: str, candidates: Sequence[str]) -> tuple[str, list[str]]:
    """Of columns that could all be one role, the one that says all that the others say; and the others."""
    if len(candidates) == 1:
        return candidates[0], []
    numbers = {name: codes(table.frame[name]) for name in candidates}

    def decides(one: str, other: str) -> bool:
        pairs = pd.DataFrame({"a": numbers[one], "b": numbers[other]}).drop_duplicates()
        return bool(pairs["a"].is_unique)

    for name in candidates:
        rest = [other for other in candidates if other != name]
        if all(decides(name, other) for other in rest):
            return name, rest
    flags = " or ".join(f"--columns {role}={name}" for name in candidates)
    raise LogError(
        f"{table.path}: {' and '.join(map(shown, candidates))} could each be the {role} and differ; say which: {flags}"
    )


def _is_filled(cells: pd.Series, _: str) -> bool:
    return not bool(no_value(cells).all())


def _can_be_item(cells: pd.Series, name: str) -> bool:
    """False for an empty column, and for numbers under a name for several items: `impressions` counts them."""
    counts = plain(name) in LISTED and pd.api.types.is_numeric_dtype(cells.dtype)
    if plain(name) in LISTED and is_text(cells):
        counts = bool(cells[~no_value(cells)].str.fullmatch(r"\d{1,6}").all())
    return not counts and _is_filled(cells, name)


def _is_whole(cells: pd.Series, _: str) -> bool:
    if pd.api.types.is_object_dtype(cells.dtype):
        return True
    numbers = pd.to_numeric(cells[~no_value(cells)], errors="coerce")
    return bool(len(numbers)) and bool((numbers % 1 == 0).mean() > 0.5)


def _few_words(cells: pd.Series, _: str) -> bool:
    """True for a column of at most 30 different words; lists may hold few."""
    return pd.api.types.is_object_dtype(cells.dtype) or cells.nunique() <= 30


_FITS = {
    Columns.position: (_is_whole, "its cells are no whole numbers"),
    Columns.item: (_can_be_item, "it is empty or counts items"),
    "event": (_few_words, "it has more than 30 values"),
}
"""What a column must hold for a role, beside its name, and what is said where it does not."""


def _is_matrix(table: TextTable, names: Sequence[str]) -> bool:
    """True where nearly all columns hold numbers and none has a usual name but that of the user."""
    usual = {plain(alias) for role, aliases in ALIASES.items() if role != Columns.user for alias in aliases}
    if {plain(name) for name in names} & {*usual, *TIME_NAMES, *SHOWN_AND_TAKEN}:
        return False
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(_read(table, name))]
    return len(numeric) >= MATRIX_FROM and len(numeric) >= len(names) - 2


def _read(table: TextTable, column: str) -> pd.Series:
    """A column as numbers where all its filled cells are some."""
    cells = table.frame[column]
    if not is_text(cells):
        return cells
    filled = cells[~no_value(cells)]
    numbers = pd.to_numeric(filled, errors="coerce")
    return numbers if len(filled) and numbers.notna().all() else cells


def _nobody(table: TextTable, role: str, names: Sequence[str]) -> None:
    if role == Columns.item and _is_matrix(table, names):
        raise LogError(
            f"{table.path}, {table.unit} 1: no column is called like the item, and nearly all hold numbers: it seems a "
            "matrix with one column an item; write one row a user and item, as pandas.DataFrame.melt does"
        )
    usual = ", ".join(ALIASES[role][:6])
    session = (
        " (or the session, where nobody is known beyond one: --columns user=SESSION)" if role == Columns.user else ""
    )
    raise LogError(
        f"{table.path}, {table.unit} 1: no column is called like the {role} ({usual}, ...); the file has "
        f"{table.names}; say which it is: --columns {role}=COLUMN, columns=ColumnMapping({role}=...){session}"
    )
