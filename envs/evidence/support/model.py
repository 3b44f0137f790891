"""The support of a log: how far a step lies from anything that was logged, by nearest neighbours."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import WorldError
from recloop.envs.evidence.support.features import SupportItems, familiarity, feature_weights, step_features
from recloop.envs.interaction.item_columns import ItemColumns, ShownItems
from recloop.envs.interaction.response import Past, Response
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.interaction.reward_terms import KeptReward
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.logs.walk import LoggedSteps, steps_at

_CHUNK = 1024
"""Steps whose distances are computed at once."""
_FEWEST = 100
"""Fewer logged steps than this say nothing about what lies near them."""
_NARROWEST = 0.1
"""Least standard deviation of a feature. Most are shares; one that hardly changed in the log must not outweigh all."""


@dataclass(frozen=True)
class SupportConfig:
    """How the support is measured.

    Args:
        reference: most logged steps that distances are measured to.
        held_out: share of the users whose steps set the threshold and are not among the reference.
        neighbours: k: the distance is that to the k-th nearest logged step.
        quantile: share of held-out logged steps that count as inside.
        smoothing: logged steps whose rewards are averaged into what a step like them is worth.
        low, high: quantiles of these averages that an unknown step's worth is taken to lie between.
        seed: of the sample.
    """

    reference: int = 5000
    held_out: float = 0.2
    neighbours: int = 5
    quantile: float = 0.95
    smoothing: int = 30
    low: float = 0.05
    high: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class RewardRange:
    """What logged steps were worth: the ends that an unknown step's mean is taken to lie between.

    Args:
        reward_low, reward_high: mean reward of a step among steps like it.
        leave_low, leave_mean, leave_high: probability to leave after it.
    """

    reward_low: float
    reward_high: float
    leave_low: float = 0.0
    leave_mean: float = 0.0
    leave_high: float = 1.0


class SupportModel(Artifact):
    """Says of any lane at any step how far (past, slate) lies from the logged ones.

    Distances are Euclidean between standardised features (`evidence.support.features`), to the k-th nearest of a
    sample of logged steps, and in units of the threshold: above 1 a step lies further from the log than 95 % of the
    logged steps of held-out users do. In the log's own policies 5 % of the steps are outside.
    Follows k-nearest-neighbour out-of-distribution detection (Sun et al. 2022); differences: features are written down,
    not learned, and exchangeable over groups of items.

    Args:
        facts: of the items.
        reference: float32 (R, D) standardised features of logged steps; R = 0 is an empty support.
        centre, scale: float32 (D,) of the standardisation; weights are in the scale.
        threshold: distance that held-out logged steps keep within.
        reward_range: of logged steps.
        neighbours: k.
        reason: why the support is empty; "" where it is not.
    """

    artifact_file = "support"
    artifact_error = WorldError

    def __init__(
        self,
        facts: SupportItems,
        reference: Tensor,
        centre: Tensor,
        scale: Tensor,
        threshold: float,
        reward_range: RewardRange,
        neighbours: int,
        reason: str = "",
    ) -> None:
        self.facts, self.reference, self.centre, self.scale = facts, reference, centre, scale
        self.threshold, self.reward_range = threshold, reward_range
        self.neighbours, self.reason = neighbours, reason

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        sequences: Sequences,
        rows: Ints,
        groups: Tensor,
        item_vectors: Tensor,
        *,
        signals: Sequence[Signal],
        reward: KeptReward,
        slate_size: int,
        columns: ItemColumns | None = None,
        history: int = 50,
        shown: int = 5,
        config: SupportConfig | None = None,
    ) -> Self:
        """Measure the support of the log of the users `rows`.

        Args:
            sequences: the log; without exposures, or with under 100 slates, the support is empty.
            rows: int64 users to look at.
            groups: int64 (N+1, G), as in `Catalogue`; G may be 0.
            item_vectors: float32 (N+1, d), row N zero.
            signals, reward, columns: what a logged step was worth.
            slate_size: K of the world, for the limits of the reward where nothing is known.
            history, shown: H and L of the pasts that will be asked about.
        """
        config, columns = config or SupportConfig(), columns or ItemColumns()
        slates = sequences.slates
        if slates is None:
            reason = "the log has no exposures"
            facts = support_items(sequences, rows, groups, item_vectors)
            return cls._empty(facts, signals, reward, slate_size, columns, reason)
        facts = support_items(sequences, rows, groups, item_vectors)
        generator = np.random.default_rng(config.seed)
        shuffled = generator.permutation(rows)
        cut = max(1, round(config.held_out * len(rows)))
        places = [rows_of(slates.offsets, users) for users in (shuffled[cut:], shuffled[:cut])]
        if min(map(len, places)) == 0 or sum(map(len, places)) < _FEWEST:
            reason = f"the log holds {sum(map(len, places))} slates of {len(rows)} users, fewer than {_FEWEST}"
            return cls._empty(facts, signals, reward, slate_size, columns, reason)
        sampled = [generator.permutation(some)[: config.reference] for some in places]
        walked = [steps_at(sequences, np.sort(some)) for some in sampled]
        met = [(steps.past(history, shown), torch.from_numpy(steps.items)) for steps in walked]
        logged, held = (_in_chunks(lambda p, s: step_features(p, s, facts), past, slate) for past, slate in met)
        centre = logged.mean(0)
        scale = logged.std(0).clamp_min(_NARROWEST) / feature_weights(logged.shape[1], groups.shape[1])
        neighbours = min(config.neighbours, len(logged))
        reference, held = (logged - centre) / scale, (held - centre) / scale
        threshold = max(float(_kth(held, reference, neighbours).quantile(config.quantile)), 1e-6)
        ends = (config.low, config.high)
        found = reward_range(walked[0], reference, signals, reward, columns, item_vectors, config.smoothing, ends)
        return cls(facts, reference, centre, scale, threshold, found, neighbours)

    @classmethod
    def _empty(
        cls,
        facts: SupportItems,
        signals: Sequence[Signal],
        reward: KeptReward,
        slate_size: int,
        columns: ItemColumns,
        reason: str,
    ) -> Self:
        """Nothing is known: every step is infinitely far, and may be worth whatever the reward allows."""
        low, high = -math.inf, math.inf  # of a callable nobody knows
        if isinstance(reward, WeightedReward):
            items = ShownItems(torch.arange(len(facts.vectors) - 1).unsqueeze(0), columns)  # (1, N)
            bounds = torch.tensor([signal.bounds for signal in signals])  # (S, 2)
            corners = reward.units(signals, items).unsqueeze(-1) * bounds  # (..., S, 2)
            bare = reward.by_place(torch.zeros(*items.slate.shape, len(signals)), signals, items)[0]
            worst = bare + corners.amin(-1).clamp(max=0).sum(-1)
            best = bare + corners.amax(-1).clamp(min=0).sum(-1)
            low = float(worst.flatten().topk(slate_size, largest=False).values.sum())
            high = float(best.flatten().topk(slate_size).values.sum())
        none = torch.zeros(0)
        return cls(facts, torch.zeros(0, 0), none, none, 0.0, RewardRange(low, high), 0, reason)

    @property
    def is_empty(self) -> bool:
        """True where the log says nothing about any slate."""
        return len(self.reference) == 0

    @property
    def sentence(self) -> str:
        """For the world's card."""
        if self.is_empty:
            return f"Support: empty, because {self.reason}. No value that a policy earns here is backed by the log."
        return (
            f"Support: a step counts as inside the log where it lies as near to {len(self.reference):,} logged "
            f"steps as 95 % of the logged steps of other users do. Logged steps like one another were worth "
            f"{self.reward_range.reward_low:.2f} to {self.reward_range.reward_high:.2f} a slate."
        )

    @torch.no_grad()
    def distance(self, past: Past, slate: Tensor) -> Tensor:
        """Distance of B steps from the log in multiples of the threshold, float32 (B,); inf in an empty support.

        Args:
            past: B lanes, before the slate.
            slate: int64 (B, K); N at empty places.
        """
        if self.is_empty:
            return torch.full((len(slate),), torch.inf, device=slate.device)
        return _in_chunks(self._measured, past, slate)

    def _measured(self, past: Past, slate: Tensor) -> Tensor:
        features = (step_features(past, slate, self.facts) - self.centre) / self.scale
        return _kth(features, self.reference, self.neighbours) / self.threshold

    def to(self, device: torch.device | str) -> "SupportModel":
        """The same model on a device."""
        facts, rewards = self.facts.to(device), self.reward_range
        tensors = (self.reference.to(device), self.centre.to(device), self.scale.to(device))
        return SupportModel(facts, *tensors, self.threshold, rewards, self.neighbours, self.reason)

    def stored_facts(self) -> dict[str, Any]:
        """Numbers; `worth` is the reward range's name on disk since format 1."""
        numbers = {"threshold": self.threshold, "neighbours": self.neighbours, "reason": self.reason}
        return {**numbers, "worth": asdict(self.reward_range)}

    def stored_tensors(self) -> dict[str, Tensor]:
        """The reference steps; item vectors stay with the world."""
        items = {f.name: getattr(self.facts, f.name) for f in fields(SupportItems) if f.name != "vectors"}
        return {"reference": self.reference, "centre": self.centre, "scale": self.scale, **items}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """Context: `item_vectors`, float32 (N+1, d) of the world."""
        vectors = _unit_length(context["item_vectors"])
        items = SupportItems(tensors["groups"], vectors, tensors["popularity"], tensors["familiar"])
        steps = (tensors["reference"], tensors["centre"], tensors["scale"], float(facts["threshold"]))
        return cls(items, *steps, RewardRange(**facts["worth"]), int(facts["neighbours"]), str(facts["reason"]))


def support_items(sequences: Sequences, rows: Ints, groups: Tensor, item_vectors: Tensor) -> SupportItems:
    """What the features read of items, from the log of the users `rows`."""
    n = sequences.catalogue_size
    consumed = torch.from_numpy(sequences.popularity(rows))
    rank = torch.searchsorted(consumed.sort().values, consumed).to(torch.float32) / max(n - 1, 1)
    shown = torch.zeros(n)
    if sequences.slates is not None:
        items = sequences.slates.items[rows_of(sequences.slates.offsets, rows)].ravel()
        shown = torch.from_numpy(np.bincount(items[items < n], minlength=n))
    nothing = torch.zeros(1)
    return SupportItems(
        groups=groups if groups.numel() else torch.zeros(n + 1, 0, dtype=torch.int64),
        vectors=_unit_length(item_vectors),
        popularity=torch.cat([rank, nothing]),
        familiar=torch.cat([familiarity(shown), nothing]),
    )


def reward_range(
    steps: LoggedSteps,
    reference: Tensor,
    signals: Sequence[Signal],
    reward: KeptReward,
    columns: ItemColumns,
    item_vectors: Tensor,
    smoothing: int,
    ends: tuple[float, float],
) -> RewardRange:
    """Quantiles `ends` of what steps were worth among the `smoothing` most like them: one click's luck says little.

    Args:
        steps: R logged steps, and their `reference` features (R, D).
    """
    slate, departed = torch.from_numpy(steps.items), torch.from_numpy(steps.left)
    left = departed == 1
    response = Response(torch.from_numpy(steps.answers), torch.from_numpy(steps.given), left)
    invalid = (slate == len(item_vectors) - 1).sum(1)
    earned = reward(Outcome(slate, response, invalid, item_vectors, tuple(signals), columns=columns))  # (R,)
    like = min(smoothing, len(reference))
    known = (departed >= 0).to(torch.float32)
    rewards, leaves = [], []
    for some in torch.split(reference, _CHUNK):
        near = torch.cdist(some, reference).topk(like, dim=1, largest=False).indices
        rewards.append(earned[near].mean(1))
        leaves.append((left * known)[near].sum(1) / known[near].sum(1).clamp_min(1))
    quantiles = torch.tensor(ends)
    low, high = torch.cat(rewards).quantile(quantiles).tolist()
    found = RewardRange(low, high)
    if bool(known.any()):
        leave_low, leave_high = torch.cat(leaves).quantile(quantiles).tolist()
        mean = float((left * known).sum() / known.sum())
        found = replace(found, leave_low=leave_low, leave_mean=mean, leave_high=leave_high)
    return found


def _unit_length(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.detach().to(torch.float32), dim=1)


def _in_chunks(measure: Callable[[Past, Tensor], Tensor], past: Past, slate: Tensor) -> Tensor:
    everyone = torch.arange(len(slate), device=slate.device)
    return torch.cat([measure(past.rows(rows), slate[rows]) for rows in torch.split(everyone, _CHUNK)])


def _kth(features: Tensor, reference: Tensor, k: int) -> Tensor:
    """Distance to the k-th nearest of the reference, (B, D), (R, D) -> (B,)."""
    return torch.cat([torch.cdist(some, reference).kthvalue(k, dim=1).values for some in torch.split(features, _CHUNK)])
