"""Some users of a log in place of all: those whose rows are kept while it passes by, or once it is read.

A user is drawn by a hash of the id, so that the same users come out of every part, order and format of the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow
import pyarrow.compute

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.schema import Columns, LoggedBehavior

LEAST_SAMPLE = 8
"""Users of a sample, as of a world."""
_KEY = "recloop's sample"
Hashes = npt.NDArray[np.uint64]


def checked_sample(users: int) -> int:
    """The size of a sample; `LogError` where a world could not be made of it."""
    if users < LEAST_SAMPLE:
        raise LogError(f"--sample-users {users}; a world needs {LEAST_SAMPLE} or more to hold some out")
    return users


@dataclass(frozen=True)
class SampledUsers:
    """The users of a sample: those whose ids have the lowest hashes.

    Args:
        column: of the ids.
        highest: hash up to which a user belongs to it.
        users: how many do.
        among: of how many.
    """

    column: str
    highest: int
    users: int
    among: int

    @classmethod
    def of(cls, column: str, ids: Iterable[Any], users: int) -> SampledUsers:
        """From all ids of the log, in pieces (Arrow arrays); memory grows with the number of users alone."""
        met: Hashes = np.zeros(0, dtype=np.uint64)
        for piece in ids:
            words, _ = _words(pyarrow.compute.unique(piece))
            met = np.union1d(met, _hashes(words))
        chosen = met[:users]
        return cls(column, int(chosen[-1]) if len(chosen) else 0, len(chosen), len(met))

    def rows(self, batch: Any) -> npt.NDArray[np.int64]:
        """Which rows of a batch are theirs; those of nobody are kept, so that whoever reads the log meets them."""
        ids = batch.column(batch.schema.get_field_index(self.column))
        ids = ids.dictionary_decode() if pyarrow.types.is_dictionary(ids.type) else ids
        coded = ids.dictionary_encode("encode")
        words, known = _words(coded.dictionary)
        theirs = (_hashes(words) <= np.uint64(self.highest)) | ~known
        return np.flatnonzero(theirs[np.asarray(coded.indices)])

    @property
    def sentence(self) -> str:
        """For the card."""
        return (
            f"A sample was read: {self.users:,} of the log's {self.among:,} users, drawn by a hash of their ids; "
            "nothing but their number is known here of the others."
        )


def sampled_log(log: LoggedBehavior, users: int) -> LoggedBehavior:
    """The log of some of its users, for formats that are read whole."""
    ids = pyarrow.array(log.interactions[Columns.user].to_numpy(dtype=object), type=pyarrow.string())
    chosen = SampledUsers.of(Columns.user, [ids], checked_sample(users))
    kept = chosen.rows(pyarrow.record_batch([ids], names=[Columns.user]))
    rows = log.interactions.iloc[kept].reset_index(drop=True)
    people = log.users[log.users.index.isin(rows[Columns.user].unique())]
    return replace(log, interactions=rows, users=people, notes=(*log.notes, chosen.sentence))


def _words(ids: Any) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Ids as strings without white space around them, and which are there."""
    ids = ids.combine_chunks() if isinstance(ids, pyarrow.ChunkedArray) else ids
    words = pyarrow.compute.utf8_trim_whitespace(ids.cast(pyarrow.string()).fill_null(""))
    found = np.asarray(words.to_numpy(zero_copy_only=False), dtype=object)
    return found, found != ""


def _hashes(words: Any) -> Hashes:
    return np.asarray(pd.util.hash_array(words, hash_key=_KEY, categorize=False), dtype=np.uint64)
