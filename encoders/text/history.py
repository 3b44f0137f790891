"""A history as text, in a template that a user can change."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from recloop.encoders.base.errors import LogError, unknown_name

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
        _ = self._read

    @cached_property
    def _read(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """The lines and the fields that each uses; reading a format costs more than filling it in."""
        return tuple((line, frozenset(_fields(line))) for line in self.lines)

    def check(self, signals: Iterable[str]) -> None:
        """`LogError` where a line uses a field that is neither the title nor the name of one of `signals`."""
        known = [TITLE, *signals]
        for line, fields in self._read:
            for name in sorted(fields.difference(known)):
                raise LogError(f"history template {line!r}: {unknown_name('field', name, known)}")

    def line(self, title: str, given: Mapping[str, float]) -> str:
        """How one consumption reads, of which these signals are given."""
        values: dict[str, str | float] = {**given, TITLE: title}
        fitting = next((line for line, fields in self._read if fields <= values.keys()), None)
        return title if fitting is None else fitting.format(**values)

    def join(self, lines: Sequence[str]) -> str:
        """A history, oldest first, of lines made before."""
        if not lines:
            return self.before + self.empty
        return self.before + self.separator.join(lines[-self.most_items :])


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
    newest = list(zip(titles, given, strict=True))[-template.most_items :]
    return template.join([template.line(title, own) for title, own in newest])


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
