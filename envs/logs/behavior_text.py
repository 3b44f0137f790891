"""Logged behaviour as text: the histories of a log's users in a template that fits its signals."""

from collections.abc import Sequence

import numpy as np

from recloop.encoders.text.history import HistoryTemplate, history_text
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences


def default_template(signals: Sequence[Signal]) -> HistoryTemplate:
    """A template that tells the first signal after the consumption that is not binary, where there is one.

    >>> default_template([Signal("consume"), Signal("watch", "continuous", range=(0, 2))]).lines
    ('watch {watch:g}: {title}', '{title}')
    """
    measured = [signal.name for signal in signals[1:] if signal.kind != "binary" and signal.name.isidentifier()]
    if not measured:
        return HistoryTemplate(lines=("{title}",))
    name = measured[0]
    verb = "rated" if name == "rating" else name.replace("_", " ")
    return HistoryTemplate(lines=(f"{verb} {{{name}:g}}: {{title}}", "{title}"))


def history_texts(
    sequences: Sequences,
    signals: Sequence[Signal],
    titles: Sequence[str],
    users: Ints,
    template: HistoryTemplate | None = None,
) -> list[str]:
    """The histories of `users` (B,) as text.

    Args:
        sequences: of the log.
        signals: of the log, in order of the feedback's columns.
        titles: of all items, by row, (N,).
        users: row numbers.
        template: how it reads; None makes one of the signals.
    """
    template = template or default_template(signals)
    names = [signal.name for signal in signals]
    template.check(names)
    texts = []
    for user in users.tolist():
        first = max(int(sequences.offsets[user]), int(sequences.offsets[user + 1]) - template.most_items)
        rows = slice(first, int(sequences.offsets[user + 1]))
        values = np.where(sequences.given[rows], sequences.feedback[rows], np.nan)
        feedback = [_given(names, row) for row in values.tolist()]
        texts.append(history_text([titles[item] for item in sequences.items[rows]], feedback, template))
    return texts


def _given(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return {name: value for name, value in zip(names, values, strict=True) if value == value}
