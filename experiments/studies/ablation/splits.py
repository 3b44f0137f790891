"""Next-item questions of three kinds: at the end of every history, of cold users, and about cold items.

Two trainings answer them. `standard` trains on all but every user's last item. `cold` trains without a share of the
users and without a share of the items, which are held out of training altogether. What its users consumed of other
items after a cold one stays in training, as in DropoutNet (Volkovs et al. 2017) and CLCRec (Wei et al. 2021).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recloop.agents.baselines.next_item import without_last
from recloop.encoders.base.errors import RecloopError
from recloop.envs.logs.sequences import Ints, Sequences

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Arm = Literal["standard", "cold"]
Scorer = Callable[[Tensor, Tensor], Tensor]
"""Histories int64 (B, H), newest last, N empty, and feedback (B, H, S) -> scores float32 (B, N)."""

ALL, COLD_USERS, COLD_ITEMS, COLD_ITEMS_IN_ALL = "all", "cold users", "cold items", "cold items, all ranked"
SPLITS: dict[Arm, tuple[str, ...]] = {"standard": (ALL,), "cold": (COLD_USERS, COLD_ITEMS, COLD_ITEMS_IN_ALL)}
"""What is asked of each training."""
COLD_USER_SHARE, COLD_ITEM_SHARE = 0.15, 0.1
COLD_ITEM_CONSUMPTIONS = 5
"""Items consumed less often are not made cold: there would be next to nothing to ask."""
KNOWN_OF_COLD_USERS = 5
"""Consumptions of a cold user that are known, at most."""
K = 10
_GAIN = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])  # discounted gain of the r best places
_HITS = np.arange(K + 1, dtype=np.float64)  # places among the r best


@dataclass(frozen=True)
class Limits:
    """How much is asked.

    Args:
        users: evaluated users of a split, at most; None takes all.
        targets: cold items asked about of one user, at most.
        history: newest items that a scorer sees.
    """

    users: int | None = None
    targets: int = 10
    history: int = 200


@dataclass(frozen=True)
class Questions:
    """Which item did a user consume next? C of them.

    Args:
        users: int64 (C,) the user's row in the whole log.
        targets: int64 (C,) what was consumed.
        history: int64 (C, H) what is known of the user before, newest last, N empty.
        feedback: float32 (C, H, S) its signals.
        seen: bool (C, N) what the user consumed before, known or not: not ranked.
        candidates: bool (N,) items that are ranked.
    """

    users: Ints
    targets: Ints
    history: Tensor
    feedback: Tensor
    seen: Mask
    candidates: Mask


@dataclass(frozen=True)
class Experiment:
    """What is trained on, and what is asked: `questions` by split."""

    train: Sequences
    questions: Mapping[str, Questions]


def experiment(sequences: Sequences, arm: Arm, seed: int, limits: Limits) -> Experiment:
    """One training with its questions; the seed draws cold users, cold items, and whom to ask about."""
    random = np.random.default_rng([seed, list(SPLITS).index(arm)])
    everything = np.ones(sequences.catalogue_size, dtype=bool)
    if arm == "standard":
        users = _some(np.flatnonzero(sequences.lengths >= 2), limits.users, random)
        asked = (users, sequences.lengths[users] - 1)
        return Experiment(without_last(sequences), {ALL: questions(sequences, *asked, everything, everything, limits)})
    cold_users, cold_items = cold_parts(sequences, random)
    warm_users = np.setdiff1d(np.arange(sequences.users), cold_users)
    warm = everything.copy()
    warm[cold_items] = False
    warm_log = without_items(sequences, ~warm)
    lengths = warm_log.lengths[cold_users]
    asked_users = _some(cold_users[lengths >= 2], limits.users, random)
    places = np.minimum(warm_log.lengths[asked_users] - 1, KNOWN_OF_COLD_USERS)
    about_items = _cold_targets(sequences, _some(warm_users, limits.users, random), warm, limits.targets, random)
    among_cold = questions(sequences, *about_items, warm, ~warm, limits)
    return Experiment(
        warm_log.subset(warm_users),
        {
            COLD_USERS: questions(warm_log, asked_users, places, warm, everything, limits),
            COLD_ITEMS: among_cold,
            COLD_ITEMS_IN_ALL: replace(among_cold, candidates=everything),
        },
    )


def cold_parts(sequences: Sequences, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Users and items held out of training, rising: shares of all users, and of the items consumed often enough."""
    counts = np.bincount(sequences.items, minlength=sequences.catalogue_size)
    enough = np.flatnonzero(counts >= COLD_ITEM_CONSUMPTIONS)
    users, items = round(COLD_USER_SHARE * sequences.users), round(COLD_ITEM_SHARE * len(enough))
    if not users or not items:
        raise RecloopError(
            f"{sequences.users} users and {len(enough)} items consumed {COLD_ITEM_CONSUMPTIONS} times or more are too "
            "few to hold some out; give a larger log"
        )
    cold_users = random.choice(sequences.users, users, replace=False)
    return np.sort(cold_users).astype(np.int64), np.sort(random.choice(enough, items, replace=False)).astype(np.int64)


def without_items(sequences: Sequences, items: Mask) -> Sequences:
    """The sequences without the consumption of the items in `items` (N,); slates are left out."""
    keep = ~items[sequences.items]
    return replace(
        sequences,
        offsets=np.concatenate([[0], np.cumsum(keep)])[sequences.offsets].astype(np.int64),
        items=sequences.items[keep],
        feedback=sequences.feedback[keep],
        given=sequences.given[keep],
        slates=None,
        times=None if sequences.times is None else sequences.times[keep],
    )


def questions(
    sequences: Sequences, users: Ints, places: Ints, known: Mask, candidates: Mask, limits: Limits
) -> Questions:
    """Ask for the consumption number `places` (C,), from 0, of `users` (C,).

    Args:
        known: bool (N,) items that a history may hold; the others are left out of it, yet not ranked once consumed.
        candidates: bool (N,) items that are ranked.

    Raises:
        RecloopError: where there is nothing to ask.
    """
    if not len(users):
        raise RecloopError("no user has a history and an item after it that could be asked for; give a longer log")
    n, signals = sequences.catalogue_size, sequences.feedback.shape[1]
    history = np.full((len(users), limits.history), n, dtype=np.int64)
    feedback = np.zeros((len(users), limits.history, signals), dtype=np.float32)
    seen = np.zeros((len(users), n), dtype=bool)
    targets = sequences.items[sequences.offsets[users] + places]
    for row, (user, place) in enumerate(zip(users.tolist(), places.tolist(), strict=True)):
        items, answers = (values[:place] for values in sequences.of(user))
        seen[row, items] = True
        newest = np.flatnonzero(known[items])[-limits.history :]
        if len(newest):
            history[row, -len(newest) :], feedback[row, -len(newest) :] = items[newest], answers[newest]
    seen[np.arange(len(users)), targets] = False  # stays in even where it is a repeat
    return Questions(users, targets, torch.from_numpy(history), torch.from_numpy(feedback), seen, candidates)


def answer(score: Scorer, asked: Questions, batch: int = 256) -> dict[str, Floats]:
    """How well the targets are ranked: `recall` and `ndcg` at 10 of each question, (C,).

    Items of equal score are taken in every order alike: what counts is the mean over their orders. (By row number, as
    policies show them, an old and so often popular item of MovieLens would come first by its low number.)
    """
    found: dict[str, list[Floats]] = {"recall": [], "ndcg": []}
    for rows in np.array_split(np.arange(len(asked.users)), -(-len(asked.users) // batch)):
        with torch.no_grad():
            scores = score(asked.history[rows], asked.feedback[rows]).numpy()
        if not np.isfinite(scores).all():
            raise RecloopError(f"{(~np.isfinite(scores)).sum()} scores are no numbers; the encoder's fit went wrong")
        own = scores[np.arange(len(rows)), asked.targets[rows]][:, None]
        ranked = asked.candidates & ~asked.seen[rows]
        ahead = ((scores > own) & ranked).sum(1)
        tied = ((scores == own) & ranked).sum(1)  # the target among them
        first, last = np.minimum(ahead, K), np.minimum(ahead + tied, K)
        found["recall"].append((_HITS[last] - _HITS[first]) / tied)
        found["ndcg"].append((_GAIN[last] - _GAIN[first]) / tied)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _cold_targets(
    sequences: Sequences, users: Ints, warm: Mask, most: int, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """Users and places of consumptions of cold items after a warm one: at most so many of a user, drawn."""
    asked = []
    for user in users.tolist():
        known = warm[sequences.of(user)[0]]
        places = np.flatnonzero(~known & (np.cumsum(known) > 0))
        asked += [(user, place) for place in _some(places, most, random).tolist()]
    pairs = np.array(asked, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _some(rows: Ints, most: int | None, random: np.random.Generator) -> Ints:
    """At most so many of the rows, drawn, in their order."""
    if most is None or len(rows) <= most:
        return rows.astype(np.int64)
    return np.sort(random.choice(rows, most, replace=False)).astype(np.int64)
