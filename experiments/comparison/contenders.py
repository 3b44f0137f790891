"""Who is compared: policies, found before anything is trained, and what is known of each once it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recloop.agents.groups import expanded
from recloop.agents.registry import check_settings, facts_of, known_policies, load_policy
from recloop.encoders.base.errors import PolicyError, RecloopError, unknown_name
from recloop.envs.world.world import World
from recloop.experiments.asked import made_for_other_terms
from recloop.experiments.comparison.result_store import Finished, file_safe
from recloop.experiments.comparison.results import Entry
from recloop.experiments.comparison.tracking import kept_start
from recloop.experiments.settings import settings_by_policy


def find_contenders(
    policies: Sequence[str], world: World, given: Mapping[str, Any], trust: bool = False
) -> tuple[Entry, ...]:
    """The policies asked for, each found and with a label of its own; errors come before any training.

    Args:
        policies: registered names, groups, dotted paths, or policy folders.
        given: settings by policy, as `settings_by_policy` takes them.
        trust: whether a folder may name a class of its own to import.
    """
    found: list[Entry] = []
    known = known_policies()
    for source in expanded(policies, world):
        note = ""
        if source not in known and (Path(source) / "policy.json").exists():
            note = made_for_other_terms(load_policy(source, trust=trust), world)
        facts = facts_of(source)  # raises for a name that nobody knows
        if facts.privileged and not world.is_truth:
            raise PolicyError(
                f"policy '{source}' needs a world whose users are written down; '{world.name}' was learned from a "
                f"log, leave {source} out"
            )
        if source not in known and ":" not in source and not Path(source).exists():
            raise PolicyError(f"{unknown_name('policy', source, known)}; or give a policy folder or a dotted path")
        name = source if source in known else _short_name(source)
        label, again = name, 2
        while any(c.label == label for c in found):
            label, again = f"{name}-{again}", again + 1
        retrained = facts.trains != "no" and not facts.deterministic
        found.append(Entry(label, source, retrained, facts.privileged, note=note))
    settings = settings_by_policy(given, [one.label for one in found])
    for one in found:
        if one.label in settings:
            check_settings(one.source, settings[one.label])
    return tuple(replace(one, settings=settings.get(one.label, {})) for one in found)


def _short_name(source: str) -> str:
    if ":" in source and not Path(source).exists():
        return file_safe(source.rpartition(":")[2])
    return file_safe(Path(source).resolve().name)


def reference_of(wanted: str | None, contenders: Sequence[Entry]) -> str:
    """The label that others are held against: the one wanted, else popularity, else the first."""
    labels = [c.label for c in contenders]
    if wanted is None:
        return "popularity" if "popularity" in labels else labels[0]
    if wanted not in labels:
        raise RecloopError(unknown_name("reference policy", wanted, labels))
    return wanted


def as_made(entry: Entry, finished: Mapping[tuple[str, int], Finished], world: World, seeds: int, steps: int) -> Entry:
    """With what is known of a policy once it is made: what it learned from, and whether that helped.

    Args:
        finished: results by (label, seed).
        seeds: trainings of it.
        steps: budget of agents whose settings name none.
    """
    first, notes = finished[entry.label, 0], [entry.note] if entry.note else []
    if entry.retrained and world.is_truth and facts_of(entry.source).trains == "loop":
        budget = int(entry.settings.get("steps", steps))
        notes.append(f"learned from {budget:,} slates in the truth itself; the log holds {_logged_slates(world):,}")
    idle = [seed for seed in range(seeds) if kept_start(finished[entry.label, seed].curves)]
    if idle:
        which = "" if len(idle) == seeds else f" in seed(s) {', '.join(map(str, idle))}"
        notes.append(f"KEPT ITS START{which}: nothing it learned was better in validation")
    return replace(entry, privileged=first.privileged, plans=first.plans and not world.is_truth, note="; ".join(notes))


def _logged_slates(world: World) -> int:
    """Slates of the train users in the log, which supervised policies and user models learn from."""
    slates, train = world.sequences.slates, world.users.rows("train").numpy()
    return 0 if slates is None else int((slates.offsets[train + 1] - slates.offsets[train]).sum())
