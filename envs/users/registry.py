"""Simulators by name: the built-in kinds, a dotted path, an installed entry point; and their folders on disk."""

import importlib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, Self, cast, runtime_checkable

from recloop.encoders.base.errors import UserSimulatorError, unknown_name
from recloop.encoders.base.storage import read_json, replacing_folder, write_json
from recloop.envs.users.contract import UserSimulator

KINDS = {
    "recurrent": "recloop.envs.users.fitted.recurrent:RecurrentUsers",
    "attentive": "recloop.envs.users.fitted.attentive:AttentiveUsers",
    "factor": "recloop.envs.users.fitted.factor:FactorUsers",
    "trees": "recloop.envs.users.fitted.felt.users:TreeUsers",
    "network": "recloop.envs.users.fitted.felt.users:NetworkUsers",
    "ensemble": "recloop.envs.users.fitted.ensemble:EnsembleUsers",
    "boredom": "recloop.envs.truth.boredom:BoredomUsers",
    "clicks": "recloop.envs.truth.clicks:ClickUsers",
    "cascade": "recloop.envs.truth.clicks:CascadeUsers",
    "clickbait": "recloop.envs.truth.clickbait:ClickbaitUsers",
    "drift": "recloop.envs.truth.drift:DriftUsers",
    "retention": "recloop.envs.truth.retention:RetentionUsers",
    "matrix": "recloop.envs.truth.matrix:MatrixUsers",
    "speaking": "recloop.envs.users.speaking.users:SpeakingUsers",
    "group": "recloop.envs.users.together.users:GroupUsers",
}
"""Kind -> dotted path of the simulators that a world folder may hold."""
_FORMER_KINDS = {"topics": "boredom"}
"""What older world folders call a kind -> what it is called now."""

ENTRY_POINTS = "recloop.users"
"""Entry-point group under which an installed package offers simulators."""


@runtime_checkable
class StoredSimulator(Protocol):
    """A simulator that a world can keep on disk."""

    kind: str
    """Its key in `KINDS`."""

    def save(self, folder: Path) -> None:
        """Write parameters as safetensors and JSON; the folder is replaced whole."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Undo `save`."""


def save_simulator(simulator: UserSimulator, folder: Path) -> None:
    """Write a simulator of a built-in kind; a simulator of your own is named when the world is used instead."""
    if not isinstance(simulator, StoredSimulator) or simulator.kind not in KINDS:
        raise UserSimulatorError(
            f"{type(simulator).__name__} cannot be kept in a world folder; pass it by name when you use the world "
            "(--users my_module:MyUsers)"
        )
    with replacing_folder(folder) as part:
        simulator.save(part)
        write_json(part / "kind.json", {"kind": simulator.kind})


def load_simulator(folder: Path) -> UserSimulator:
    """Read a simulator that `save_simulator` wrote."""
    kind = read_json(folder / "kind.json")["kind"]
    kind = _FORMER_KINDS.get(kind, kind)
    if kind not in KINDS:
        raise UserSimulatorError(f"{folder}: {unknown_name('kind of users', kind, KINDS)}")
    stored = cast(type[StoredSimulator], _attribute(KINDS[kind]))
    return cast(UserSimulator, stored.load(folder))


def find_simulator(name: str) -> type[UserSimulator]:
    """The class of a simulator by entry-point name or dotted path `my_package.module:MyUsers`."""
    if ":" in name:
        found = _attribute(name)
    else:
        offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in offered:
            hint = "or give a dotted path such as my_package.module:MyUsers"
            raise UserSimulatorError(f"{unknown_name('user simulator', name, offered)}; {hint}")
        try:
            found = offered[name].load()
        except (ImportError, AttributeError) as error:
            reason = f"cannot import {offered[name].value}: {error}"
            raise UserSimulatorError(f"{reason}; install the package that offers '{name}' anew") from error
    if not (isinstance(found, type) and issubclass(found, UserSimulator)):
        raise UserSimulatorError(f"{name} is not a UserSimulator class; derive it from recloop.envs.UserSimulator")
    return found


def simulator_class(kind: str) -> type[UserSimulator]:
    """The class of a built-in kind."""
    if kind not in KINDS:
        raise UserSimulatorError(unknown_name("kind of users", kind, KINDS))
    return cast(type[UserSimulator], _attribute(KINDS[kind]))


def installed_simulators() -> dict[str, str]:
    """What installed packages offer in the group `recloop.users`: name -> dotted path; nothing is imported."""
    return {point.name: point.value for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)}


def _attribute(path: str) -> object:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserSimulatorError(f"cannot import {path}: {error}; check the path and PYTHONPATH") from error
