"""One door to every reader: look at what a path holds and read it."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.logs.readers.atomic import read_atomic_log
from recloop.envs.logs.readers.columns.signals import good_by_name
from recloop.envs.logs.readers.files import SUFFIXES, TextFormat, can_stream, kind_of
from recloop.envs.logs.readers.interactions import ReadingOptions
from recloop.envs.logs.readers.published.coat import is_coat, read_coat_log
from recloop.envs.logs.readers.published.kuairand import is_kuairand, read_kuairand_log
from recloop.envs.logs.readers.published.kuairec import is_kuairec, read_kuairec_log
from recloop.envs.logs.readers.published.mind import is_mind, read_mind_log
from recloop.envs.logs.readers.published.movielens import is_movielens, read_movielens_log
from recloop.envs.logs.readers.published.open_bandit import is_open_bandit, read_open_bandit_log
from recloop.envs.logs.readers.roles import ColumnMapping
from recloop.envs.logs.readers.sequence_text import read_sequence_log
from recloop.envs.logs.readers.tables import read_table_log
from recloop.envs.logs.sampling import checked_sample, sampled_log
from recloop.envs.logs.schema import LoggedBehavior, Signal

Reader = Callable[..., LoggedBehavior]
PATTERNS: tuple[tuple[str, Reader], ...] = (
    (".inter", read_atomic_log),
    (".sequences.txt", read_sequence_log),
    *((suffix, read_table_log) for suffix in SUFFIXES),
)
"""How a log's file ends, and who reads it; the first that is there is taken."""
PUBLISHED: tuple[tuple[Callable[[Path], bool], Reader], ...] = (
    (is_movielens, read_movielens_log),
    (is_coat, read_coat_log),
    (is_kuairand, read_kuairand_log),
    (is_kuairec, read_kuairec_log),
    (is_mind, read_mind_log),
    (is_open_bandit, read_open_bandit_log),
)
"""Logs that are known by the names of their files, and who reads them; looked for first."""

GROUPS: dict[str, Any] = {"columns": ColumnMapping, "options": ReadingOptions, "text": TextFormat}
"""Arguments of readers that hold several facts, each of which may be given by its own name."""


def read_log(source: Any, *, sample_users: int | None = None, **options: Any) -> LoggedBehavior:
    """Read a log, whatever its format.

    Looked for, in this order: MovieLens as published (`u.data`, `ratings.dat` or `ratings.csv` beside its file of
    films), Coat (`train.ascii` and `test.ascii`), KuaiRand (`log_standard_*.csv`), KuaiRec (`big_matrix.csv`), the
    latter two also in a folder `data`, MIND (`behaviors.tsv` and `news.tsv`), Open Bandit (`random/men/men.csv`); a
    RecBole `*.inter`; a `*.sequences.txt`; a table (CSV, TSV, JSON lines, Parquet, packed or not). A folder must hold
    one log: name the file of the interactions where there are more.

        read_log("clicks.csv", user="customer", signals=(Signal("click"),), missing=("-1",))

    Args:
        source: a folder, the file of the interactions, or a pandas, Polars or PyArrow table.
        sample_users: keep so many users alone, drawn by a hash of their ids. Tables in Parquet and delimited text then
            pass by in pieces and may be larger than memory; all else is read whole first.
        options: go to the reader that fits; all take `on_bad_rows`. Columns (`user="customer"`, as in `ColumnMapping`),
            facts of the log (`ReadingOptions`) and of its text (`TextFormat`) may be given by their names.

    Raises:
        LogError: nothing known is there, or more than one log; an option that the reader does not have; else
            what the reader refuses.
    """
    if sample_users is not None:
        checked_sample(sample_users)
    in_memory = not isinstance(source, str | Path)
    reader, found = (read_table_log, source) if in_memory else _recognise(Path(source))
    known = [name for name in inspect.signature(reader).parameters if name not in ("path", "source")]
    for keyword, group in GROUPS.items():
        names = [field.name for field in fields(group) if field.name in options and field.name not in known]
        if names and keyword in known:
            given = {name: _as_given(group, name, options.pop(name)) for name in names}
            options[keyword] = replace(options.get(keyword) or group(), **given)
    for name in options:
        if name not in known:
            every = [*known, *(f.name for keyword, group in GROUPS.items() if keyword in known for f in fields(group))]
            what = "the frame" if in_memory else str(found)
            raise LogError(f"{what}: {unknown_name('option', name, every)}")
    if sample_users is None:
        return reader(found, **options)
    if reader is read_table_log and not in_memory and can_stream(found):
        return reader(found, sample_users=sample_users, **options)
    return sampled_log(reader(found, **options), sample_users)


def _as_given(group: Any, name: str, value: Any) -> Any:
    """A single word where a tuple is wanted becomes one; a signal in words becomes a signal."""
    if name == "signals":
        several = [value] if isinstance(value, str | Signal) else value
        return tuple(parsed_signal(one) if isinstance(one, str) else one for one in several)
    default = next(f.default for f in fields(group) if f.name == name)
    if isinstance(default, tuple):
        return (value,) if isinstance(value, str | int | float) else tuple(value)
    return value


def parsed_signal(text: str) -> Signal:
    """A signal as the command line writes it.

    >>> parsed_signal("rating:1,2,3@click").levels
    (1.0, 2.0, 3.0)
    >>> parsed_signal("watch:0..1").range
    (0.0, 1.0)
    """
    rest, _, given_on = text.rpartition("@") if "@" in text else (text, "", "")
    name, _, values = rest.rpartition(":") if ":" in rest else (rest, "", "")
    good = good_by_name(name)
    try:
        if values in ("", "binary"):
            return Signal(name, good=good, given_on=given_on or None)
        if ".." in values:
            low, high = values.split("..")
            return Signal(name, "continuous", range=(float(low), float(high)), good=good, given_on=given_on or None)
        levels = tuple(float(v) for v in values.split(","))
        return Signal(name, "ordinal", levels=levels, good=good, given_on=given_on or None)
    except ValueError:
        raise LogError(
            f"--signals {text} is not understood; write NAME, NAME:1,2,3 for levels or NAME:0..1 for a range"
        ) from None


def _recognise(place: Path) -> tuple[Reader, Path]:
    if not place.exists():
        raise LogError(f"{place} is not there; check the path")
    for is_there, published in PUBLISHED:
        if is_there(place):
            return published, place
    for pattern, reader in PATTERNS:
        if place.is_file():
            found = [place] if place.name.lower().endswith(pattern) else []
        else:
            found = sorted(file for file in place.glob(f"*{pattern}") if file.is_file())
        if len(found) > 1:
            if reader is read_table_log and _are_parts(found):
                return reader, place
            names = ", ".join(file.name for file in found[:10])
            raise LogError(f"{place} holds more than one *{pattern} ({names}); give the file of the interactions")
        if found:
            return reader, found[0]
    if place.is_file() and kind_of(place):
        return read_table_log, place
    if place.is_dir() and any(kind_of(file) for file in place.rglob("*") if file.is_file()):
        return read_table_log, place
    if not (place.is_file() or place.is_dir()):
        raise LogError(f"{place} is neither a file nor a folder; write what it gives into a file")
    if place.is_file():
        raise LogError(
            f"{place}: files that end in '{place.suffix}' are not read; give CSV, TSV, JSON lines or Parquet (save the "
            "sheet of a spreadsheet as CSV, unpack an archive)"
        )
    known = ", ".join(f"*{pattern}" for pattern, _ in PATTERNS)
    raise LogError(
        f"{place} holds no log: looked for u.data, ratings.dat and ratings.csv of MovieLens, train.ascii of Coat, "
        f"log_standard_*.csv of KuaiRand, big_matrix.csv of KuaiRec, behaviors.tsv of MIND, "
        f"random/men/men.csv of Open Bandit, {known}"
    )


def _are_parts(files: list[Path]) -> bool:
    """True for `part-0001.parquet, part-0002.parquet, ...`: names that differ by their digits alone."""
    return len({re.sub(r"\d+|[0-9a-f]{8}-[0-9a-f-]{20,}", "#", file.name) for file in files}) == 1
