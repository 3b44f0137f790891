"""A bandit as a policy: what it shows, and what it goes on learning while it is evaluated."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.bandits.features import Arms, BanditFeatures
from recloop.agents.learners.bandits.posterior import Belief, RidgePosterior
from recloop.agents.learners.returns import PlaceRewards
from recloop.agents.networks.features import ItemTables
from recloop.agents.networks.policy import retrieved
from recloop.agents.policy import Carry, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import FORBIDDEN, action_mask, explored_places
from recloop.encoders.base.errors import PolicyError, unknown_name
from recloop.envs.interaction.observation import Observation, ObservationSpec
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.actions import EncoderRetriever

Rule = Literal["mean", "epsilon-greedy", "upper-bound", "thompson"]
Online = Literal["no", "lane", "shared"]


@dataclass(frozen=True)
class Choice:
    """By which index a slate is picked: the K highest, so that every place is an arm of its own.

    Args:
        rule: `mean`: what is expected; `epsilon-greedy`: that, and with chance `epsilon` a place goes to an item drawn
            uniformly; `upper-bound`: the mean plus `width` standard deviations of it; `thompson`: what weights drawn
            from the posterior, its standard deviations times `width`, make of the items, one draw a lane and step.
        epsilon, width: see there.
        online: whether the policy goes on learning while it is evaluated: `no`; each `lane` by itself, from what was
            trained; or all lanes as one, `shared`. Where it does not it shows the highest means, whatever the rule.
    """

    rule: Rule = "mean"
    epsilon: float = 0.1
    width: float = 1.0
    online: Online = "no"

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise PolicyError(f"epsilon={self.epsilon}; it must lie in [0, 1]")
        if not 0 <= self.width < float("inf"):
            raise PolicyError(f"width={self.width}; it must be finite and at least 0")
        if self.online not in get_args(Online):
            raise PolicyError(unknown_name("setting of online", self.online, get_args(Online)))

    def positions(self, belief: Belief, arms: Arms, k: int, draw: Draw, explores: bool) -> Tensor:
        """Positions (B, k) among the candidates, equal indices in their order; inadmissible ones fill the end."""
        x, rule = arms.x, self.rule if explores else "mean"
        if rule == "thompson":
            entries = torch.arange(x.shape[2], device=x.device).expand(len(x), -1)
            index = (x @ belief.drawn(draw.normal("weights", entries), self.width).unsqueeze(2))[..., 0]
        else:
            index = belief.expected(x)
            if rule == "upper-bound":
                index = index + self.width * belief.spread(x)
        ranked = index.masked_fill(~arms.mask, FORBIDDEN).sort(dim=1, descending=True, stable=True).indices
        best = ranked[:, :k]
        return explored_places(best, arms.mask, self.epsilon, draw) if rule == "epsilon-greedy" else best


class BanditModel(nn.Module):
    """Features, what a network makes of them, and the posterior over what that is weighed with.

    Args:
        tables: the items.
        spec: of observations.
        components: r of `BanditFeatures`.
        ridge: precision of the weights' prior.
        hidden: units of each of two hidden layers (ReLU), the last of which, with a constant, the regression reads; 0
            for a regression on the features themselves.
    """

    def __init__(
        self, tables: ItemTables, spec: ObservationSpec, components: int, ridge: float, hidden: int = 0
    ) -> None:
        super().__init__()
        self.features = BanditFeatures(tables, spec, components)
        self.net: nn.Module | None = None
        size = self.features.size
        if hidden:
            layers = (nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
            self.net, size = nn.Sequential(*layers), hidden + 1
        for name, value in RidgePosterior.prior(size, ridge).held().items():
            self.register_buffer(name, value)

    @property
    def posterior(self) -> RidgePosterior:
        """Of one group."""
        return RidgePosterior(*(self.get_buffer(name) for name in ("precision", "moment", "squares", "count")))

    def take(self, posterior: RidgePosterior) -> None:
        """Believe this from now on."""
        for name, value in posterior.held().items():
            self.get_buffer(name).copy_(value)

    def read(self, x: Tensor) -> Tensor:
        """What the regression reads of features (..., D)."""
        if self.net is None:
            return x
        hidden: Tensor = self.net(x)
        return torch.cat([torch.ones_like(hidden[..., :1]), hidden], dim=-1)

    def learned(self) -> dict[str, Tensor]:
        """What is saved: all but the parameters of the facts, which nobody asks."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("features.facts.")}


class LearningLanes(NamedTuple):
    """What an online bandit carries from act to act.

    Args:
        posterior: of one group or of a group a lane.
        arms: what could be shown last; `x` as the regression reads it.
    """

    posterior: RidgePosterior
    arms: Arms


class BanditPolicy(Policy):
    """Shows the K candidates of the highest index; see `Choice`.

    Semi-bandit feedback (Wen, Kveton and Ashkan 2015): each item of a slate earns what `PlaceRewards.shared` says is
    its own. Places are not modelled: what a lower place costs an item counts against the item.

    Args:
        serving: what it takes to act outside a simulator; the item tables come from it.
        model: trained; it is never changed, since what is learned while acting lies in the carry.
        choice: how it chooses, and whether it goes on learning.
        sizes: the other arguments of `BanditModel`, by name.
        candidates: C, of its retriever.
        training: the agent's config, for the record.
        name: what tables call it.
    """

    kind = "bandit"
    ranks = True

    def __init__(
        self,
        serving: Serving,
        model: BanditModel,
        choice: Choice,
        sizes: Mapping[str, Any],
        *,
        candidates: int | None = None,
        training: Mapping[str, Any] | None = None,
        name: str = kind,
    ) -> None:
        self.serving: Serving = serving
        self.model, self.choice, self.sizes = model, choice, dict(sizes)
        self.training, self.name = dict(training or {}), name
        self.retriever = EncoderRetriever(serving.world.state_encoder, candidates)

    def most_ranked(self, k: int) -> int:
        """No more than it retrieves."""
        return min(super().most_ranked(k), self.retriever.size)

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The best k by what is believed now."""
        self.model.to(observation["state"].device)
        empty = self.serving.catalogue_size
        observation = {**observation, "action_mask": action_mask(observation, empty)}
        observation["candidates"] = retrieved(self.retriever, observation, k, self.name)
        arms = self.model.features(observation)
        arms = arms._replace(x=self.model.read(arms.x))
        posterior, online = self._posterior(carry, len(arms.x)), self.choice.online != "no"
        positions = self.choice.positions(posterior.belief(), arms, k, draw, explores=online)
        slate = arms.items.gather(1, positions).masked_fill(~arms.mask.gather(1, positions), empty)
        return slate, LearningLanes(posterior, arms) if online else None

    @torch.no_grad()
    def update(self, carry: Carry, transition: Transition, counts: Tensor) -> Carry:
        """Learn what the places of the lanes that count earned; items that were no candidates teach nothing."""
        if carry is None:
            return None
        arms, slate = carry.arms, transition.slate
        found = (slate.unsqueeze(2) == arms.items.unsqueeze(1)) & arms.mask.unsqueeze(1)  # (B, K, C)
        place = found.to(torch.uint8).argmax(2, keepdim=True)
        x = arms.x.gather(1, place.expand(-1, -1, arms.x.shape[2]))
        reward = PlaceRewards(self.serving.world, slate.device).shared(slate, transition.response, transition.reward)
        weight = found.any(2) & counts.unsqueeze(1)
        return carry._replace(posterior=carry.posterior.told(x, reward, weight))

    def config(self) -> dict[str, Any]:
        """See `restore`."""
        facts = {"choice": asdict(self.choice), "sizes": self.sizes, "candidates": self.retriever.size}
        return {**facts, "training": self.training}

    def tensors(self) -> dict[str, Tensor]:
        """The posterior, the tables of the features, and the network where there is one."""
        return self.model.learned()

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; item tables come from `serving`."""
        facts = dict(config)
        tables = ItemTables.of(serving.world.state_encoder, serving.world.catalogue.popularity)
        with isolated_randomness(0):
            model = BanditModel(tables, serving.world.spec(), **facts["sizes"])
        model.load_state_dict({**model.state_dict(), **tensors})
        return cls(serving, model, Choice(**facts.pop("choice")), **facts)

    def _posterior(self, carry: Carry, lanes: int) -> RidgePosterior:
        if carry is not None:
            posterior: RidgePosterior = carry.posterior
            return posterior
        trained = self.model.posterior
        return trained.for_each(lanes) if self.choice.online == "lane" else trained
