"""Signals: as flags, by the names of columns and the scales of their values."""

import numpy as np

from recloop.envs.logs.readers.columns.cells import Floats, words
from recloop.envs.logs.readers.columns.names import SHOWN_AND_TAKEN, plain
from recloop.envs.logs.schema import Signal

CONSUME = "consume"
"""Name of the consumption signal that readers add where a row means that the item was consumed."""
RATING_SCALES: tuple[tuple[float, ...], ...] = (
    (1, 2, 3, 4, 5),
    tuple(step / 2 for step in range(1, 11)),
    tuple(range(1, 11)),
    tuple(range(0, 11)),
)
"""Scales that ratings are given on; the first that holds nearly all ratings of a log is taken."""
SCALE_HOLDS = 0.99
"""Share of the ratings that must lie on a scale; the rest is out of range and left to cleaning."""
MOST_LEVELS = 10
"""A column of up to this many different values is ordinal; above, it is continuous."""
ANSWERS = words(
    "rating ratings stars star like liked likes dislike disliked follow followed comment comments share shared shares "
    "forward forwarded hate save saved favorite favourite fav bookmark purchase purchased buy bought order ordered "
    "cart conversion converted convert dwell plays playcount listens watch watched completion completed finish "
    "finished skip skipped install installed download subscribe unsubscribe hide vote votes thumbs feedback "
    "satisfaction enjoyment score engagement reward helpful"
)
"""Words in the name of a column that make it an answer; `score` only where its values are a rating scale."""
PHRASES = words("play_time listen_time read_time view_time time_spent long_view play_count listen_count read_ratio")
NO_ANSWERS = words("id ids key code number no nr timestamp date ts at pos position rank text title name type")
"""Last words of names that are of no answer: `conversion_id`, `purchase_date`."""
BAD = ("dislike", "disliked", "hate", "skip", "skipped", "hide", "unsubscribe")
"""Answers of which more is worse for the user."""


def consumption() -> Signal:
    """The signal that is 1 in every row of a log that holds consumption alone."""
    return Signal(CONSUME)


def signal_flag(signal: Signal) -> str:
    """A signal as `--signals` takes it.

    >>> signal_flag(Signal("rating", "ordinal", levels=(1, 2), given_on="click"))
    'rating:1,2@click'
    """
    values = ""
    if signal.kind == "ordinal":
        values = ":" + ",".join(map(_exactly, signal.levels))
    elif signal.range is not None:
        values = ":" + "..".join(map(_exactly, signal.range))
    return f"{signal.name}{values}" + (f"@{signal.given_on}" if signal.given_on else "")


def _exactly(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def rating_scale(values: Floats) -> tuple[float, ...] | None:
    """The scale ratings (R,) are given on, or None where none of `RATING_SCALES` holds them.

    >>> rating_scale(np.array([1.0, 5.0, 4.0]))
    (1, 2, 3, 4, 5)
    """
    known = values[np.isfinite(values)]
    for scale in RATING_SCALES:
        if len(known) and float(np.mean(np.isin(known, scale))) >= SCALE_HOLDS:
            return scale
    return None


def good_by_name(column: str) -> bool:
    """False for answers of which more is worse for the user.

    >>> good_by_name("skipped"), good_by_name("rating")
    (False, True)
    """
    return not any(word in BAD for word in plain(column).split("_"))


def named_as_answer(column: str) -> bool:
    """True for the name of an answer; a number or a moment of one, such as `order_id`, is none."""
    name = plain(column)
    words = name.split("_")
    if any(phrase in name for phrase in PHRASES):
        return True
    if words[-1] in NO_ANSWERS or (len(words) > 1 and "order" in words):
        return False
    return any(word in ANSWERS for word in words) or name in SHOWN_AND_TAKEN


def guess_signal(name: str, values: Floats, given_on: str | None) -> Signal | None:
    """The signal a numeric column is, or None for a column that says nothing (one value or no value).

    A column called rating is held against `RATING_SCALES`; otherwise 0 and 1 are binary, up to `MOST_LEVELS`
    values are ordinal levels, and more are continuous within the range seen.
    """
    known = np.unique(values[np.isfinite(values)])
    rating = any(word in name.lower() for word in ("rating", "stars", "score"))
    if rating and not set(known.tolist()) <= {0.0, 1.0} and (scale := rating_scale(values)) is not None:
        return Signal(name, "ordinal", levels=tuple(float(level) for level in scale), given_on=given_on)
    if len(known) and np.isin(known, (0.0, 1.0)).all() and (len(known) > 1 or not rating):
        return Signal(name, given_on=given_on)
    if len(known) < 2:
        return None
    if len(known) <= MOST_LEVELS:
        return Signal(name, "ordinal", levels=tuple(known.tolist()), given_on=given_on)
    return Signal(name, "continuous", range=(float(known[0]), float(known[-1])), given_on=given_on)
