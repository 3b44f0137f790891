"""Behaviour as text: a user's history as readable lines, in a template that a user can change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

import numpy as np

from recloop.encoders.errors import LogError, unknown_name
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences

TITLE = "title"
"""The field that every line may use beside the signals' names."""


@dataclass(frozen=True)
class HistoryTemplate:
    """How a history reads.

    Args:
        lines: formats of one consumption, in Python's format language, with the fields `title` and the names of
            signals. The first whose fields are all given is used, so that the last should need the title only.
        separator: between consumptions.
        before: in front of the whole.
        empty: what stands for a history without items.
        most_items: only the newest so many are told.
    """

    lines: tuple[str, ...] = ("rated {rating:g}: {title}", "{title}")
    separator: str = "; "
    before: str = ""
    empty: str = "nothing yet"
    most_items: int = 50

    def __post_init__(self) -> None:
        if not self.lines or self.most_items < 1:
            raise LogError(f"a history template needs a line and most_items of 1 or more, not {self.most_items}")
        for line in self.lines:
            _fields(line)

    def check(self, signals: Sequence[Signal]) -> None:
        """`LogError` where a line uses a field that is neither the title nor one of `signals`."""
        known = [TITLE, *(signal.name for signal in signals)]
        for line in self.lines:
            for name in _fields(line):
                if name not in known:
                    raise LogError(f"history template {line!r}: {unknown_name('field', name, known)}")


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


def history_text(
    titles: Sequence[str],
    feedback: Sequence[Mapping[str, float]] | None = None,
    template: HistoryTemplate | None = None,
) -> str:
    """One history, oldest first, as text; the newest is kept where it is cut.

    Args:
        titles: of the items consumed, oldest first.
        feedback: the signals given on each, by name; None: none was given.
        template: how it reads.

    >>> history_text(["Toy Story (1995)", "Heat (1995)"], [{"rating": 5.0}, {}])
    'rated 5: Toy Story (1995); Heat (1995)'
    """
    template = template or HistoryTemplate()
    given = [{} for _ in titles] if feedback is None else list(feedback)
    if len(given) != len(titles):
        raise LogError(f"a history of {len(titles)} titles has {len(given)} feedbacks; give one for each title")
    if not titles:
        return template.before + template.empty
    newest = list(zip(titles, given, strict=True))[-template.most_items :]
    return template.before + template.separator.join(_line(template, title, own) for title, own in newest)


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
    template.check(signals)
    names = [signal.name for signal in signals]
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


def _fields(line: str) -> list[str]:
    """The names a format uses; `LogError` where it is broken or reaches into its values."""
    try:
        parts = list(Formatter().parse(line))
    except ValueError as error:
        raise LogError(f"history template {line!r} is broken: {error}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        if name is not None and not name.isidentifier():
            raise LogError(f"history template {line!r}: '{name}' is no plain name; use {{title}} or {{signal}}")
        if "{" in (spec or "") or conversion is not None:
            raise LogError(f"history template {line!r}: field '{name}' may have a plain format only, as in :g")
        try:
            format("" if name == TITLE else 1.0, spec or "")
        except ValueError as error:
            raise LogError(f"history template {line!r}: field '{name}': {error}") from None
    return names


def _line(template: HistoryTemplate, title: str, given: Mapping[str, float]) -> str:
    values: dict[str, str | float] = {**given, TITLE: title}
    fitting = [line for line in template.lines if all(name in values for name in _fields(line))]
    return fitting[0].format(**values) if fitting else title
