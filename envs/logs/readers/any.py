"""One door to every reader: look at what a path holds and read it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.envs.logs.readers.atomic import read_atomic_log
from recloop.envs.logs.readers.published.coat import is_coat, read_coat_log
from recloop.envs.logs.readers.published.kuairand import is_kuairand, read_kuairand_log
from recloop.envs.logs.readers.published.kuairec import is_kuairec, read_kuairec_log
from recloop.envs.logs.readers.published.mind import is_mind, read_mind_log
from recloop.envs.logs.readers.published.movielens import is_movielens, read_movielens_log
from recloop.envs.logs.readers.published.open_bandit import is_open_bandit, read_open_bandit_log
from recloop.envs.logs.readers.sequence_text import read_sequence_log
from recloop.envs.logs.readers.tables import SUFFIXES, read_table_log
from recloop.envs.logs.schema import LoggedBehavior

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


def read_log(path: str | Path, **options: Any) -> LoggedBehavior:
    """Read a log, whatever its format.

    Looked for, in this order: MovieLens as published (`u.data`, `ratings.dat` or `ratings.csv` beside its file of
    films), Coat (`train.ascii` and `test.ascii`), KuaiRand (`log_standard_*.csv`), KuaiRec (`big_matrix.csv`), the
    latter two also in a folder `data`, MIND (`behaviors.tsv` and `news.tsv`), Open Bandit (`random/men/men.csv`); a
    RecBole `*.inter`; a `*.sequences.txt`; a CSV, TSV or Parquet file. A folder
    must hold one log, and of CSV or Parquet one file: name the file of the interactions where there are more.

    Args:
        path: a folder, or the file of the interactions.
        options: go to the reader that fits; all take `on_bad_rows`.

    Raises:
        LogError: nothing known is there, or more than one log; an option that the reader does not have; else
            what the reader refuses.
    """
    place = Path(path)
    reader, found = _recognise(place)
    known = [name for name in inspect.signature(reader).parameters if name != "path"]
    for name in options:
        if name not in known:
            raise LogError(f"{found}: {unknown_name('option', name, known)}")
    return reader(found, **options)


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
            names = ", ".join(file.name for file in found[:10])
            raise LogError(f"{place} holds more than one *{pattern} ({names}); give the file of the interactions")
        if found:
            return reader, found[0]
    known = ", ".join(f"*{pattern}" for pattern, _ in PATTERNS)
    raise LogError(
        f"{place} holds no log: looked for u.data, ratings.dat and ratings.csv of MovieLens, train.ascii of Coat, "
        f"log_standard_*.csv of KuaiRand, big_matrix.csv of KuaiRec, behaviors.tsv of MIND, "
        f"random/men/men.csv of Open Bandit, {known}"
    )
