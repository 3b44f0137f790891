"""Settings by name: `name=value` onto a frozen dataclass by its annotations, and what its docstring says of each.

>>> from recloop.agents.baselines.dnn import DNNConfig
>>> with_settings(DNNConfig(), {"hidden": "64"}, "dnn").hidden
64
"""

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recloop.encoders.base.errors import RecloopError, unknown_name

Config = TypeVar("Config")

_WORDS = {"true": True, "false": False}
_ARGS = re.compile(r"^Args:\n(.*?)(?:\n\n|\Z)", re.DOTALL | re.MULTILINE)
_ARG = re.compile(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One field of a config.

    Args:
        name: dotted where it lies in a config within, `network.hidden`.
        kind: its type, in words.
        default: of the config asked.
        told: what the docstring says of it.
    """

    name: str
    kind: str
    default: Any
    told: str


def with_settings(config: Config, given: Mapping[str, Any], of: str) -> Config:
    """A config with some fields replaced.

    Args:
        config: a frozen dataclass.
        given: values by field name, dotted or a mapping for a config within; text, as a command line or YAML gives it,
            becomes what the field is annotated with.
        of: whose settings they are, for messages.

    Raises:
        RecloopError: a name that the config does not have (suggests the nearest), or a value of another type.
    """
    hints = get_type_hints(type(config))
    made: dict[str, Any] = {}
    within: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        first, _, rest = name.partition(".")
        nested = first in hints and is_dataclass(getattr(config, first))
        if first not in hints or (rest and not nested):
            raise RecloopError(unknown_name(f"setting of {of}", name, [s.name for s in settings_of(config)]))
        if rest or (nested and isinstance(value, Mapping)):
            within.setdefault(first, {}).update({rest: value} if rest else value)
        else:
            made[first] = typed(value, hints[first], f"{name}={value} of {of}")
    for first, some in within.items():
        made[first] = with_settings(made.get(first, getattr(config, first)), some, f"{of}'s {first}")
    return replace(config, **made)  # type: ignore[type-var]


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a mapping.

    >>> assignments(["learning_rate=3e-4", "rollout=16"])
    {'learning_rate': '3e-4', 'rollout': '16'}
    """
    pairs = [text.partition("=") for text in texts]
    for text, (name, sign, _) in zip(texts, pairs, strict=True):
        if not (name and sign):
            raise RecloopError(f"--set {text} names no value; write it as name=value, learning_rate=3e-4 say")
    return {name: value for name, _, value in pairs}


def typed(value: Any, hint: Any, what: str) -> Any:
    """A value, or the text of one, as the type `hint`; `what` is it and where it belongs, for the message."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        found = _as(value, option, what)
        if found is not _NOT:
            return found
    raise RecloopError(f"{what} does not fit: it takes {_words(hint)}, not the {type(value).__name__} {value!r}")


def settings_of(config: Any) -> list[Setting]:
    """The fields of a config in their order, those of configs within it too."""
    told = _told(type(config))
    hints = get_type_hints(type(config))
    found: list[Setting] = []
    for one in fields(config):
        value = getattr(config, one.name)
        if is_dataclass(value):
            found += [replace(s, name=f"{one.name}.{s.name}") for s in settings_of(value)]
        else:
            found.append(Setting(one.name, _words(hints[one.name]), value, told.get(one.name, "")))
    return found


_NOT = object()
"""Stands for a value that is not of a type."""


def _as(value: Any, hint: Any, what: str) -> Any:
    """A value as one plain type, or `_NOT`."""
    text = value.strip() if isinstance(value, str) else None
    if hint is type(None):
        return None if value is None or (text or "").lower() in ("none", "null") else _NOT
    if get_origin(hint) is Literal:
        return next((one for one in get_args(hint) if value == one or text == str(one)), _NOT)
    if get_origin(hint) is tuple:
        each = text.split(",") if text is not None else value
        return tuple(typed(one, get_args(hint)[0], what) for one in each) if isinstance(each, list | tuple) else _NOT
    if hint is bool:
        return value if isinstance(value, bool) else _WORDS.get((text or "").lower(), _NOT)
    if hint in (int, float):
        return _number(value if text is None else text, hint)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    return value if hint is Any or (isinstance(hint, type) and isinstance(value, hint)) else _NOT


def _number(value: Any, hint: type[int] | type[float]) -> Any:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return _NOT
    if hint is float:
        return _NOT if math.isnan(number) else number
    return int(number) if number.is_integer() else _NOT


def _words(hint: Any) -> str:
    """A type as a person reads it.

    >>> _words(int | None)
    'int or none'
    """
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(str(one) for one in get_args(hint))
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _told(kind: type[Any]) -> dict[str, str]:
    """What the docstrings say of each field; a class's own word goes over its bases'."""
    told: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found = _ARGS.search(cleandoc(base.__dict__.get("__doc__") or ""))
        for names, text in _ARG.findall(found[1]) if found else ():
            told.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return told
