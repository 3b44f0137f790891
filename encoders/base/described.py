"""Short in Python: how worlds, logs, encoders, users and policies show themselves, in ten lines or as a card."""

from collections.abc import Mapping, Sized
from typing import Any

from torch import nn

from recloop.encoders.base.names import html_escape, visible

_FACTS = 8
"""Facts that are shown, a line each; with the head and what is left out they are ten lines."""
_WIDTH = 100
"""Characters of a fact."""
_LISTED = 5
"""Names listed of many."""


class Described:
    """What shows itself as its class and few facts, a line each: text in a terminal, a card in a notebook.

    Subclasses say by `described` which facts; the default is what they hold. One with a `__repr__` of its own keeps it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__repr__ in (Described.__repr__, nn.Module.__repr__):
            cls.__repr__ = Described.__repr__  # type: ignore[method-assign]  # else a dataclass writes one of its own

    def described(self) -> Mapping[str, Any]:
        """The facts that are shown, by name; values of any kind. None is nothing to show."""
        held = dict(vars(self))
        for inner in ("_parameters", "_buffers", "_modules"):
            held.update(held.get(inner, {}))
        shown = {name: value for name, value in held.items() if value is not None and name != "training"}
        return {name: value for name, value in shown.items() if not name.startswith("_")}

    def __repr__(self) -> str:
        head, facts = self._lines()
        return "\n".join([head, *(f"  {name}: {text}" if text else f"  {name}" for name, text in facts)])

    def _repr_html_(self) -> str:
        head, facts = self._lines()
        row = '<tr><td style="text-align:left"><b>{}</b></td><td style="text-align:left">{}</td></tr>'
        rows = "".join(row.format(html_escape(name), html_escape(text)) for name, text in facts)
        return f"<div><b>{html_escape(head)}</b><table><tbody>{rows}</tbody></table></div>"

    def _lines(self) -> tuple[str, list[tuple[str, str]]]:
        facts = {name: value for name, value in self.described().items() if name != "name"}
        lines = [(visible(name)[:_WIDTH], in_one_line(value)) for name, value in list(facts.items())[:_FACTS]]
        if len(facts) > _FACTS:
            lines.append((f"and {len(facts) - _FACTS} more", ""))
        return _head(self), lines


def in_one_line(value: Any) -> str:
    """Any value in at most a hundred characters.

    >>> in_one_line([1, 2, 3, 4, 5, 6, 7])
    '7: 1, 2, 3, 4, 5, ...'
    """
    if hasattr(value, "shape") and hasattr(value, "columns"):
        text = f"{len(value):,} rows: {_listed(list(value.columns))}"
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        text = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    elif isinstance(value, Described):
        text = _head(value)
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        text = f"{len(value):,}: {_listed(list(value))}" if value else "none"
    elif value is None or isinstance(value, str | int | float):
        text = f"{value:,}" if type(value) is int else str(value)
    else:
        name = getattr(value, "name", None)
        text = name if isinstance(name, str) else getattr(value, "__name__", type(value).__name__)
    text = visible(text)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _listed(values: list[Any]) -> str:
    more = ", ..." if len(values) > _LISTED else ""
    return ", ".join(in_one_line(value) for value in values[:_LISTED]) + more


def _head(thing: Described) -> str:
    """The class, and what it is called or how many it holds."""
    name = vars(thing).get("name", getattr(type(thing), "name", None))
    kind = type(thing).__name__
    if isinstance(name, str) and name:
        return visible(f"{kind} '{name[:_WIDTH]}'")
    return f"{kind} of {len(thing):,}" if isinstance(thing, Sized) else kind
