"""Logged behaviour as text: a template of histories that fits a log's signals."""

from collections.abc import Sequence

from recloop.encoders.text.history import HistoryTemplate
from recloop.envs.logs.schema import Signal


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
