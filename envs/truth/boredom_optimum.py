"""The best policy for `BoredomUsers`, computed: backward induction over boredom levels."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.truth.boredom import BoredomState, BoredomUsers

_CHUNK_BYTES = 1 << 28


@dataclass(frozen=True)
class Optimum:
    """The best slate of every user at every step and boredom.

    Args:
        users: int64 (B,) rows of the users table.
        value: float32 (B,) expected return of an episode of `horizon` slates under the best policy.
        best: int16 (B, horizon, Z) index into `compositions`, by step and number of the boredom state.
        compositions: int64 (C, T) places a topic gets.
    """

    users: Tensor
    value: Tensor
    best: Tensor
    compositions: Tensor


def solve(users: BoredomUsers, rows: Tensor, k: int, horizon: int, reward: WeightedReward) -> Optimum:
    """Backward induction for the users in `rows` (B,) of the users table; each row once, however often it stands.

    Exact: boredom moves with what is shown alone, so a state is a tuple of levels (Z = levels^T of them) and an
    action a composition, how many places each topic gets. Within a topic the best items win, since quality raises
    clicks and lowers leaving; among the places the most valuable item goes to the top (rearrangement inequality).

    Args:
        k: places in a slate.
        horizon: slates in an episode, its time limit.
        reward: weights of the signals, not negative; and of leaving, not positive.

    Raises:
        RecloopError: for a reward under which that argument fails.
    """
    _check(users, reward)
    compositions, places = _compositions(users, k)  # (C, T), (C, K) ranked item of each place
    boredom = _boredom_states(users)  # (Z, T)
    after = users.next_boredom(boredom.unsqueeze(1), compositions.unsqueeze(0))  # (Z, C, T)
    following = (after * _radix(users)).sum(-1)  # (Z, C)
    cells = len(boredom) * len(compositions)
    size = max(1, _CHUNK_BYTES // (4 * cells * k))
    values, best = [], []
    distinct, where = torch.unique(rows, return_inverse=True)
    for chunk in torch.split(users.preference[distinct], size):
        gain, stay = _slates(users, chunk, boredom, places, reward.signals)  # (b, Z, C) each
        gain = gain + reward.leaving * (1 - stay)
        ahead = torch.zeros(len(chunk), len(boredom), device=chunk.device)
        choices = []
        for _ in range(horizon):
            ahead, choice = (gain + stay * ahead[:, following]).max(2)
            choices.append(choice.to(torch.int16))
        values.append(ahead[:, 0])
        best.append(torch.stack(choices[::-1], dim=1))
    return Optimum(rows, torch.cat(values)[where], torch.cat(best)[where], compositions)


def best_slates(users: BoredomUsers, state: BoredomState, composition: Tensor, weights: Mapping[str, float]) -> Tensor:
    """The slates (B, K) of item rows that fill a composition (B, T) with its topics' best items, best on top."""
    ranked = _ranked_items(users)  # (T, n)
    width = ranked.shape[1]
    chosen = torch.arange(width, device=ranked.device) < composition.unsqueeze(2)  # (B, T, n)
    k = int(composition[0].sum())
    items = ranked.expand(len(composition), -1, -1)[chosen].view(-1, k)  # topic by topic
    worth = _worth(users, users.utility(state, None, items), _liked(users, state.preference, items), weights)
    return items.gather(1, worth.argsort(dim=1, descending=True, stable=True))


def boredom_number(users: BoredomUsers, boredom: Tensor) -> Tensor:
    """The number of a boredom state (B, T) in `Optimum.best`, (B,)."""
    return (boredom * _radix(users)).sum(-1)


def _check(users: BoredomUsers, reward: WeightedReward) -> None:
    whole = reward.diversity or reward.repeats or reward.columns
    if whole or reward.leaving > 0 or any(w < 0 for w in reward.signals.values()):
        raise RecloopError(
            f"no optimum is known for the reward {reward.as_dict()}; it needs weights of signals >= 0, leaving <= 0, "
            "and neither diversity, repeats nor item columns"
        )


def _slates(
    users: BoredomUsers, preference: Tensor, boredom: Tensor, places: Tensor, weights: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """Expected reward of the signals and probability to stay, of every composition in every state, (b, Z, C)."""
    k = places.shape[1]
    topic = users.topic[places]  # (C, K)
    fresh = preference[:, topic] * users.trait("quality", places)  # (b, C, K)
    faded = users.rules.fade ** boredom[:, topic]  # (Z, C, K)
    appeal = fresh.unsqueeze(1) * faded  # (b, Z, C, K)
    worth = _worth(users, appeal, fresh.unsqueeze(1), weights)
    ranked = worth.sort(dim=3, descending=True).values
    return ranked @ users.examined(k), 1 - users.leaving(appeal)


def _worth(users: BoredomUsers, appeal: Tensor, liked: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Expected reward of an item that is looked at: its click, and the rating a click brings."""
    worth = appeal * weights.get("click", 0.0)
    if weights.get("rating"):
        worth = worth + weights["rating"] * appeal * users.expected_rating(1 + 4 * liked)
    return worth


def _liked(users: BoredomUsers, preference: Tensor, items: Tensor) -> Tensor:
    return preference.gather(1, users.topic[items]) * users.trait("quality", items)


def _compositions(users: BoredomUsers, k: int) -> tuple[Tensor, Tensor]:
    """All ways to give k places to topics (C, T), and the items that fill them (C, K)."""
    held = torch.bincount(users.topic, minlength=users.topics).tolist()
    splits = itertools.combinations_with_replacement(range(users.topics), k)
    counts = [[split.count(t) for t in range(users.topics)] for split in splits]
    kept = [row for row in counts if all(c <= n for c, n in zip(row, held, strict=True))]
    if not kept:
        raise RecloopError(f"slate_size={k} is larger than the catalogue ({len(users.topic)} items); lower it")
    ranked = _ranked_items(users).tolist()
    places = [[ranked[t][j] for t, count in enumerate(row) for j in range(count)] for row in kept]
    device = users.topic.device
    return torch.tensor(kept, device=device), torch.tensor(places, device=device)


def _ranked_items(users: BoredomUsers) -> Tensor:
    """Each topic's items, best first, (T, n); topics with fewer are filled with their last item."""
    ranked = []
    for t in range(users.topics):
        items = (users.topic == t).nonzero()[:, 0]
        ranked.append(items[users.trait("quality", items).argsort(descending=True, stable=True)])
    width = max(len(items) for items in ranked)
    return torch.stack([torch.cat([items, items[-1:].expand(width - len(items))]) for items in ranked])


def _boredom_states(users: BoredomUsers) -> Tensor:
    """Every tuple of levels, (levels^T, T), in the order of `boredom_number`."""
    levels = range(users.rules.levels)
    return torch.tensor(list(itertools.product(levels, repeat=users.topics)), device=users.topic.device)


def _radix(users: BoredomUsers) -> Tensor:
    powers = [users.rules.levels**p for p in range(users.topics - 1, -1, -1)]
    return torch.tensor(powers, device=users.topic.device)
