"""The policies that are there, by group: built-in ones and those that installed packages offer.

recloop policies
recloop policies --groups supervised lm
"""

import inspect
from dataclasses import dataclass

from rich.table import Table

from recloop.agents.facts import PolicyFacts, Trains
from recloop.agents.groups import GROUPS, grouped, missing_extras
from recloop.agents.registry import facts_of
from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.experiments.report.tables import wide_console

TITLES = {
    "baseline": "rules and bounds that a comparison stands on",
    "supervised": "recommenders fitted on the log",
    "lm": "language models",
    "bandit": "bandits",
    "logged": "reinforcement learning from the log alone (offline RL)",
    "rl": "reinforcement learning in the loop",
}
_SOURCES: dict[Trains, str] = {"loop": "loop", "log": "log", "no": "nothing"}


@dataclass(frozen=True)
class PoliciesConfig:
    """List policies, one line each; a group's name stands for all of its policies wherever a command takes policies."""

    groups: tuple[str, ...] = GROUPS
    """Groups to list."""

    def __post_init__(self) -> None:
        for group in self.groups:
            if group not in GROUPS:
                raise RecloopError(unknown_name("group of policies", group, GROUPS))


def main(config: PoliciesConfig) -> None:
    """Print what is there."""
    console = wide_console()
    members = grouped()
    for group in config.groups:
        if members[group]:
            console.print(_table(group, members[group]))
    console.print(
        "\nAlso sb3:NAME for any algorithm of Stable-Baselines3 (docs/guides/sb3.md), policy folders, and your own: "
        "--policies my_module:MyPolicy",
        soft_wrap=True,
    )


def _table(group: str, names: list[str]) -> Table:
    table = Table(title=f"{group}: {TITLES[group]}", title_justify="left")
    for column in ("name", "what it is", "learns from", "needs", "paper"):
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for name in names:
        facts = facts_of(name)
        table.add_row(name, said(facts), _SOURCES[facts.trains], _needed(facts), facts.paper)
    return table


def said(facts: type[PolicyFacts]) -> str:
    """The first sentence of a policy's docstring.

    >>> from recloop.agents.baselines.content import LastItemPolicy
    >>> said(LastItemPolicy)
    'Shows the k admissible items nearest (by cosine) to the one consumed last; see `ContentPolicy`.'
    """
    return " ".join((inspect.getdoc(facts) or "").split("\n\n")[0].split())


def _needed(facts: type[PolicyFacts]) -> str:
    """Extras, those that are missing marked, and what a world must hold.

    >>> from recloop.agents.baselines.greedy import GreedyPolicy
    >>> _needed(GreedyPolicy)
    'a user model'
    """
    missing = missing_extras(facts)
    extras = [f"extra {extra}{' (not installed)' if extra in missing else ''}" for extra in facts.extras]
    parts = {"user_model": "a user model", "instruction": "an instruction encoder"}
    truth = ["a truth world"] if facts.privileged else []
    return ", ".join([*extras, *(parts.get(part, part) for part in facts.needs), *truth])


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(PoliciesConfig, main)
