"""What a step looks like to the support model: recent exposure and consumption, and the slate's composition."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.interaction.response import Past

_RECENT = 10
"""Consumed items that count as recent."""

_FAMILIAR = 20
"""An item shown this often in the log is as well known as any."""

_GENERAL = 12
"""Features that no grouping is needed for; they come first."""


@dataclass(frozen=True)
class SupportItems:
    """What the features read of items, by row; row N is the empty place.

    Args:
        groups: int64 (N+1, G) the item's group in each grouping; row N holds the number of groups.
        vectors: float32 (N+1, d) of length 1, row N zero.
        popularity: float32 (N+1,) rank by logged consumption, from 0 (never) to 1 (most).
        familiar: float32 (N+1,) times shown in the log over `_FAMILIAR`, at most 1.
    """

    groups: Tensor
    vectors: Tensor
    popularity: Tensor
    familiar: Tensor

    def to(self, device: torch.device | str) -> "SupportItems":
        """The same facts on a device."""
        return SupportItems(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def familiarity(shown: Tensor) -> Tensor:
    """How well the log knows items that it showed so often, (N,) -> (N,) in [0, 1]."""
    return (shown.to(torch.float32) / _FAMILIAR).clamp(max=1.0)


def windows(shown: int) -> tuple[int, ...]:
    """The windows, in slates, that recent exposure is counted over where pasts hold `shown` slates.

    >>> windows(5), windows(1)
    ((1, 2, 5), (1,))
    """
    return tuple(sorted({w for w in (1, 2, shown) if 1 <= w <= shown}))


def step_features(past: Past, slate: Tensor, facts: SupportItems) -> Tensor:
    """Features of B steps, float32 (B, D): exchangeable over the groups of a grouping, most of them shares in [0, 1].

    For each grouping: the slate's largest share and number of groups; over windows of recent slates the exposure of
    the slate's groups and of the most exposed one; how often the slate's groups were taken when shown lately; their
    share of recent consumption, and the largest share. For all: popularity (mean, spread, first place), how often
    the log showed such items, nearness of the slate's items to each other and to recent consumption, repeats, recent
    consumption rates, length of the history, place in the session.

    Args:
        past: B lanes.
        slate: int64 (B, K).
    """
    groupings = facts.groups.shape[1]
    parts = [_general(past, slate, facts)]
    for g in range(groupings):
        parts.append(_of_groups(past, slate, facts.groups[:, g], int(facts.groups[-1, g])))
    return torch.cat(parts, dim=1)


def feature_weights(dimensions: int, groupings: int) -> Tensor:
    """What each of D standardised features counts, (D,): all groupings together as much as one."""
    weights = torch.ones(dimensions)
    weights[_GENERAL:] = max(groupings, 1) ** -0.5
    return weights


def _of_groups(past: Past, slate: Tensor, group: Tensor, size: int) -> Tensor:
    """One grouping's features, (B, 6 + 2 W)."""
    n = len(group) - 1
    held = (slate < n).to(torch.float32)  # (B, K)
    places = held.sum(1).clamp_min(1)
    in_slate = _counts(group[slate], held, size)  # (B, size)
    share = in_slate / places.unsqueeze(1)
    shown_held = (past.shown < n).to(torch.float32)  # (B, L, K)
    taken = (past.answers[..., 0] > 0.5).to(torch.float32) * shown_held
    shown = _counts(group[past.shown], shown_held, size)  # (B, L, size)
    clicked = _counts(group[past.shown], taken, size).sum(1)  # (B, size)
    columns = [share.amax(1), (in_slate > 0).sum(1) / places]
    for window in windows(past.shown.shape[1]):
        recent = shown[:, -window:].sum(1)
        exposed = recent / recent.sum(1, keepdim=True).clamp_min(1)
        columns += [(share * exposed).sum(1), exposed.amax(1)]
    rate = clicked / shown.sum(1).clamp_min(1)
    columns.append((share * rate).sum(1))
    newest = past.history[:, -_RECENT:]
    consumed = _counts(group[newest], (newest < n).to(torch.float32), size)
    consumed = consumed / consumed.sum(1, keepdim=True).clamp_min(1)
    everything = _counts(group[past.history], (past.history < n).to(torch.float32), size)
    everything = everything / everything.sum(1, keepdim=True).clamp_min(1)
    columns += [(share * consumed).sum(1), consumed.amax(1), (share * everything).sum(1)]
    return torch.stack(columns, dim=1)


def _counts(groups: Tensor, weight: Tensor, size: int) -> Tensor:
    """Weights (..., K) added up by group (..., K) in 0 to size, (..., size); group `size` is nobody's."""
    counts = weight.new_zeros(*groups.shape[:-1], size + 1)
    return counts.scatter_add(-1, groups, weight)[..., :size]


def _general(past: Past, slate: Tensor, facts: SupportItems) -> Tensor:
    """What no grouping is needed for, (B, _GENERAL)."""
    n = len(facts.popularity) - 1
    held = (slate < n).to(torch.float32)
    places = held.sum(1).clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return (values * held).sum(1) / places

    popularity = facts.popularity[slate]
    centre = mean(popularity)
    vectors = facts.vectors[slate]  # (B, K, d)
    total = vectors.sum(1)
    pairs = (places * (places - 1)).clamp_min(1)
    newest = facts.vectors[past.history[:, -_RECENT:]].sum(1)
    liked = torch.nn.functional.normalize(newest, dim=1)
    shown_held = (past.shown < n).to(torch.float32)
    taken = (past.answers[..., 0] > 0.5).to(torch.float32) * shown_held
    again = (slate.unsqueeze(2) == past.shown.flatten(1).unsqueeze(1)).any(2)
    before = (slate.unsqueeze(2) == past.history.unsqueeze(1)).any(2)
    length = past.history.shape[1]
    known = (past.history < n).sum(1).to(torch.float32)
    columns = [
        centre,
        mean((popularity - centre.unsqueeze(1)).square()).sqrt(),
        popularity[:, 0] - centre,
        mean(facts.familiar[slate]),
        (total.square().sum(1) - vectors.square().sum((1, 2))) / pairs,
        (total * liked).sum(1) / places,
        mean(again.to(torch.float32)),
        mean(before.to(torch.float32)),
        taken[:, -1].sum(1) / shown_held[:, -1].sum(1).clamp_min(1),
        taken.sum((1, 2)) / shown_held.sum((1, 2)).clamp_min(1),
        torch.log1p(known) / torch.log1p(known.new_tensor(float(length))),
        torch.log1p(past.step.to(torch.float32)) / 3,
    ]
    return torch.stack(columns, dim=1)
