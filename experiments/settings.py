"""What the commands' settings share: limits that are checked, and YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recloop.agents.settings import assignments
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.storage import replacing_file


def at_least(limit: int, **values: int | None) -> None:
    """Raise `RecloopError` for the first value below `limit`; None stands for a default and passes.

    >>> at_least(1, seeds=0)
    Traceback (most recent call last):
    recloop.encoders.base.errors.RecloopError: --seeds 0 is too few; it must be at least 1
    """
    for name, value in values.items():
        if value is not None and value < limit:
            raise RecloopError(f"--{name.replace('_', '-')} {value} is too few; it must be at least {limit}")


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as YAML; `read_settings` undoes it."""
    with replacing_file(path) as part:
        part.write_text(yaml.safe_dump(_plain(dict(settings)), sort_keys=False, allow_unicode=True), "utf-8")


def read_settings(path: Path) -> dict[str, Any]:
    """Settings by name from a YAML file, for `with_settings`."""
    try:
        facts = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecloopError(f"{path} is missing; name a YAML file of settings, one `name: value` a line") from None
    except yaml.YAMLError as error:
        raise RecloopError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(facts, dict):
        raise RecloopError(f"{path} holds no settings; write one `name: value` a line")
    return {str(name): value for name, value in facts.items()}


def given_settings(file: Path | None, assigned: Sequence[str]) -> dict[str, Any]:
    """What `--config FILE` and `--set name=value ...` give; the latter goes over the former."""
    return {**(read_settings(file) if file is not None else {}), **assignments(assigned)}


def settings_by_policy(given: Mapping[str, Any], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings named `policy.setting`, or mappings by policy, as settings by policy.

    >>> settings_by_policy({"a2c": {"gamma": 0.5}, "a2c.network.hidden": "8"}, ["ppo", "a2c"])
    {'a2c': {'gamma': 0.5, 'network.hidden': '8'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        of = max((label for label in labels if f"{name}.".startswith(f"{label}.")), key=len, default=None)
        rest = name[len(of) + 1 :] if of is not None else ""
        if of is None or not (rest or isinstance(value, Mapping)):
            raise RecloopError(f"{unknown_name('policy', name.split('.')[0], labels)}; write policy.setting=value")
        found.setdefault(of, {}).update({rest: value} if rest else value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
