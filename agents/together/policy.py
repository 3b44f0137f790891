"""A policy for single users, asked for every member of a group, and an aggregator that puts its answers together.

from recloop.agents.together.policy import for_groups
policy = for_groups(world, "content", "least-misery")

By name too, wherever policies are named: `recloop.agents.together.policy:content/least-misery`.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recloop.agents.baselines.greedy import TellsChances
from recloop.agents.facts import Trains
from recloop.agents.policy import Carry, FitOptions, Policy, ScoringPolicy, Trainer
from recloop.agents.registry import facts_of, make_policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, best_slate
from recloop.agents.together.aggregation import Ballot, aggregator, between_0_and_1
from recloop.encoders.base.errors import PolicyError, UserSimulatorError
from recloop.encoders.state.config import EncoderState
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation, past_of
from recloop.envs.interaction.past import remember
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.simulation.core import Core
from recloop.envs.users.together.forming import single_world
from recloop.envs.users.together.members import each_alone, group_size, of_members, own_histories, taken
from recloop.envs.users.together.users import GroupUsers
from recloop.envs.world.world import World

USER_MODEL = "user-model"
"""Scores members by the chance that the world's user model sees them take an item: what `greedy` plans on."""


@dataclass(frozen=True)
class KnownMembers:
    """What an aggregated policy has seen of the members of B groups.

    Args:
        past: of B g members, their own.
        encoded: the single world's state encoder's states of them.
        got: float32 (B, g) items that each has taken since.
    """

    past: Past
    encoded: EncoderState
    got: Tensor


class AggregatedPolicy(Policy):
    """Asks a single-user policy for the scores of every member, and shows the k best items by an aggregator.

    The policy sees what the members would have shown it alone: their own histories, answers, profiles and states, all
    read out of the group's observation and kept up to date from its answers. Nothing is known of a group as such.

    Args:
        world: of groups.
        scorer: a policy of the single world that scores every item.
        how: name of an aggregator.
        chances: whether the scores are probabilities, which members share a scale for.
    """

    trains: ClassVar[Trains] = "no"
    savable: ClassVar[bool] = False
    ranks = True

    def __init__(self, world: World, scorer: ScoringPolicy, how: str, chances: bool = False) -> None:
        self.single, self.scorer, self.chances = single_world(world), scorer, chances
        self.size = group_size(world.signals)
        self.serving: Serving | None = Serving.of(world)
        self._aggregate = aggregator(how)
        self.name, self.plans = f"{scorer.name}/{how}", scorer.plans

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The k best; the carry is what is known of the members."""
        known = self._met(observation) if carry is None else self._followed(carry, observation)
        mask = action_mask(observation, len(self.single.catalogue))
        scores = self.scorer.scores(self._observed(known, observation)).view(len(mask), self.size, -1)  # (B, g, N)
        liking = self.liking(known, scores, mask)
        return best_slate(self._aggregate(Ballot(liking, mask, known.got, k)), mask, k), known

    def liking(self, known: KnownMembers, scores: Tensor, mask: Tensor) -> Tensor:
        """How much each member likes each item, in [0, 1], from scores (B, g, N) and what may be shown, (B, N).

        Where nobody consumes an item twice, a member does not care for what they have consumed.
        """
        liking = scores if self.chances else between_0_and_1(scores, mask)
        if self.single.consumes_twice:
            return liking
        had = torch.zeros(len(known.past.step), scores.shape[2] + 1, dtype=torch.bool, device=scores.device)
        had = had.scatter(1, known.past.history, True)[:, :-1]
        return liking.masked_fill(had.view_as(liking), 0.0)

    def save(self, folder: Any, made_with: Any = None) -> None:
        """Raises PolicyError: it is made anew in a moment; the single-user policy can be kept."""
        raise PolicyError(f"policy '{self.name}' is not kept; save the single-user policy and put it together again")

    def _met(self, observation: Observation) -> KnownMembers:
        """The members at the start, by the group's history."""
        past, size, single = past_of(observation), self.size, self.single
        empty, s = len(single.catalogue), len(single.signals)
        history, feedback = own_histories(past.history, past.feedback, size, empty)
        shown = each_alone(past.shown, size)
        answers = of_members(past.answers, size).permute(0, 3, 1, 2, 4).flatten(0, 1)
        encoder = single.state_encoder.to(history.device)
        encoded = encoder.start(observation["profile"].view(len(history), -1), history, feedback)
        step, days = each_alone(past.step, size), each_alone(past.days_away, size)
        own = Past(history, feedback, shown, answers.view(*shown.shape, s), step, days)
        return KnownMembers(own, encoded, torch.zeros(len(past.step), size, device=history.device))

    def _followed(self, known: KnownMembers, observation: Observation) -> KnownMembers:
        """What was known, and the newest slate with its answers."""
        empty, size = len(self.single.catalogue), self.size
        answers = observation["answers"][:, -1]  # (B, K, 1 + g S)
        took = taken(answers, size)  # (B, g, K)
        shown = each_alone(observation["shown"][:, -1], size)
        own = of_members(answers, size).transpose(1, 2).flatten(0, 1)  # (B g, K, S)
        items = shown.masked_fill(took.flatten(0, 1) < 0.5, empty)
        past = remember(known.past, shown, items, own, empty)
        encoded = self.single.state_encoder.advance(known.encoded, items, own)
        return KnownMembers(past, encoded, known.got + took.sum(2))

    def _observed(self, known: KnownMembers, observation: Observation) -> Observation:
        """What the members would have shown alone, B g lanes."""
        profile = observation["profile"].view(len(known.past.step), -1)
        vector = self.single.state_encoder.vector(known.encoded)
        seen = self.single.spec().observe(known.past, vector, profile, DEFAULT_KEYS)
        return {**seen, "context": each_alone(observation["context"], self.size)}


class UserModelScores(ScoringPolicy):
    """Scores items by the chance that the world's user model takes each; what it would take later is left out.

    Args:
        world: of single users, with a user model that tells `chances` and can `infer`.
    """

    name = USER_MODEL
    savable: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    plans = True

    def __init__(self, world: World) -> None:
        model = copy.deepcopy(world.user_model)
        if not isinstance(model, TellsChances):
            raise PolicyError(f"world '{world.name}' has no user model that tells chances; score members by a policy")
        self.world: World = world
        self.model: Any = model
        self._prepared: bool = False

    def scores(self, observation: Observation) -> Tensor:
        """Chances, (B, N)."""
        past: Past = past_of(observation)
        if not self._prepared:
            self.model.prepare(self.world, past.history.device)
            self._prepared = True
        state = self.model.infer(past, observation["profile"])
        everything = torch.arange(len(self.world.catalogue), device=past.history.device)
        chances: Tensor = self.model.chances(state, past, everything)
        return chances


class TrueTastesPolicy(Policy):
    """Shows the k best items by an aggregator of what members truly want: no competitor, but aggregators at their best.

    Where tastes never change and places are looked through alike by all, as in `clicks`, `average` takes the mean
    reward's best slate of all.

    Args:
        how: name of an aggregator.
    """

    privileged: ClassVar[bool] = True

    def __init__(self, how: str) -> None:
        self._aggregate = aggregator(how)
        self.name = f"true-tastes/{how}"

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """Raises PolicyError: an observation does not hold what it reads; use `act_on_state`."""
        raise PolicyError(f"policy '{self.name}' reads what members truly want; call act_on_state(core, k)")

    def act_on_state(self, core: Core, k: int) -> Tensor:
        """Slates int64 (B, k) for a core of groups."""
        users = core.simulator
        if not isinstance(users, GroupUsers):
            raise PolicyError(f"policy '{self.name}' is for groups, not for {type(users).__name__}")
        wanted = users.utility_of_members(core.state, core.past, torch.arange(core.empty, device=core.device))
        if wanted is None:
            raise UserSimulatorError(f"{type(users.inner).__name__} has no utility; leave '{self.name}' out")
        mask = core.action_mask().bool()
        return best_slate(self._aggregate(Ballot(wanted, mask, core.state.got, k)), mask, k)


def for_groups(world: World, name: str, how: str, options: FitOptions | None = None) -> AggregatedPolicy:
    """A single-user policy for groups: made in the single world, put together by an aggregator.

    Args:
        world: of groups.
        name: as `make_policy` takes it, or `user-model`.
        how: one of `recloop.agents.together.aggregation.AGGREGATORS`.
        options: of the single-user policy.

    Raises:
        PolicyError: an unknown name, or a policy that does not score every item.
    """
    aggregator(how)
    single = single_world(world)
    if name == USER_MODEL:
        return AggregatedPolicy(world, UserModelScores(single), how, chances=True)
    return put_together(world, make_policy(name, single, options), how)


def put_together(world: World, policy: Policy, how: str) -> AggregatedPolicy:
    """A policy of the single world for the groups of `world`; `PolicyError` for one that does not score every item."""
    if not isinstance(policy, ScoringPolicy):
        raise PolicyError(
            f"policy '{policy.name}' shows slates and does not score every item, so what members want cannot be put "
            f"together; take one that scores, such as popularity, content or sasrec, or {USER_MODEL}"
        )
    return AggregatedPolicy(world, policy, how)


def __getattr__(name: str) -> type[Trainer]:
    """`content/least-misery` as what makes that policy, for `make_policy` and `recloop compare`."""
    policy, slash, how = name.rpartition("/")
    if not slash:
        raise AttributeError(f"module {__name__} has no {name}")

    def fit(cls: type[Trainer], world: World, options: FitOptions) -> AggregatedPolicy:
        return for_groups(world, policy, how, options)

    facts = UserModelScores if policy == USER_MODEL else facts_of(policy)
    told = {fact: getattr(facts, fact) for fact in ("trains", "deterministic", "paper", "extras")}
    return type(name, (Trainer,), {**told, "name": name, "fit": classmethod(fit), "policy_class": AggregatedPolicy})
