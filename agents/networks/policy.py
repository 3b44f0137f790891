"""A trained actor as a policy, ours or Stable-Baselines3's: plain torch, needs neither a learner nor a world."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.isolation import isolated_randomness
from recloop.agents.networks.features import ItemTables, NetworkConfig
from recloop.agents.networks.heads import Actor, HeadName, RecurrentActor, admissible, make_actor
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, best_slate, sample, slate_log_prob
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.item_space import item_space
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.ruled_slates import RuledSlates
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.simulation.retrieval import best_rows
from recloop.envs.world.world import World

_GROWN = {"features.project.weight": 1, "gates.shared": 0, "gates.of_state.weight": 0}
"""Weights that grew when answers besides consumption came to be read, and the dimension that did."""


class ActorPolicy(Policy):
    """Acts by an `Actor`, whoever trained it.

    | head | deterministic slate | stochastic slate |
    |---|---|---|
    | candidates | the k best of C retrieved items | Plackett-Luce |
    | candidates, one at a time | the best pick, k times | a pick from the softmax, k times |
    | proto | the k items nearest the mean direction | around the direction plus Gaussian noise |
    | item | the k items of highest Q-value | none |

    Args:
        serving: what it takes to act outside a simulator; the item tables come from it.
        actor: the networks.
        head: the action mode.
        network: sizes of `actor`.
        candidates: C, of its retriever; None where it needs none.
        one_at_a_time: the scores depend on what is already picked for the slate.
        memory: units of a `RecurrentActor`, 0 of an `Actor`; the carry is what its LSTM carries.
        squashed: a `proto` actor's direction goes through tanh instead of being clipped to [-1, 1].
        log_std: float32 (d,) of a `proto` actor.
        stochastic: draw slates instead of showing the most likely one.
        training: the agent's config, for the record.
        name: what tables call it.
    """

    kind = "actor"

    def __init__(
        self,
        serving: Serving,
        actor: Actor,
        head: HeadName,
        network: NetworkConfig,
        *,
        candidates: int | None = None,
        one_at_a_time: bool = False,
        memory: int = 0,
        squashed: bool = False,
        log_std: Tensor | None = None,
        stochastic: bool = False,
        training: Mapping[str, Any] | None = None,
        name: str = "actor",
    ) -> None:
        if stochastic and head == "item":
            raise PolicyError("head 'item' has no stochastic form; leave stochastic=False")
        self.serving, self.actor, self.head, self.network = serving, actor, head, network
        self.one_at_a_time, self.stochastic = one_at_a_time, stochastic
        self.memory, self.squashed = memory, squashed
        self.training, self.name = dict(training or {}), name
        self.log_std = log_std
        self.ranks = not one_at_a_time
        self.retriever: EncoderRetriever | None = None
        self._space: Tensor | None = None
        if self.head.endswith("candidates"):
            self.retriever = EncoderRetriever(
                serving.world.state_encoder, candidates, wishes_of(serving.world, network)
            )
        self.reads_instruction = network.hears
        actor.eval()

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """See the table above."""
        return self._act(observation, carry, k, draw, None)

    def act_under(
        self, ruled: RuledSlates | None, observation: Observation, carry: Carry, k: int, draw: Draw
    ) -> tuple[Tensor, Carry]:
        """One pick at a time keeps the rules as it goes."""
        if self.one_at_a_time:
            return self._act(observation, carry, k, draw, ruled)
        return super().act_under(ruled, observation, carry, k, draw)

    def most_ranked(self, k: int) -> int:
        """No more than it retrieves."""
        return super().most_ranked(k) if self.retriever is None else min(super().most_ranked(k), self.retriever.size)

    @torch.no_grad()
    def _act(
        self, observation: Observation, carry: Carry, k: int, draw: Draw, ruled: RuledSlates | None
    ) -> tuple[Tensor, Carry]:
        self.actor.to(observation["state"].device)
        n = self._serving().catalogue_size
        mask = action_mask(observation, n)
        observation = {**observation, "action_mask": mask}
        if isinstance(self.actor, RecurrentActor):
            features, carry = self.actor.remember(self.actor.features(observation).unsqueeze(0), carry)
            observation["remembered"] = features[0]
        if self.head == "item":
            return best_slate(self.actor(observation), mask, k), carry
        if self.head == "proto":
            direction = self._direction(observation, draw)
            return best_rows(direction, self._vectors(direction), k, mask=mask).rows, carry
        observation["candidates"] = self._retrieve(observation, k)
        if self.one_at_a_time:
            return self._pick_in_turn(observation, k, draw, ruled), carry
        return self._pick(observation, k, draw), carry

    def log_prob(self, observation: Observation, slate: Tensor) -> Tensor:
        """Exact log-probability (B,) of slates (B, k) under the stochastic form; -inf for those it never shows."""
        if self.retriever is None or not self.stochastic or self.memory:
            raise NotImplementedError(
                f"{self.name} has a log-probability where it acts on candidates, with stochastic=True, without memory"
            )
        self.actor.to(observation["state"].device)
        mask = action_mask(observation, self._serving().catalogue_size)
        observation = {**observation, "action_mask": mask}
        observation["candidates"] = self._retrieve(observation, slate.shape[1])
        if not self.one_at_a_time:
            return slate_log_prob(*self._over_catalogue(observation), slate)
        total = torch.zeros(len(slate), device=slate.device)
        for place in range(slate.shape[1]):
            observation["picked"] = slate.masked_fill(
                torch.arange(slate.shape[1], device=slate.device) >= place, mask.shape[1]
            )
            total = total + slate_log_prob(*self._over_catalogue(observation), slate[:, place : place + 1])
        return total

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        return {
            "head": self.head,
            "network": asdict(self.network),
            "candidates": self.retriever.size if self.retriever else None,
            "one_at_a_time": self.one_at_a_time,
            "memory": self.memory,
            "squashed": self.squashed,
            "stochastic": self.stochastic,
            "training": self.training,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The actor's weights, and `log_std` of a `proto` actor."""
        tensors = {f"actor.{name}": value for name, value in self.actor.state_dict().items()}
        return tensors if self.log_std is None else {**tensors, "log_std": self.log_std}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        facts = dict(config)
        network = NetworkConfig(**facts.pop("network"))
        actor = actor_for(serving.world, facts["head"], network, 0, facts.get("memory", 0))
        weights = {n.removeprefix("actor."): t for n, t in tensors.items() if n.startswith("actor.")}
        actor.load_state_dict(_widened(weights, actor.state_dict()))
        return cls(serving, actor, network=network, log_std=tensors.get("log_std"), **facts)

    def _retrieve(self, observation: Observation, k: int) -> Tensor:
        assert self.retriever is not None
        return retrieved(self.retriever, observation, k, self.name)

    def _pick(self, observation: Observation, k: int, draw: Draw, ruled: RuledSlates | None = None) -> Tensor:
        """A slate, or what of it can be filled, from one look at the candidates."""
        candidates = observation["candidates"]
        mask = admissible(observation, self._serving().catalogue_size)
        if ruled is not None:
            open_now = mask & ruled.open(candidates, observation["picked"])
            mask = torch.where(open_now.any(1, keepdim=True), open_now, mask)
        gumbel = draw.gumbel("slate", candidates) if self.stochastic else None
        positions = sample(self.actor(observation), mask, k, gumbel)
        return candidates.gather(1, positions).masked_fill(~mask.gather(1, positions), self._serving().catalogue_size)

    def _pick_in_turn(self, observation: Observation, k: int, draw: Draw, ruled: RuledSlates | None) -> Tensor:
        empty = self._serving().catalogue_size
        picked = torch.full((len(observation["state"]), k), empty, device=observation["state"].device)
        for place in range(k):
            here = Draw(draw.bits(f"pick {place}"))
            picked[:, place] = self._pick({**observation, "picked": picked.clone()}, 1, here, ruled)[:, 0]
        return picked

    def _over_catalogue(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """The candidates' scores and which may be picked, spread over the catalogue: two of (B, N)."""
        candidates, n = observation["candidates"], self._serving().catalogue_size
        allowed = admissible(observation, n)
        mask = torch.zeros(len(candidates), n + 1, dtype=torch.bool, device=candidates.device)
        mask = mask.scatter(1, candidates, allowed)[:, :n]
        scores = torch.zeros(len(candidates), n + 1, device=candidates.device)
        return scores.scatter(1, candidates, self.actor(observation))[:, :n], mask

    def _direction(self, observation: Observation, draw: Draw) -> Tensor:
        mean: Tensor = self.actor(observation)
        if self.stochastic and self.log_std is not None:
            entries = torch.arange(mean.shape[1], device=mean.device).expand(len(mean), -1)
            mean = mean + self.log_std.to(mean.device).exp() * draw.normal("proto", entries)
        return mean.tanh() if self.squashed else mean.clamp(-1, 1)

    def _vectors(self, like: Tensor) -> Tensor:
        world = self._serving().world
        if self._space is None:
            self._space = item_space(world.item_vectors, world.catalogue.popularity)[:-1]
        return self._space.to(like.device)


def _widened(weights: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a policy that read no answers but consumption, with zeros for what is read since: `liked lately` and
    the means by other signals, which stand last among what they are weighed with."""
    known = dict(weights)
    for name, value in known.items():
        place = next((p for p in _GROWN if name.endswith(p)), None)
        if place is not None and value.shape != now[name].shape:
            missing = now[name].shape[_GROWN[place]] - value.shape[_GROWN[place]]
            known[name] = F.pad(value, (0, missing) if _GROWN[place] == value.dim() - 1 else (0, 0, 0, missing))
    return known


def retrieved(retriever: EncoderRetriever, observation: Observation, k: int, name: str) -> Tensor:
    """The candidates (B, C) of a policy that shows k, where the observation is; it needs `action_mask` too."""
    if k > retriever.size:
        raise PolicyError(f"k={k} is larger than the {retriever.size} candidates that {name} retrieves; ask for fewer")
    encoder = retriever.state_encoder.item_vectors.device  # shared with a core, which may have moved it
    needed = {key: observation[key].to(encoder) for key in (*retriever.needs, "action_mask")}
    return retriever.candidates(needed).to(observation["state"].device)


def actor_for(world: World, head: HeadName, network: NetworkConfig, seed: int, memory: int = 0) -> Actor:
    """A fresh actor with the sizes of a world; no global generator is touched."""
    tables = ItemTables.of(world.state_encoder, world.catalogue.popularity, wishes_of(world, network))
    if head == "proto":
        tables = tables.with_popularity()
    with isolated_randomness(seed):
        return make_actor(head, tables, world.spec(), network, memory)


def wishes_of(world: World, network: NetworkConfig) -> Tensor | None:
    """What instructions are held against, float32 (N+1, u), for networks that hear; None for others.

    Raises:
        PolicyError: a world without an instruction encoder.
    """
    if not network.hears:
        return None
    if world.instruction is None:
        raise PolicyError(
            f"network.hears=true needs users who speak and '{world.name}' has no instruction encoder; make such a "
            "world with `recloop speak`"
        )
    return world.instruction.table


def refuse_to_hear(name: str, network: NetworkConfig) -> None:
    """`PolicyError` where networks of an agent that cannot read what users say are asked to."""
    if network.hears:
        raise PolicyError(
            f"{name} cannot hear what users say; leave network.hears=false, or take recloop-ppo, a2c or reinforce"
        )
