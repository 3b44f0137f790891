"""Which column of a table is what: by what a person names, then by usual names held against the values."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.readers.text_table import TextTable, is_text, no_value, shown, words
from recloop.envs.logs.readers.times import DAY, Moments, Unit, is_hour_of_day, moments_of
from recloop.envs.logs.reading import ColumnUse
from recloop.envs.logs.schema import Columns, Signal

ALIASES = {
    Columns.user: words(
        "user_id user uid customer_id customer visitor_id visitor member_id reviewer_id account_id client_id "
        "profile_id person_id reader_id listener_id viewer_id cookie_id cust_id user_pseudo_id distinct_id "
        "anonymous_id"
    ),
    Columns.item: words(
        "item_id item iid movie_id product_id product video_id sku asin parent_asin article_id news_id song_id "
        "track_id anime_id book_id isbn business_id game_id content_id goods_id ad_id joke_id listing_id items "
        "item_ids item_list impressions article_ids_inview app_id artist_id recipe_id post_id"
    ),
    Columns.session: words("session_id session visit_id sess_id"),
    Columns.session_end: words("session_end"),
    Columns.slate: words("slate_id slate impression_id request_id recommendation_id display_id page_view_id"),
    Columns.position: words("position rank slot place"),
    Columns.propensity: words("propensity propensity_score"),
    Columns.policy: words("policy logging_policy policy_id"),
    "event": words("event event_type event_name action action_type behavior behaviour behavior_type interaction_type"),
}
"""What columns are called where nobody says; case, blanks and underscores do not matter."""
TIME_NAMES = words(
    "timestamp time event_time ts datetime date_time date unix_review_time time_ms timestamp_ms created_at"
)
"""Usual names of the time, the most usual first; any name that ends in time, date, timestamp, ts or at is tried too."""
SHOWN_AND_TAKEN = (
    "label",
    "click",
    "clicked",
    "is_click",
    "is_clicked",
    "clicks",
    "consume",
    "consumed",
    "taken",
    "article_ids_clicked",
)
"""Columns that say whether what was shown was taken: the consumption of a log with exposures."""
MATRIX_FROM = 8
"""Columns of numbers from which on a table without items is taken for a matrix."""
_NO_TIME = "called like a time, but its cells are none"
_TIME_ENDS = re.compile(r"(^|_)(time|date|timestamp|ts|at|datetime|ms|when)$|timestamp|time$|^date_")
LISTED = words("items item_ids item_list impressions article_ids_inview")
"""Names of item columns of which each cell holds several: lists, or text of ids."""


def plain(name: str) -> str:
    """A column's name as it is compared.

    >>> plain("userId"), plain("User ID"), plain("is_clicked"), plain("unixReviewTime")
    ('user_id', 'user_id', 'is_clicked', 'unix_review_time')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


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
        candidates = _candidates(names, aliases, taken)
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
        chosen_time, moments, seen = _time(table, [n for n in names if n not in taken], given, ids, warnings)
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
    found = {role: _candidates(every, ALIASES[role], set()) for role in (Columns.user, Columns.item)}
    return {role: columns[0] for role, columns in found.items() if columns}


def _candidates(names: Sequence[str], aliases: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Columns with a usual name, the most usual first; where there is none, `properties.item_id` by its last part."""
    nested = [alias for alias in aliases if alias.endswith(("id", "sku", "asin", "isbn"))]
    for part, known in ((slice(None), aliases), (slice(-1, None), nested)):
        by_name: dict[str, list[str]] = {}
        for name in names:
            if name not in taken:
                last = ".".join(name.split(".")[part])
                by_name.setdefault(plain(last).replace("_", ""), []).append(name)
        found = [name for alias in known for name in by_name.get(alias.replace("_", ""), [])]
        if found:
            break
    return found


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
    codes = {name: pd.factorize(_hashable(table.frame[name]))[0] for name in candidates}

    def decides(one: str, other: str) -> bool:
        pairs = pd.DataFrame({"a": codes[one], "b": codes[other]}).drop_duplicates()
        return bool(pairs["a"].is_unique)

    for name in candidates:
        rest = [other for other in candidates if other != name]
        if all(decides(name, other) for other in rest):
            return name, rest
    flags = " or ".join(f"--columns {role}={name}" for name in candidates)
    raise LogError(
        f"{table.path}: {' and '.join(map(shown, candidates))} could each be the {role} and differ; say which: {flags}"
    )


def _hashable(cells: pd.Series) -> pd.Series:
    return cells.map(str) if pd.api.types.is_object_dtype(cells.dtype) else cells


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


def _time(
    table: TextTable,
    names: Sequence[str],
    given: ColumnMapping,
    ids: tuple[str | None, str | None],
    warnings: list[str],
) -> tuple[str | None, Moments | None, list[ColumnUse]]:
    """The column of times, by its name and its values; `ids` are the columns of users and items."""
    user, item = ids
    usual = _candidates(names, TIME_NAMES, ())
    smelling = [*usual, *(n for n in names if n not in usual and _TIME_ENDS.search(plain(n)))]
    read = {name: moments_of(table, name, given.time_unit, given.time_format) for name in smelling}
    uses: list[ColumnUse] = []
    real: dict[str, Moments] = {}
    counters: dict[str, Moments] = {}
    for name, moments in read.items():
        if moments is None:
            if name in usual:
                uses.append(ColumnUse("log", name, "not used", _NO_TIME))
        elif not moments.known_start:
            if name in usual:
                counters[name] = moments
        else:
            real[name] = moments
    for name in [name for name in real if len(real) > 1 or name not in usual]:
        of = next((ids for ids in (user, item) if ids is not None and _says_of(table, name, ids)), None)
        if of is not None:
            del real[name]
            uses.append(ColumnUse("log", name, "not used", f"each {of} has one alone: no time of behaviour"))
    if not real and not counters:
        real = _by_values(table, [n for n in names if n not in smelling], given, user)
    if not real:
        return _counter(table, counters, uses, warnings)
    uses += [ColumnUse("log", name, "not used", "its numbers are no moments") for name in counters]
    chosen = _finest_time(table, real)
    uses += [
        ColumnUse("log", name, "not used", f"the time is {chosen}, which is finer") for name in real if name != chosen
    ]
    uses.append(ColumnUse("log", chosen, Columns.time, real[chosen].written))
    return chosen, real[chosen], uses


def _says_of(table: TextTable, column: str, user: str) -> bool:
    """True where each user with several rows has one value of a column alone: a birthday, a day of sign-up."""
    frame = pd.DataFrame({"user": _hashable(table.frame[user]), "value": table.frame[column].astype("str")})
    counts = frame.groupby("user", sort=False)["value"].agg(["size", "nunique"])
    several = counts[counts["size"] > 1]
    return len(several) > 1 and bool((several["nunique"] == 1).all()) and frame["value"].nunique() > 1


def _by_values(table: TextTable, names: Sequence[str], given: ColumnMapping, user: str | None) -> dict[str, Moments]:
    """Columns of any name whose values are moments since 1970 and differ within users."""
    found = {}
    for name in names:
        cells = table.frame[name]
        if pd.api.types.is_bool_dtype(cells.dtype) or cells.empty:
            continue
        try:
            moments = moments_of(table, name)
        except LogError:
            continue
        epoch = moments is not None and moments.known_start and not moments.written.startswith("dates written")
        if epoch and not (user is not None and _says_of(table, name, user)):
            assert moments is not None
            found[name] = moments
    return found if len(found) == 1 else {}


def _counter(
    table: TextTable, counters: Mapping[str, Moments], uses: list[ColumnUse], warnings: list[str]
) -> tuple[str | None, Moments | None, list[ColumnUse]]:
    if not counters:
        for use in uses:
            cells = table.frame[use.name]
            filled = cells[~no_value(cells)]
            if is_text(cells) and filled.nunique() > 1 and use.why == _NO_TIME:
                raise LogError(
                    f"{table.path}, column {shown(use.name)}: {shown(filled.iloc[0])} is called a time and cannot be "
                    f"read as one; say how it is written: --columns time={use.name} time_format='%d.%m.%Y %H:%M', or "
                    f"leave it out: --ignore {use.name}"
                )
        if uses:
            warnings.append(f"No time was found, though {', '.join(u.name for u in uses)} is called like one.")
        return None, None, uses
    name, moments = next(iter(counters.items()))
    moments.require_one_reading(table, name)
    if "stamp" not in plain(name) and is_hour_of_day(moments.seconds):
        raise LogError(
            f"{table.path}, column {shown(name)}: whole numbers from 0 to 23 may be hours of a day "
            f"(--ignore {name}) or count from an unknown start (--columns time={name}); say which"
        )
    uses.append(ColumnUse("log", name, Columns.time, moments.written))
    uses += [ColumnUse("log", n, "not used", f"the time is {name}") for n in counters if n != name]
    return name, moments, uses


def _finest_time(table: TextTable, real: Mapping[str, Moments]) -> str:
    """Of columns of moments, the finest, where the coarser ones say the same; `LogError` where they differ."""
    if len(real) == 1:
        return next(iter(real))
    chosen = min(real, key=lambda name: real[name].resolution)
    fine = real[chosen].seconds
    for moments in real.values():
        both = np.isfinite(fine) & np.isfinite(moments.seconds)
        # A day and an hour may be local ones: up to a day apart.
        slack = max(moments.resolution, 1.0) + (DAY if moments.resolution >= 3600 else 0)
        if not both.any() or float(np.mean(np.abs(fine[both] - moments.seconds[both]) <= slack)) < 0.99:
            flags = " or ".join(f"--columns time={n}" for n in real)
            raise LogError(
                f"{table.path}: {' and '.join(map(shown, real))} could each be the time and differ; say which: {flags}"
            )
    return chosen


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
