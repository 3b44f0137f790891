"""Groups of policies: a group's name stands for all its policies wherever policies are named."""

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import get_args

from packaging.requirements import Requirement

from recloop.agents.facts import Group, PolicyFacts
from recloop.agents.registry import facts_of, known_policies
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World

GROUPS: tuple[str, ...] = get_args(Group)
"""In the order of lists and tables."""


def grouped() -> dict[str, list[str]]:
    """Group -> names of its known policies, in the registry's order; imports them all.

    A policy of an installed package that cannot be imported is in no group.
    """
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in known_policies():
        try:
            found[facts_of(name).group].append(name)
        except PolicyError as error:
            print(f"recloop: {error}", file=sys.stderr)
    return found


def expanded(names: Sequence[str | Path], world: World) -> list[str]:
    """Names with every group's name replaced by its policies, each policy once.

    A group leaves out, and says so on stderr, whose extra is not installed. It leaves out whom the world cannot serve
    (`needs`) and whoever is privileged. A known policy or a policy folder of a group's name goes before the group.

    Args:
        names: as `make_policy` takes them, and groups.
        world: where they are to act.

    Raises:
        PolicyError: a policy named by itself whose extra is not installed, or a group without any policy here.
    """
    known, found = known_policies(), []
    for name in map(str, names):
        if name not in GROUPS or name in known or (Path(name) / "policy.json").exists():
            if name in known:
                check_extras(name)
            found.append(name)
            continue
        members = _members(name, world)
        if not members:
            raise PolicyError(
                f"no policy of group '{name}' can act in world '{world.name}'; `recloop policies` tells what they need"
            )
        found.extend(member for member in members if member not in (*names, *found))
    return found


def missing_extras(facts: type[PolicyFacts]) -> list[str]:
    """The extras of a policy of which a package is not installed."""
    return [extra for extra in facts.extras if not all(map(_installed, _packages(extra)))]


def check_extras(name: str) -> None:
    """Raise `PolicyError` where a policy needs an extra that is not installed."""
    missing = missing_extras(facts_of(name))
    if missing:
        raise PolicyError(f"policy '{name}' needs an extra that is not installed; pip install '{_pip(missing)}'")


def _members(group: str, world: World) -> list[str]:
    members = []
    for name in grouped()[group]:
        facts = facts_of(name)
        if facts.privileged or any(getattr(world, part) is None for part in facts.needs):
            continue
        missing = missing_extras(facts)
        if missing:
            print(f"recloop: {name} is left out of '{group}'; pip install '{_pip(missing)}'", file=sys.stderr)
            continue
        members.append(name)
    return members


def _pip(extras: Sequence[str]) -> str:
    return f"recloop[{','.join(extras)}]"


def _packages(extra: str) -> list[str]:
    """What an extra of recloop pulls in here."""
    found = [Requirement(line) for line in requires("recloop") or ()]
    return [r.name for r in found if r.marker is not None and r.marker.evaluate({"extra": extra})]


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
