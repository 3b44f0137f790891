"""What the commands' settings share: limits that are checked, and YAML."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.storage import replacing_file

Config = TypeVar("Config")


def at_least(limit: int, **values: int | None) -> None:
    """Raise `RecloopError` for the first value below `limit`; None stands for a default and passes.

    >>> at_least(1, seeds=0)
    Traceback (most recent call last):
    recloop.encoders.base.errors.RecloopError: --seeds 0 is too few; it must be at least 1
    """
    for name, value in values.items():
        if value is not None and value < limit:
            raise RecloopError(f"--{name.replace('_', '-')} {value} is too few; it must be at least {limit}")


def checked_out(folder: Path, marker: str, what: str) -> None:
    """Raise `RecloopError` where writing `folder` would replace something that is not a `what`.

    A folder is replaced whole, so it must be new, empty, or hold the file `marker` of an earlier one.
    """
    if folder.is_file():
        raise RecloopError(f"--out {folder} is a file; name a folder for the {what}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists():
        raise RecloopError(
            f"--out {folder} exists and is no {what} ({marker} is missing); it would be replaced, name another folder"
        )


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as YAML; `read_settings` undoes it."""
    with replacing_file(path) as part:
        part.write_text(yaml.safe_dump(_plain(dict(settings)), sort_keys=False, allow_unicode=True), "utf-8")


def read_settings(kind: type[Config], path: Path) -> Config:
    """A config dataclass from YAML; `RecloopError` names an unknown field."""
    try:
        facts = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecloopError(f"{path} is missing; name a config.yaml that a run wrote") from None
    except yaml.YAMLError as error:
        raise RecloopError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(facts, dict) or not is_dataclass(kind):
        raise RecloopError(f"{path} holds no settings; name a config.yaml that a run wrote")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for name in facts:
        if name not in known:
            raise RecloopError(f"{path}: {unknown_name('setting', str(name), known)}")
    return kind(**{name: _typed(value, hints[name]) for name, value in facts.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _typed(value: Any, hint: Any) -> Any:
    """YAML's plain value as the field's type: paths and tuples."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in options:
        return Path(value)
    return value
