"""The user simulators that are there: built-in kinds, installed ones, and those of a world.

recloop users
recloop users --world worlds/ml-100k
"""

import inspect
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.registry import ENTRY_POINTS, KINDS, find_simulator, installed_simulators, simulator_class
from recloop.envs.world.world import World
from recloop.experiments.report.log_summary import signal_in_words
from recloop.experiments.report.tables import wide_console


@dataclass(frozen=True)
class UsersConfig:
    """List user simulators, one line each."""

    world: Path | None = None
    """World folder whose simulators to list as well."""
    imports: bool = True
    """Whether installed simulators are imported, which runs their code, to say what they are."""


def main(config: UsersConfig) -> None:
    """Print what is there."""
    console = wide_console()
    if config.world is not None:
        world = World.load(config.world)
        rows = [(name, *_said(users)) for name, users in world.simulators.items()]
        console.print(_table(f"in {config.world}", rows))
    rows = [(kind, *_said(simulator_class(kind))) for kind in KINDS]
    console.print(_table("built in (a world folder may hold them)", rows))
    console.print(_table("by a language model", [("language", *_said(_language()))]))
    installed = installed_simulators()
    if installed:
        rows = [(name, *_installed(name, path, config.imports)) for name, path in installed.items()]
        console.print(_table(f"installed (entry points in {ENTRY_POINTS})", rows))
    else:
        console.print(f"\nNo installed package offers any (entry points in {ENTRY_POINTS}).")
    console.print(
        "\nYour own: --users my_module:MyUsers wherever a command takes users; start from "
        "examples/own_users.py, then recloop check-users my_module:MyUsers",
        soft_wrap=True,
    )


def _language() -> type[UserSimulator]:
    from recloop.envs.users.language import LanguageModelUsers

    return LanguageModelUsers


def _installed(name: str, path: str, imports: bool) -> tuple[str, str, str]:
    if not imports:
        return path, "", "not imported"
    try:
        return _said(find_simulator(name))
    except UserSimulatorError as error:
        return path, "", f"broken: {error}"


def _said(users: UserSimulator | type[UserSimulator]) -> tuple[str, str, str]:
    """Class, signals where they are known, and the first sentence of its docstring.

    >>> from recloop.envs.truth.boredom import BoredomUsers
    >>> _said(BoredomUsers)[:2]
    ('BoredomUsers', 'click (binary); rating (ordinal 1 to 5, given on click)')
    """
    kind = users if isinstance(users, type) else type(users)
    declared = getattr(users, "signals", None)
    signals = "; ".join(signal_in_words(s) for s in declared) if isinstance(declared, tuple) else "those of its log"
    first = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return kind.__name__, signals, " ".join(first.split())


def _table(title: str, rows: list[tuple[str, str, str, str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("name", "class", "signals", "what they are"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(UsersConfig, main)
