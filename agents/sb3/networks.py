"""Action heads that score item vectors instead of having one output a catalogue item. Plain torch, no SB3 in here.

An actor is `LoopFeatures` and one of the heads below; it alone is what a saved policy holds.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.sb3.features import ANCHORS, ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.slates import FORBIDDEN
from recloop.envs.observation import Observation

FACTS = ("encoder score", "log popularity", "times shown lately")
"""What a head knows of an item for this user besides its vector."""

_GATE_GAIN = 4.0
"""What gates are multiplied with, so that one gradient step moves them about as far as it moves the query."""

_DENSE_RATIO = 16
"""Up to this many catalogue items a candidate, scoring the whole catalogue is faster than gathering vectors."""


class ItemQuery(nn.Module):
    """Features -> what is looked for, a vector in item space (B, d): a linear map of the trunk and a mix of anchors."""

    def __init__(self, features: LoopFeatures) -> None:
        super().__init__()
        self.dim = features.dim
        self.free = nn.Linear(features.hidden, features.dim)
        self.mix = nn.Linear(features.hidden, len(ANCHORS))
        for layer in (self.free, self.mix):
            nn.init.orthogonal_(layer.weight, 0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        trunk, anchors = LoopFeatures.split(features, self.dim)
        mixed: Tensor = self.free(trunk) + (self.mix(trunk).unsqueeze(1) @ anchors).squeeze(1)
        return mixed


class ItemScores(nn.Module):
    """Scores of items for each user: query . item + gates . facts.

    Items are their vectors centred over the catalogue, so that what all items share does not drown what parts them,
    and of mean square length 1, so that no division by the root of d is needed. The `FACTS` of an item are the state
    encoder's next-item score, log popularity, and how often it was shown in the last L slates; each standardised over
    the admissible items of the row. At first the gates are (`prior`, 0, 0) and the query is near zero, so that a fresh
    agent explores around the supervised recommender instead of around nothing.

    Args:
        tables: the items.
        features: what the query is made of.
        prior: first weight of the encoder's standardised score.
    """

    items: Tensor
    encoder_vectors: Tensor
    encoder_bias: Tensor
    log_popularity: Tensor

    def __init__(self, tables: ItemTables, features: LoopFeatures, prior: float = 1.0) -> None:
        super().__init__()
        self.query = ItemQuery(features)
        self.gates = nn.Linear(features.hidden, len(FACTS))
        nn.init.orthogonal_(self.gates.weight, 0.01)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([prior, 0.0, 0.0]) / _GATE_GAIN)
        self.register_buffer("items", tables.centred(), persistent=False)
        for name in ("encoder_vectors", "encoder_bias", "log_popularity"):
            self.register_buffer(name, getattr(tables, name), persistent=False)
        self.dim, self.empty = tables.dim, tables.catalogue_size

    def forward(self, features: Tensor, observation: Observation, items: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, C) of item rows (B, C); `mask` (B, C) says which count when facts are standardised."""
        trunk, _ = LoopFeatures.split(features, self.dim)
        facts = self._facts(observation, items, mask)
        gates = _GATE_GAIN * self.gates(trunk)  # (B, F)
        scores = _dot(self.query(features), self.items, items)
        for i, fact in enumerate(facts):
            scores = scores + gates[:, i : i + 1] * fact
        return scores

    @torch.no_grad()
    def _facts(self, observation: Observation, items: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        encoder = _dot(observation["state"], self.encoder_vectors, items) + self.encoder_bias[items]
        times = _times(observation["shown"].long().flatten(1), items, self.empty)
        facts = (encoder, self.log_popularity[items], times)
        return tuple(_standardised(fact, mask) for fact in facts)


class CandidateHead(nn.Module):
    """Features and `observation["candidates"]` (B, C) -> scores (B, C); inadmissible places score `FORBIDDEN`."""

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.scores = ItemScores(tables, features, config.prior)
        self.empty = tables.catalogue_size

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        items = observation["candidates"].long()
        mask = admissible(observation, self.empty)
        scores: Tensor = self.scores(features, observation, items, mask)
        return scores.masked_fill(~mask, FORBIDDEN)


class ValueHead(nn.Module):
    """Features -> value (B, 1): one hidden layer over the trunk."""

    def __init__(self, features: LoopFeatures) -> None:
        super().__init__()
        self.dim = features.dim
        self.layers = nn.Sequential(
            nn.Linear(features.hidden, features.hidden), nn.Tanh(), nn.Linear(features.hidden, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        value: Tensor = self.layers(LoopFeatures.split(features, self.dim)[0])
        return value


class QHead(nn.Module):
    """Features -> Q-values (B, N) of all items: a value of the state plus scores; masked items score `FORBIDDEN`.

    Masked are those that `observation["action_mask"]` (B, N) forbids, so that neither the greedy action nor the
    maximum in the target falls on one.
    """

    items: Tensor

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.scores = ItemScores(tables, features, config.prior)
        self.value = ValueHead(features)
        self.register_buffer("items", torch.arange(tables.catalogue_size), persistent=False)

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        mask = observation["action_mask"] > 0
        items = self.items.expand(len(features), -1)
        q: Tensor = self.value(features) + self.scores(features, observation, items, mask)
        return q.masked_fill(~mask, FORBIDDEN)


class ProtoHead(nn.Module):
    """Features -> the mean of a Gaussian over directions in item space, (B, d).

    Starts at the direction whose inner products with the item vectors come nearest (least squares) to the state
    encoder's next-item scores, scaled to entries of root mean square
    `proto_scale`; the query is added to it.
    """

    to_direction: Tensor
    offset: Tensor

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.query = ItemQuery(features)
        self.length = config.proto_scale * math.sqrt(tables.dim)
        vectors = tables.vectors.double()
        gram = vectors.T @ vectors + 1e-3 * len(vectors) / tables.dim * torch.eye(tables.dim).to(vectors)
        to_direction = torch.linalg.solve(gram, vectors.T @ tables.encoder_vectors.double())  # (d, d)
        bias = tables.encoder_bias[:-1] - tables.encoder_bias[:-1].mean()
        offset = torch.linalg.solve(gram, vectors[:-1].T @ bias.double())
        self.register_buffer("to_direction", to_direction.float())
        self.register_buffer("offset", offset.float())

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        start = F.normalize(observation["state"] @ self.to_direction.T + self.offset, dim=1) * self.length
        mean: Tensor = start + self.query(features)
        return mean


class Actor(nn.Module):
    """Features and an action head: all that a policy needs to act.

    Raises KeyError where the observation lacks one of the feature keys.
    """

    def __init__(self, features: LoopFeatures, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, observation: Observation) -> Tensor:
        """Scores of the candidates (B, C), of all items (B, N), or the mean direction (B, d), by the head."""
        scores: Tensor = self.head(self.features(observation), observation)
        return scores


HeadName = Literal["candidates", "item", "proto"]
"""The action modes that have a head."""


def make_actor(
    head: HeadName,
    tables: ItemTables,
    shown_length: int,
    profile_dim: int,
    config: NetworkConfig,
) -> Actor:
    """An actor with fresh weights from torch's global generator."""
    features = LoopFeatures(tables, shown_length, profile_dim, config)
    heads = {"candidates": CandidateHead, "item": QHead, "proto": ProtoHead}
    return Actor(features, heads[head](tables, features, config))


def admissible(observation: Observation, empty: int) -> Tensor:
    """Which of `candidates` may be picked, bool (B, C): items that are not yet in `picked`, where that is observed."""
    candidates = observation["candidates"].long()
    mask = candidates < empty
    if "picked" in observation:
        picked = observation["picked"].long()
        mask = mask & ~(candidates.unsqueeze(2) == picked.unsqueeze(1)).any(2)
    return mask


def _standardised(fact: Tensor, mask: Tensor) -> Tensor:
    """A fact (B, C) with mean 0 and spread 1 over the masked-in places of each row; 0 elsewhere."""
    count = mask.sum(1, keepdim=True).clamp_min(1)
    centred = (fact - (fact * mask).sum(1, keepdim=True) / count) * mask
    return centred / ((centred.square().sum(1, keepdim=True) / count).sqrt() + 1e-6)


def _dot(query: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Inner products of a query (B, d) with the rows `items` (B, C) of a table (N+1, d): (B, C)."""
    if len(table) <= _DENSE_RATIO * items.shape[1]:
        return (query @ table.T).gather(1, items)
    return (table[items] @ query.unsqueeze(2)).squeeze(2)


def _times(shown: Tensor, items: Tensor, empty: int) -> Tensor:
    """How often each of the items (B, C) is among those shown (B, M): float (B, C)."""
    if empty <= _DENSE_RATIO * items.shape[1]:
        counts = torch.zeros(len(shown), empty + 1, device=shown.device)
        counts.scatter_add_(1, shown, torch.ones_like(shown, dtype=counts.dtype))
        return counts.gather(1, items)
    ordered = shown.sort(1).values
    right = torch.searchsorted(ordered, items, right=True)
    return (right - torch.searchsorted(ordered, items)).to(torch.float32)
