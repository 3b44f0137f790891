"""Action heads that score item vectors instead of having one output a catalogue item. Plain torch, no SB3 in here.

An actor is `LoopFeatures` and one of the heads below; it alone is what a saved policy holds.
"""

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.networks.features import ANCHORS, ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.slates import FORBIDDEN
from recloop.envs.interaction.observation import Observation, ObservationSpec

FACTS = ("encoder score", "log popularity", "times shown", *(f"likeness to {anchor}" for anchor in ANCHORS))
"""What a head knows of an item for this user besides its vector; `times shown` in the last L slates."""

_HEARD = 1.0
"""Weight of what the user says in the scores of a fresh agent that hears, in standard deviations."""
_DENSE_RATIO = 4
"""Up to this many catalogue items a candidate, scoring the whole catalogue is faster than gathering vectors."""

_COUNTED_RATIO = 100
"""Up to this many, counting what was shown over the whole catalogue is faster than searching."""


class Gates(nn.Module):
    """Trunk -> weights (B, G) of known quantities: some shared by all users, plus some that the state decides.

    A few shared weights explain most of a good policy and every transition tells of them; the many weights behind the
    state's part see mostly noise. Adam moves all alike, so the two get gains: `shared_gain` and `state_gain`.

    Args:
        hidden: length of the trunk.
        first: the shared weights of a fresh agent, (G,).
        config: the gains.
    """

    def __init__(self, hidden: int, first: Tensor, config: NetworkConfig) -> None:
        super().__init__()
        self.shared_gain, self.state_gain = config.shared_gain, config.state_gain
        self.shared = nn.Parameter(first / config.shared_gain)
        self.of_state = nn.Linear(hidden, len(first), bias=False)
        nn.init.zeros_(self.of_state.weight)

    def forward(self, trunk: Tensor) -> Tensor:
        of_state: Tensor = self.of_state(trunk)
        return self.shared_gain * self.shared + self.state_gain * of_state


class ItemScores(nn.Module):
    """Scores of items for each user: query . item + gates . facts.

    Items are their vectors centred over the catalogue, so that what all items share does not drown what parts them,
    and of mean square length 1, so that no division by the root of d is needed. The `FACTS`, and of an agent that hears
    how well items answer what the user says, are standardised over the admissible items of each row. A fresh agent has
    `prior` for the encoder's score, `_HEARD` for what is said, all else near zero, so that it explores around the
    supervised recommender instead of around nothing.

    Args:
        tables: the items.
        features: what is known of the user.
        config: sizes, prior, gains.
    """

    items: Tensor
    encoder_vectors: Tensor
    encoder_bias: Tensor
    log_popularity: Tensor
    wishes: Tensor | None

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.dim, self.empty, self.state_gain = tables.dim, tables.catalogue_size, config.state_gain
        self.query = nn.Linear(features.hidden, features.dim)
        nn.init.orthogonal_(self.query.weight, 0.01)
        first = [config.prior] + [0.0] * (len(FACTS) - 1) + ([] if tables.wishes is None else [_HEARD])
        self.gates = Gates(features.hidden, torch.tensor(first), config)
        self.register_buffer("wishes", tables.wishes, persistent=False)
        self.register_buffer("items", tables.centred(), persistent=False)
        for name in ("encoder_vectors", "encoder_bias", "log_popularity"):
            self.register_buffer(name, getattr(tables, name), persistent=False)

    def forward(self, features: Tensor, observation: Observation, items: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, C) of item rows (B, C); `mask` (B, C) says which count when facts are standardised."""
        trunk, anchors = LoopFeatures.split(features, self.dim)
        return self.with_facts(trunk, anchors, observation, items, mask)[0]

    def with_facts(
        self, trunk: Tensor, anchors: Tensor, observation: Observation, items: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, C), and the facts (B, F, C) they were made of: no parameter is in those, `of_facts` takes them."""
        query = self._query(trunk)
        products = item_products(torch.cat([query, anchors], dim=1), self.items, items)  # (B, 1 + anchors, C)
        facts = self._facts(observation, products[:, 1:], items, mask)
        return self._sum(trunk, products[:, :1], facts), facts

    def facts(self, anchors: Tensor, observation: Observation, items: Tensor, mask: Tensor) -> Tensor:
        """The facts (B, F, C) alone."""
        return self._facts(observation, item_products(anchors, self.items, items), items, mask)

    def of_facts(self, trunk: Tensor, items: Tensor, facts: Tensor) -> Tensor:
        """Scores (B, C) of item rows whose facts are known already."""
        query = self._query(trunk)
        if _is_dense(self.items, items):
            return self._sum(trunk, item_products(query, self.items, items), facts)
        return self._sum(trunk, gathered_products(query[:, 0], self.items, items).unsqueeze(1), facts)

    def _query(self, trunk: Tensor) -> Tensor:
        query: Tensor = self.state_gain * self.query(trunk).unsqueeze(1)  # (B, 1, d)
        return query

    def _sum(self, trunk: Tensor, products: Tensor, facts: Tensor) -> Tensor:
        scores: Tensor = products + self.gates(trunk).unsqueeze(1) @ facts
        return scores[:, 0]

    @torch.no_grad()
    def _facts(self, observation: Observation, likeness: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        encoder = (
            item_products(observation["state"].unsqueeze(1), self.encoder_vectors, items)[:, 0]
            + self.encoder_bias[items]
        )
        times = _times(observation["shown"].long().flatten(1), items, self.empty)
        known = torch.stack([encoder, self.log_popularity[items], times], dim=1)
        facts = [known, likeness]
        if self.wishes is not None:  # how well each item answers what the user says
            facts.append(item_products(observation["instruction"].unsqueeze(1), self.wishes, items))
        return _standardised(torch.cat(facts, dim=1), mask.unsqueeze(1))


class SplitScores(ItemScores):
    """Scores in two parts that add up: what an item earns by its own answers (`own`), and all else it brings."""

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__(tables, features, replace(config, prior=0.0))
        self.own = ItemScores(tables, features, config)

    def with_facts(
        self, trunk: Tensor, anchors: Tensor, observation: Observation, items: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `ItemScores`."""
        scores, facts = super().with_facts(trunk, anchors, observation, items, mask)
        return scores + self.own.of_facts(trunk, items, facts), facts

    def of_facts(self, trunk: Tensor, items: Tensor, facts: Tensor) -> Tensor:
        """See `ItemScores`."""
        own, rest = self.parts(trunk, items, facts)
        return own + rest

    def parts(self, trunk: Tensor, items: Tensor, facts: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, C) by what items earn themselves, and by what else they bring."""
        return self.own.of_facts(trunk, items, facts), super().of_facts(trunk, items, facts)


class CandidateHead(nn.Module):
    """Features and `observation["candidates"]` (B, C) -> scores (B, C); inadmissible places score `FORBIDDEN`."""

    scores_class: ClassVar[type[ItemScores]] = ItemScores

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.scores = self.scores_class(tables, features, config)
        self.empty = tables.catalogue_size

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        items = observation["candidates"].long()
        mask = admissible(observation, self.empty)
        scores: Tensor = self.scores(features, observation, items, mask)
        return scores.masked_fill(~mask, FORBIDDEN)


class SplitCandidateHead(CandidateHead):
    """`CandidateHead` whose scores are `SplitScores`."""

    scores_class = SplitScores


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

    def of_trunk(self, trunk: Tensor) -> Tensor:
        """Values (B,) from the trunk alone, (B, hidden)."""
        value: Tensor = self.layers(trunk)
        return value[:, 0]


class QHead(nn.Module):
    """Features -> Q-values (B, N) of all items: a value of the state plus scores; masked items score `FORBIDDEN`.

    Masked are those that `observation["action_mask"]` (B, N) forbids, so that neither the greedy action nor the
    maximum in the target falls on one.
    """

    items: Tensor

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__()
        self.scores = ItemScores(tables, features, config)
        self.value = ValueHead(features)
        self.register_buffer("items", torch.arange(tables.catalogue_size), persistent=False)

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        mask = observation["action_mask"] > 0
        items = self.items.expand(len(features), -1)
        q: Tensor = self.value(features) + self.scores(features, observation, items, mask)
        return q.masked_fill(~mask, FORBIDDEN)


class EncoderDirection(nn.Module):
    """The direction whose inner products with the item vectors come nearest (least squares) to the encoder's scores.

    Scores are the state encoder's of the next item; the direction is of length 1 and has no parameters.
    """

    to_direction: Tensor
    offset: Tensor

    def __init__(self, tables: ItemTables) -> None:
        super().__init__()
        vectors = tables.vectors.double()
        gram = vectors.T @ vectors + 1e-3 * len(vectors) / tables.dim * torch.eye(tables.dim).to(vectors)
        to_direction = torch.linalg.solve(gram, vectors.T @ tables.encoder_vectors.double())  # (d, d)
        bias = tables.encoder_bias[:-1] - tables.encoder_bias[:-1].mean()
        offset = torch.linalg.solve(gram, vectors[:-1].T @ bias.double())
        self.register_buffer("to_direction", to_direction.float())
        self.register_buffer("offset", offset.float())

    def start(self, observation: Observation) -> Tensor:
        """(B, d)."""
        return F.normalize(observation["state"] @ self.to_direction.T + self.offset, dim=1)


class ProtoHead(EncoderDirection):
    """Features -> the mean of a Gaussian over directions in item space, (B, d).

    Starts at the encoder's direction, scaled to entries of root mean square `proto_scale`. Gated anchors and a linear
    map of the trunk are added to it, at the same scale.
    """

    def __init__(self, tables: ItemTables, features: LoopFeatures, config: NetworkConfig) -> None:
        super().__init__(tables)
        self.dim, self.state_gain = tables.dim, config.state_gain
        self.length = config.proto_scale * math.sqrt(tables.dim)
        self.query = nn.Linear(features.hidden, features.dim)
        nn.init.orthogonal_(self.query.weight, 0.01)
        self.gates = Gates(features.hidden, torch.zeros(len(ANCHORS)), config)

    def forward(self, features: Tensor, observation: Observation) -> Tensor:
        trunk, anchors = LoopFeatures.split(features, self.dim)
        drawn = (self.gates(trunk).unsqueeze(1) @ anchors)[:, 0]
        mean: Tensor = self.length * (self.start(observation) + drawn) + self.state_gain * self.query(trunk)
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


Carried = tuple[Tensor, Tensor]
"""Hidden and cell state of an LSTM, (1, B, units) each."""


class RecurrentActor(Actor):
    """An `Actor` that remembers its episode: an LSTM reads the trunk once a slate, and what it tells is added to it.

    A fresh one adds nothing, so that it acts as an `Actor` does.

    Args:
        features, head: as of an `Actor`.
        units: of the LSTM.
    """

    def __init__(self, features: LoopFeatures, head: nn.Module, units: int) -> None:
        super().__init__(features, head)
        self.memory = nn.LSTM(features.hidden, units)
        self.told = nn.Linear(units, features.hidden)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def remember(self, features: Tensor, carry: Carried | None) -> tuple[Tensor, Carried]:
        """Features (T, B, F) of T slates in a row, and what the LSTM carries -> features with memory, and the next."""
        anchors, trunk = features.tensor_split([-self.features.hidden], dim=2)
        told, carried = self.memory(trunk, carry)
        return torch.cat([anchors, trunk + self.told(told)], dim=2), carried

    def forward(self, observation: Observation) -> Tensor:
        """As of an `Actor`, from `observation["remembered"]` (B, F), which `remember` gave."""
        scores: Tensor = self.head(observation["remembered"], observation)
        return scores


HeadName = Literal["candidates", "item", "proto", "split-candidates"]
"""The action modes that have a head; `split-candidates` acts as `candidates` does."""


def make_actor(
    head: HeadName,
    tables: ItemTables,
    spec: ObservationSpec,
    config: NetworkConfig,
    memory: int = 0,
) -> Actor:
    """An actor with fresh weights from torch's global generator; `memory` units remember the episode, 0 for none."""
    features = LoopFeatures(tables, spec, config)
    heads = {"candidates": CandidateHead, "item": QHead, "proto": ProtoHead, "split-candidates": SplitCandidateHead}
    made = heads[head](tables, features, config)
    return RecurrentActor(features, made, memory) if memory else Actor(features, made)


def admissible(observation: Observation, empty: int) -> Tensor:
    """Which of `candidates` may be picked, bool (B, C): items that are not yet in `picked`, where that is observed."""
    candidates = observation["candidates"].long()
    mask = candidates < empty
    if "picked" in observation:
        picked = observation["picked"].long()
        mask = mask & ~(candidates.unsqueeze(2) == picked.unsqueeze(1)).any(2)
    return mask


def _standardised(facts: Tensor, mask: Tensor) -> Tensor:
    """Facts (B, F, C) with mean 0 and spread 1 over the places that `mask` (B, 1, C) lets count; 0 elsewhere."""
    count = mask.sum(2, keepdim=True).clamp_min(1)
    centred = (facts - (facts * mask).sum(2, keepdim=True) / count) * mask
    return centred / ((centred.square().sum(2, keepdim=True) / count).sqrt() + 1e-3)


def _is_dense(table: Tensor, items: Tensor) -> bool:
    return len(table) <= _DENSE_RATIO * items.shape[1]


def item_products(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Inner products of queries (B, Q, d) with the rows `items` (B, C) of a table (N+1, d): (B, Q, C)."""
    if _is_dense(table, items):
        return (queries @ table.T).gather(2, items.unsqueeze(1).expand(-1, queries.shape[1], -1))
    return queries @ F.embedding(items, table).transpose(1, 2)  # many times faster than table[items]


def _times(shown: Tensor, items: Tensor, empty: int) -> Tensor:
    """How often each of the items (B, C) is among those shown (B, M): float (B, C)."""
    if empty <= _COUNTED_RATIO * items.shape[1]:
        counts = torch.zeros(len(shown), empty + 1, device=shown.device)
        counts.scatter_add_(1, shown, torch.ones_like(shown, dtype=counts.dtype))
        return counts.gather(1, items)
    ordered = shown.sort(1).values
    right = torch.searchsorted(ordered, items, right=True)
    return (right - torch.searchsorted(ordered, items)).to(torch.float32)


def gathered_products(query: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Inner products (B, C) of queries (B, d) with the rows `items` (B, C) of a frozen table (N+1, d).

    Differentiable in the queries. The gathered rows (B, C, d) are not kept for the way back, where a weighted sum of
    rows needs no copy of them.
    """
    products: Tensor = _Gathered.apply(query, table, items)  # type: ignore[no-untyped-call]
    return products


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor, items: Tensor) -> Tensor:
        ctx.save_for_backward(table, items)
        return (query.unsqueeze(1) @ F.embedding(items, table).transpose(1, 2))[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        table, items = ctx.saved_tensors
        return F.embedding_bag(items, table, per_sample_weights=gradient.contiguous(), mode="sum"), None, None
