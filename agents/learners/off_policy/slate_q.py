"""SlateQ: the long-term worth of each item's consumption, and slates made of it by a model of the users' choice."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.configs import AgentConfig
from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.contract import Step, Task
from recloop.agents.learners.off_policy.choice_models import (
    ChoiceModel,
    Competition,
    LearnedChoice,
    Search,
    UsersChoice,
    best_positions,
    checked_choice,
    choice_loss,
    shares,
    slate_value,
)
from recloop.agents.learners.off_policy.item_values import (
    CandidateInputs,
    CandidateValues,
    ItemValueConfig,
    ItemValueLearner,
)
from recloop.agents.learners.off_policy.replay import Layout, Replayed
from recloop.agents.networks.features import FEATURE_KEYS, NetworkConfig
from recloop.agents.networks.heads import Actor, ValueHead
from recloop.agents.networks.policy import actor_for, retrieved
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.actions import EncoderRetriever

ChoiceName = Literal["learned", "users"]
"""Who says what users consume: a network fitted in the loop, or a fitted user model of the world."""


@dataclass(frozen=True)
class SlateQConfig(ItemValueConfig):
    """SlateQ.

    Args:
        target: `q-learning` looks ahead to the best slate after the step, `sarsa` to the one that was shown next.
        choice: `learned` in the loop, or by the world's user model (`users`).
        competition: how places compete for the user; see `recloop.agents.learners.off_policy.choice_models`.
        search: how the best slate is looked for; where places are independent all are one.
    """

    target: Literal["q-learning", "sarsa"] = "q-learning"
    choice: ChoiceName = "learned"
    competition: Competition = "independent"
    search: Search = "top-k"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_choice(self.competition, self.search)
        if self.target not in ("q-learning", "sarsa"):
            raise PolicyError(f"target='{self.target}'; choose q-learning or sarsa")
        if self.choice not in get_args(ChoiceName):
            raise PolicyError(f"choice='{self.choice}'; choose {' or '.join(get_args(ChoiceName))}")

    @property
    def plans_on_user_model(self) -> bool:
        """Whether its policy takes the world's user model along."""
        return self.choice == "users"


class SlateValues(CandidateValues):
    """What a state is worth if nothing is consumed, and what consuming each candidate adds.

    Args:
        actor: with head `candidates`; its scores tell the candidates apart.
        first: what a fresh network holds of every consumption.
    """

    def __init__(self, actor: Actor, first: float = 0.0) -> None:
        super().__init__(actor, values=2)
        with torch.no_grad():
            cast(nn.Linear, cast(ValueHead, self.values[1]).layers[-1]).bias.fill_(first)

    def worths(self, look: CandidateInputs) -> tuple[Tensor, Tensor]:
        """b (B,) and w (B, C); about `FORBIDDEN` where there is no item."""
        values, scores = self(look)
        return values[:, 0], values[:, 1:] + scores


class SlateQPolicy(Policy):
    """Shows the slate of highest value among C retrieved candidates.

    Args:
        serving: what it takes to act outside a simulator; with a user model where the choice is the `users`'.
        values: the network of what each consumption is worth.
        choice: the model of what is consumed.
        network: sizes of `values`.
        candidates: C.
        competition: how places compete.
        search: how the best slate is looked for.
        training: the agent's config, for the record.
    """

    name = "slateq"
    kind = "slateq"

    def __init__(
        self,
        serving: Serving,
        values: SlateValues,
        choice: ChoiceModel,
        network: NetworkConfig,
        *,
        candidates: int | None,
        competition: Competition,
        search: Search,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.serving: Serving = serving
        self.values, self.choice, self.network = values, choice, network
        self.plans = isinstance(choice, UsersChoice)
        self.competition, self.search, self.training = competition, search, dict(training or {})
        self.retriever = EncoderRetriever(serving.world.state_encoder, candidates)

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The best slate found."""
        device, empty = observation["state"].device, self.serving.catalogue_size
        self.values.to(device)
        if isinstance(self.choice, LearnedChoice):
            self.choice.to(device)
        observation = {**observation, "action_mask": action_mask(observation, empty)}
        candidates = retrieved(self.retriever, observation, k, self.name)
        observation["candidates"] = candidates
        look = self.values.look(observation)
        log_odds, worth = self.choice(observation, look), self.values.worths(look)[1]
        positions = best_positions(log_odds, worth, look.mask, k, self.competition, self.search)
        return candidates.gather(1, positions).masked_fill(~look.mask.gather(1, positions), empty), carry

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        return {
            "network": asdict(self.network),
            "candidates": self.retriever.size,
            "choice": "learned" if isinstance(self.choice, LearnedChoice) else "users",
            "competition": self.competition,
            "search": self.search,
            "training": self.training,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The weights of both networks."""
        parts = {"values": self.values.state_dict()}
        if isinstance(self.choice, LearnedChoice):
            parts["choice"] = self.choice.state_dict()
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables, and a user model, come from `serving`."""
        facts = dict(config)
        network = NetworkConfig(**facts.pop("network"))

        def part(name: str) -> dict[str, Tensor]:
            return {n.removeprefix(f"{name}."): value for n, value in tensors.items() if n.startswith(f"{name}.")}

        with isolated_randomness(0):
            values = SlateValues(actor_for(serving.world, "candidates", network, seed=0))
        values.load_state_dict(part("values"))
        if facts.pop("choice") == "users":
            return cls(serving, values, UsersChoice(serving.world.user_model, serving.world), network, **facts)
        choice = LearnedChoice(actor_for(serving.world, "candidates", network, seed=0), network.shared_gain)
        choice.load_state_dict(part("choice"))
        return cls(serving, values, choice, network, **facts)


class SlateQ(ItemValueLearner):
    """SlateQ (Ie et al., IJCAI 2019).

    The value of a slate is made of items: Q(s, A) = b(s) + sum over A of P(i | s, A) w(s, i), with w(s, i) the
    long-term worth of consuming i over consuming nothing, and b(s) that of nothing. With one choice a slate this is
    the paper's sum of P(i | s, A) Q(s, i) over the slate and the null item, with Q(s, i) = b + w and b the null item's.
    Where users consume several items (`competition="independent"`), their worths add up. b and w are fitted by a Huber
    loss to reward + discount x value of the next slate, with what was consumed in the place of P; the next slate is the
    best by the online network (Q-learning) or the one shown (SARSA), its worth that of the target network.

    Further differences: the item part is `CandidateHead` over C retrieved candidates; the choice model is fitted in
    the same updates, from the same replay, or is the world's user model; next slates are the online network's (as in
    Double DQN); the exact slate is found without a linear programme. As in the paper a slate is assumed to act on the
    user through what is consumed alone: what merely being shown an item does, as in worlds where users tire of the
    sight of a topic, is credited to nothing.
    """

    name: ClassVar[str] = "slateq"
    paper: ClassVar[str] = "Ie et al. 2019"
    config_class: ClassVar[type[AgentConfig]] = SlateQConfig
    policy_class = SlateQPolicy
    keys: ClassVar[tuple[str, ...]] = (*FEATURE_KEYS, "history", "feedback")
    config: SlateQConfig
    online: SlateValues
    target: SlateValues

    def __init__(self, task: Task, config: SlateQConfig) -> None:
        super().__init__(task, config)
        world = task.serving.world
        others: dict[str, LearnedChoice] = {}
        with isolated_randomness(task.seed):
            online = SlateValues(self._fresh_actor(), first=self._by_place.consumption or 1.0)
            if config.choice == "learned":
                others["choice"] = LearnedChoice(self._fresh_actor(), config.network.shared_gain)
        self.choice: ChoiceModel = others["choice"] if others else UsersChoice(copy.deepcopy(world.user_model), world)
        self._take(online, **others)

    def policy(self) -> SlateQPolicy:
        """The best slate by the weights of now."""
        config = self.config
        return SlateQPolicy(
            self.task.serving,
            self.online,
            self.choice,
            config.network,
            candidates=self.retriever.size,
            competition=config.competition,
            search=config.search,
            training={"agent": self.name, "seed": self.task.seed, **config.as_dict()},
        )

    def _best(self, seen: Observation, look: CandidateInputs) -> Tensor:
        return self._searched(self.choice(seen, look), self.online.worths(look)[1], look.mask)

    def _loss(self, drawn: Replayed) -> dict[str, Tensor]:
        chosen, consumed = self._chosen(drawn), drawn.extra["consumed"]
        nothing, worth = self.online.worths(chosen)  # (M,), (M, K)
        q = nothing + (shares(consumed, self.config.competition) * worth * chosen.mask).sum(1)
        tags = {"train/q": q.mean(), "train/q_loss": F.smooth_l1_loss(q, self._target(drawn))}
        if isinstance(self.choice, LearnedChoice):
            log_odds = self.choice(drawn.seen, chosen)
            tags["train/choice_loss"] = choice_loss(log_odds, consumed, chosen.mask, self.config.competition)
        tags["train/loss"] = tags["train/q_loss"] + tags.get("train/choice_loss", 0.0)
        return tags

    @torch.no_grad()
    def _target(self, drawn: Replayed) -> Tensor:
        """Rewards, and the value of the next slate by the target network, (M,)."""
        look = self.online.look(drawn.next_observation)
        log_odds = (
            drawn.last_extra["later"] if "later" in drawn.last_extra else self.choice(drawn.next_observation, look)
        )
        positions = self._searched(log_odds, self.online.worths(look)[1], look.mask)
        if self.config.target == "sarsa":
            taken = drawn.next_extra["positions"].long()
            positions = torch.where(drawn.follows.unsqueeze(1), taken, positions)
        nothing, worth = self.target.worths(look)
        log_odds, worth, shown = (each.gather(1, positions) for each in (log_odds, worth, look.mask))
        later = nothing + slate_value(log_odds, worth, shown, self.config.competition)
        return drawn.reward + drawn.discount * later

    def _searched(self, log_odds: Tensor, worth: Tensor, mask: Tensor) -> Tensor:
        return best_positions(log_odds, worth, mask, self.slate_size, self.config.competition, self.config.search)

    def _extra_layout(self) -> Layout:
        """Under a user model, what it says of the candidates after a step, so that no past has to be replayed."""
        if self.config.choice == "learned":
            return {}
        return {"later": ((self.retriever.size,), torch.float32)}

    def _extra(self, step: Step) -> dict[str, Tensor]:
        if self.config.choice == "learned":
            return {}
        return {"later": self.choice(step.next_observation, self.online.look(step.next_observation))}
