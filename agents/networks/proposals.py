"""Slates that hang together: what each cluster of items proposes, what is known of a proposal, and who chooses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.isolation import isolated_randomness
from recloop.agents.networks.features import FEATURE_KEYS, ItemTables, SlateMeans
from recloop.agents.networks.heads import item_products
from recloop.agents.networks.policy import retrieved
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import FORBIDDEN, action_mask
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.envs.interaction.observation import CONTEXT, Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.world.world import World

_MOST_GROUPS = 24
"""Groupings of the catalogue with more groups propose nothing: each would need a proposal of its own."""

PROPOSAL_KEYS = (*FEATURE_KEYS, "history", "feedback")
"""The observation keys that proposals and their facts are made of, besides `profile` in a world that has profiles."""

_LIKENESS = 4.0
"""Inner products of mean vectors are counted so often: by themselves they are far smaller than the other facts."""

_ELSEWHERE = 1e3
"""Taken off the score of items outside the group that proposes: more than standardised scores differ by."""


@dataclass(frozen=True)
class ProposalConfig:
    """Which slates are proposed, and how they are told apart; round-trips through JSON.

    Args:
        clusters: k of each k-means over item vectors; each cluster proposes.
        groups: whether the catalogue's own groupings (category, an attribute, nearness) propose too.
        affinities: learned bilinear likenesses of the user's state to a proposal.
        popularity: weight of an item's log popularity beside the encoder's score, both standardised, in the order in
            which items are proposed; 0 leaves it to the encoder, which knows who likes a kind and less of its best.
        mixed: share of a slate that a group fills in a second proposal of its own; the other places go to the best item
            of each other group of its grouping. 0 proposes none of these.
    """

    clusters: tuple[int, ...] = (4,)
    groups: bool = True
    affinities: int = 8
    popularity: float = 1.0
    mixed: float = 0.6


def proposing_groups(world: World, config: ProposalConfig, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Groups bool (G, N+1), all items first, row N in none; and the grouping int64 (G,) that each belongs to."""
    vectors = world.item_vectors[:-1].detach().cpu()
    n = len(vectors)
    parts = [torch.ones(1, n, dtype=torch.bool)]
    for k in config.clusters:
        parts.append(_members(_clustered(vectors, min(k, n), seed)))
    groups = world.catalogue.groups
    for column in range(groups.shape[1] if config.groups else 0):
        numbers = groups[:-1, column].cpu()
        if int(groups[-1, column]) <= _MOST_GROUPS:
            parts.append(_members(numbers)[: int(groups[-1, column])])
    members = torch.cat(parts)
    grouping = torch.repeat_interleave(torch.tensor([len(part) for part in parts]))
    distinct = torch.from_numpy(np.sort(np.unique(members.numpy(), axis=0, return_index=True)[1]))
    return F.pad(members[distinct], (0, 1)), grouping[distinct]


def _clustered(vectors: Tensor, k: int, seed: int) -> Tensor:
    """The cluster (N,) of each vector, by k-means."""
    points = np.ascontiguousarray(vectors.numpy(), dtype=np.float64)
    k = min(k, len(np.unique(points, axis=0)))
    from sklearn.cluster import KMeans  # slow to load

    return torch.from_numpy(KMeans(k, n_init=4, random_state=seed).fit(points).labels_).long()


def _members(numbers: Tensor) -> Tensor:
    """Group numbers (N,) -> bool (G, N)."""
    return numbers.unsqueeze(0) == torch.arange(int(numbers.max()) + 1).unsqueeze(1)


@dataclass(frozen=True)
class Proposals(TensorStruct):
    """What is chosen from, before any parameter is involved: worked out when acting, reused in every update.

    Args:
        there: bool (B, P), whether it holds an item.
        facts: float32 (B, P, F) of each, see `ProposalNetwork`.
        centres: float32 (B, P, d) mean vectors.
        user: float32 (B, d + c + p), state, context and profile.
    """

    there: Tensor
    facts: Tensor
    centres: Tensor
    user: Tensor


class ProposalNetwork(nn.Module):
    """Observation with `candidates` -> a score (B, P) of each proposed slate, and the value (B,) of the state.

    A group proposes its K best candidates by the state encoder's score and their popularity, filled up from elsewhere;
    and, where `config.mixed` says so, a few of these and the best of each other group. Facts of a proposal: the mean
    and the best of its standardised encoder scores, its mean log popularity, its share of the group's own items, and
    the inner product of its mean vector with that of each of the last L slates, as shown and by each signal of the
    answers, and with that of the history by each signal. One network reads these and `affinities` bilinear forms of the
    user's state and the proposal's mean vector, for all proposals alike, first each by itself and then beside the mean
    of all.

    Args:
        tables: the items.
        groups, grouping: bool (G, N+1) and int64 (G,), see `proposing_groups`.
        spec: of observations.
        config: of the proposals.
        hidden: units of each hidden layer.
    """

    groups: Tensor
    grouping: Tensor
    mixing: Tensor
    others: Tensor
    owner: Tensor
    items: Tensor
    encoder_vectors: Tensor
    encoder_bias: Tensor
    log_popularity: Tensor

    def __init__(
        self,
        tables: ItemTables,
        groups: Tensor,
        grouping: Tensor,
        spec: ObservationSpec,
        config: ProposalConfig,
        hidden: int,
    ) -> None:
        super().__init__()
        self.slate_size, self.empty, self.profile_dim = spec.slate_size, tables.catalogue_size, spec.profile_dim
        self.popularity, self.mixed = config.popularity, config.mixed
        self.register_buffer("groups", groups.to(tables.vectors.device))
        self.register_buffer("grouping", grouping.to(tables.vectors.device))
        beside = (self.grouping.unsqueeze(1) == self.grouping).fill_diagonal_(False)
        mixing = beside.any(1).nonzero()[:, 0] if config.mixed else torch.zeros(0, dtype=torch.int64)
        self.register_buffer("mixing", mixing, persistent=False)
        self.register_buffer("others", beside[mixing], persistent=False)
        self.register_buffer("owner", torch.cat([self.groups, self.groups[mixing]]), persistent=False)
        self.means = SlateMeans(tables, spec.signals)
        self.register_buffer("items", tables.centred(), persistent=False)
        for name in ("encoder_vectors", "encoder_bias", "log_popularity"):
            self.register_buffer(name, getattr(tables, name), persistent=False)
        self.facts = 4 + spec.shown_length * (1 + len(spec.signals)) + len(spec.signals)
        user = tables.state_dim + len(CONTEXT) + spec.profile_dim
        self.state_dim, self.affinities = tables.state_dim, config.affinities
        self.affinity = nn.Linear(tables.state_dim, config.affinities * tables.dim, bias=False)
        nn.init.orthogonal_(self.affinity.weight)
        told = self.facts + config.affinities + len(CONTEXT)
        self.alone = nn.Sequential(nn.Linear(told, hidden), nn.LayerNorm(hidden), nn.Tanh())
        self.user = nn.Sequential(nn.Linear(user, hidden), nn.LayerNorm(hidden), nn.Tanh())
        self.beside = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.value = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    @torch.no_grad()
    def propose(self, observation: Observation, k: int) -> tuple[Proposals, Tensor]:
        """What is chosen from, and the slates int64 (B, P, k) of item rows; N where nothing admissible is left."""
        state, candidates = observation["state"], observation["candidates"].long()  # (B, C)
        scores = self._standardised(state, candidates)
        order = self._places(candidates, scores, k)  # (B, P, K)
        slates = candidates.unsqueeze(1).expand(-1, order.shape[1], -1).gather(2, order)
        scores = scores.unsqueeze(1).expand(-1, order.shape[1], -1).gather(2, order)
        own = self.owner.unsqueeze(0).expand(len(slates), -1, -1).gather(2, slates).float().mean(2)
        held = (slates < self.empty).float()
        size = held.sum(2).clamp_min(1)
        centres = F.embedding_bag(slates.flatten(0, 1), self.items, per_sample_weights=held.flatten(0, 1), mode="sum")
        centres = centres.view(*slates.shape[:2], -1) / size.unsqueeze(2)
        shown, taken = self.means(observation["shown"].long(), observation["answers"])
        _, consumed = self.means(observation["history"].long().unsqueeze(1), observation["feedback"].unsqueeze(1))
        near = torch.cat([shown.unsqueeze(2), taken], dim=2).flatten(1, 2)
        near = torch.cat([near, consumed[:, 0]], dim=1)  # (B, L (1 + S) + S, d)
        alone = [
            (scores * held).sum(2) / size,
            scores.amax(2),
            (self._popularity(slates) * held).sum(2) / size,
            own,
        ]
        facts = torch.cat([torch.stack(alone, dim=2), _LIKENESS * centres @ near.transpose(1, 2)], dim=2)
        user = [state, observation["context"]]
        if self.profile_dim:
            user.append(F.softsign(observation["profile"]))
        return Proposals(held[..., 0] > 0, facts, centres, torch.cat(user, dim=1)), slates

    def forward(self, look: Proposals) -> tuple[Tensor, Tensor]:
        """Scores (B, P), `FORBIDDEN` for empty slates, and values (B,)."""
        state = look.user[:, : self.state_dim]
        queries = self.affinity(state).view(len(state), self.affinities, -1)
        liking = _LIKENESS * look.centres @ queries.transpose(1, 2)  # (B, P, affinities)
        context = look.user[:, self.state_dim : self.state_dim + len(CONTEXT)].unsqueeze(1)
        alone = self.alone(torch.cat([look.facts, liking, context.expand(-1, liking.shape[1], -1)], dim=2))
        around = torch.cat([alone.mean(1), self.user(look.user)], dim=1)
        both = torch.cat([alone, around.unsqueeze(1).expand(-1, alone.shape[1], -1)], dim=2)
        scores = self.beside(both)[..., 0]
        return scores.masked_fill(~look.there, FORBIDDEN), self.value(around)[:, 0]

    @torch.no_grad()
    def value_of(self, observation: Observation) -> Tensor:
        """Values (B,)."""
        value: Tensor = self(self.propose(observation, self.slate_size)[0])[1]
        return value

    def _places(self, candidates: Tensor, scores: Tensor, k: int) -> Tensor:
        """Positions (B, P, K) of each proposal among the candidates (B, C) with the encoder's scores (B, C)."""
        rank = scores + self.popularity * self._popularity(candidates)
        rank = rank.masked_fill(candidates >= self.empty, FORBIDDEN)
        member = self.groups[:, candidates].transpose(0, 1)  # (B, G, C)
        best = (rank.unsqueeze(1) - _ELSEWHERE * ~member).topk(k, dim=2)  # (B, G, K)
        if not len(self.mixing):
            return best.indices
        own = max(1, min(round(self.mixed * k), k))
        pure, value = best.indices[:, self.mixing], best.values[:, self.mixing]  # (B, X, K)
        top = best.values[..., 0].unsqueeze(1)
        heads = top.masked_fill(~self.others | (top < -_ELSEWHERE / 2), FORBIDDEN)  # (B, X, G)
        rest = torch.cat([heads, value[..., own:] - _ELSEWHERE], dim=2).topk(k - own, dim=2).indices
        where = torch.cat([best.indices[..., 0].unsqueeze(1).expand(heads.shape), pure[..., own:]], dim=2)
        mixed = torch.cat([pure[..., :own], where.gather(2, rest)], dim=2)
        full = value[..., -1:] > -_ELSEWHERE / 2  # a group of fewer than K items does not mix
        return torch.cat([best.indices, torch.where(full, mixed, pure)], dim=1)

    def _popularity(self, items: Tensor) -> Tensor:
        """Standardised log popularity of items, same shape."""
        known = self.log_popularity[:-1]
        return (self.log_popularity[items] - known.mean()) / known.std(correction=0).clamp_min(1e-6)

    def _standardised(self, state: Tensor, candidates: Tensor) -> Tensor:
        """The encoder's score (B, C) of each candidate, of mean 0 and spread 1 over the row."""
        score = (
            item_products(state.unsqueeze(1), self.encoder_vectors, candidates)[:, 0] + self.encoder_bias[candidates]
        )
        there = (candidates < self.empty).float()
        count = there.sum(1, keepdim=True).clamp_min(1)
        score = (score - (score * there).sum(1, keepdim=True) / count) * there
        return score / ((score.square().sum(1, keepdim=True) / count).sqrt() + 1e-3)


class ProposalPolicy(Policy):
    """Shows the proposal of the highest score.

    Args:
        serving: what it takes to act outside a simulator; the item tables come from it.
        network: who chooses.
        proposals: which slates are proposed.
        hidden: units of the network's hidden layers.
        candidates: C, of its retriever.
        training: the agent's config, for the record.
        name: what tables call it.
    """

    kind = "slate-ppo"

    def __init__(
        self,
        serving: Serving,
        network: ProposalNetwork,
        proposals: ProposalConfig,
        *,
        hidden: int,
        candidates: int | None = None,
        training: Mapping[str, Any] | None = None,
        name: str = kind,
    ) -> None:
        self.serving: Serving = serving
        self.network, self.proposals, self.hidden = network, proposals, hidden
        self.training, self.name = dict(training or {}), name
        self.retriever = EncoderRetriever(serving.world.state_encoder, candidates)

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The best proposal of k items."""
        self.network.to(observation["state"].device)
        observation = {**observation, "action_mask": action_mask(observation, self.serving.catalogue_size)}
        observation["candidates"] = retrieved(self.retriever, observation, k, self.name)
        proposals, slates = self.network.propose(observation, k)
        return chosen(slates, self.network(proposals)[0].argmax(1)), carry

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        sizes = {"proposals": asdict(self.proposals), "hidden": self.hidden, "candidates": self.retriever.size}
        return {**sizes, "training": self.training}

    def tensors(self) -> dict[str, Tensor]:
        """The weights, and which items each proposal is made of."""
        return dict(self.network.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        if "grouping" not in tensors:
            raise PolicyError("this policy reads proposals as older versions of recloop made them; train it anew")
        facts = dict(config)
        given = facts.pop("proposals")
        proposals = ProposalConfig(**{**given, "clusters": tuple(given["clusters"])})
        tables = ItemTables.of(serving.world.state_encoder, serving.world.catalogue.popularity)
        with isolated_randomness(0):
            groups = (tensors["groups"], tensors["grouping"])
            network = ProposalNetwork(tables, *groups, serving.world.spec(), proposals, facts["hidden"])
        network.load_state_dict(dict(tensors))
        return cls(serving, network, proposals, **facts)


def chosen(slates: Tensor, which: Tensor) -> Tensor:
    """The slate (B, K) of each lane among its proposals (B, P, K)."""
    return slates[torch.arange(len(which), device=which.device), which]
