"""What is known of one person outside any simulator, by external ids, and its way into an observation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import PolicyError, unknown_name
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.seen import LoggedItems
from recloop.envs.logs.schema import Signal
from recloop.envs.world.world import World

Answers = Mapping[str, Sequence[float | None]]
"""Signal name -> one value a place; None where not given."""

_SUGGEST_BELOW = 200_000
"""Catalogue size above which no near ids are looked for: it would take seconds."""


@dataclass(frozen=True)
class Observed:
    """What is known of one person. Everything but `history` may be left out.

    Args:
        history: external ids of the items consumed, oldest first.
        feedback: signals of the history by name, one value an item, None where not given. The consumption
            signal is 1 where left out; the others count as not given.
        shown: the slates shown lately, oldest first, as external ids from the top place down.
        answers: the answers to them, a mapping a slate; a slate without answers counts as ignored.
        profile: features by name (those of `World.users.profile_names`), 0 where left out; or all p values.
        step: slates already answered in this session.
        days_away: days since the session before this one; 0 within a session.
        instruction: what the person says they want, in words; blank is no wish.
    """

    history: Sequence[str] = ()
    feedback: Answers | None = None
    shown: Sequence[Sequence[str]] = ()
    answers: Sequence[Answers] | None = None
    profile: Mapping[str, float] | Sequence[float] | None = None
    step: int = 0
    days_away: float = 0.0
    instruction: str = ""


def past_of_people(people: Sequence[Observed], world: World) -> tuple[Past, Tensor]:
    """The `Past` of B people as the loop would have it, and their profiles (B, p).

    Histories and slates keep their newest H and L; slates longer than the world's K lose their lower places.
    `seen` holds all of a person's history, also what is older than H.
    """
    spec, empty = world.spec(), len(world.catalogue)
    whole, signals = histories_of_people(people, world)
    missing = max(spec.history_length - whole.shape[1], 0)
    history = F.pad(whole, (missing, 0), value=empty)[:, -spec.history_length :]
    feedback = F.pad(signals, (0, 0, missing, 0))[:, -spec.history_length :]
    b, s = len(people), len(spec.signals)
    shown = torch.full((b, spec.shown_length, spec.slate_size), empty)
    answers = torch.zeros(b, spec.shown_length, spec.slate_size, s)
    owner = torch.arange(b).repeat_interleave(whole.shape[1])
    for lane, person in enumerate(people):
        _fill_slates(person, world, shown[lane], answers[lane])
    past = Past(
        history=history,
        feedback=feedback,
        shown=shown,
        answers=answers,
        step=torch.tensor([int(_checked("step", p.step, 0)) for p in people], dtype=torch.int64),
        days_away=torch.tensor([_checked("days_away", p.days_away, 0.0) for p in people]),
        seen=LoggedItems.of(b, empty, owner, whole.flatten()).seen(capacity=0),
    )
    return past, torch.stack([_profile(p.profile, world) for p in people])


def histories_of_people(people: Sequence[Observed], world: World) -> tuple[Tensor, Tensor]:
    """All that B people consumed, however long: int64 (B, L) item rows, newest last, N in front; float32 (B, L, S)."""
    items = [item_rows(person.history, world, "history") for person in people]
    longest = max(len(rows) for rows in items)
    history = torch.full((len(people), longest), len(world.catalogue))
    feedback = torch.zeros(len(people), longest, len(world.signals))
    for lane, (person, rows) in enumerate(zip(people, items, strict=True)):
        signals = _signals(person.feedback, len(rows), world.signals, "feedback", consumed=1.0)
        if len(rows):
            history[lane, -len(rows) :] = rows
            feedback[lane, -len(rows) :] = signals
    return history, feedback


def item_rows(names: Sequence[str], world: World, what: str) -> Tensor:
    """External ids -> int64 rows; `PolicyError` names the first unknown id, its neighbours and how many there are."""
    if isinstance(names, str):
        raise PolicyError(f"{what} is the text '{names}'; give a list of item ids")
    known = world.catalogue.rows
    rows = [known.get(str(name), -1) for name in names]
    unknown = [str(name) for name, row in zip(names, rows, strict=True) if row < 0]
    if unknown:
        near: list[str] = []
        if len(known) <= _SUGGEST_BELOW:
            near = get_close_matches(unknown[0], known, n=3, cutoff=0.6)
        hint = f"near it: {', '.join(near)}" if near else f"ids look like '{world.catalogue.ids[0]}'"
        raise PolicyError(
            f"{what} holds item '{unknown[0]}', which the catalogue of '{world.name}' ({len(known)} items) lacks; "
            f"{hint}; {len(unknown)} of {len(rows)} ids are unknown, leave them out"
        )
    return torch.tensor(rows, dtype=torch.int64)


def _fill_slates(person: Observed, world: World, shown: Tensor, answers: Tensor) -> None:
    """Write one person's newest slates into shown (L, K) and answers (L, K, S)."""
    given = person.answers
    if given is not None and len(given) != len(person.shown):
        raise PolicyError(f"{len(given)} answers to {len(person.shown)} shown slates; give one a slate")
    length = min(len(person.shown), len(shown))
    for back in range(1, length + 1):
        what = f"shown[{len(person.shown) - back}]"
        rows = item_rows(person.shown[-back], world, what)
        answer = None if given is None else given[-back]
        signals = _signals(answer, len(rows), world.signals, f"the answer to {what}", consumed=0.0)
        width = min(len(rows), shown.shape[1])
        shown[-back, :width] = rows[:width]
        answers[-back, :width] = signals[:width]


def _signals(given: Answers | None, count: int, signals: Sequence[Signal], what: str, consumed: float) -> Tensor:
    """Signals by name -> (count, S); the consumption is `consumed` where it is left out."""
    table = torch.zeros(count, len(signals))
    table[:, 0] = consumed
    places = {signal.name: place for place, signal in enumerate(signals)}
    for name, values in (given or {}).items():
        if name not in places:
            raise PolicyError(f"{what}: {unknown_name('signal', name, places)}")
        if len(values) != count:
            raise PolicyError(f"{what}: '{name}' has {len(values)} values for {count} items; give one an item")
        low, high = signals[places[name]].bounds
        known = [0.0 if v is None else _checked(f"{what}: '{name}'", v, low, high) for v in values]
        table[:, places[name]] = torch.tensor(known)
    return table


def _profile(given: Mapping[str, float] | Sequence[float] | None, world: World) -> Tensor:
    names = world.users.profile_names
    width = world.users.profile.shape[1]
    if given is None:
        return torch.zeros(width)
    if not isinstance(given, Mapping):
        if len(given) != width:
            raise PolicyError(f"profile has {len(given)} values; this policy's world has {width} features")
        return torch.tensor([_checked("profile", value) for value in given], dtype=torch.float32)
    profile = torch.zeros(width)
    for name, value in given.items():
        if name not in names:
            raise PolicyError(unknown_name("profile feature", name, names))
        profile[names.index(name)] = _checked(f"profile feature '{name}'", value)
    return profile


def _checked(what: str, value: float, low: float | None = None, high: float | None = None) -> float:
    below, above = low is not None and value < low, high is not None and value > high
    if not isfinite(value) or below or above:
        limits = f"{'-inf' if low is None else low} to {'inf' if high is None else high}"
        raise PolicyError(f"{what} is {value}; it must be a finite number, {limits}")
    return float(value)
