"""Greedy on a user model: shows what the fitted users are expected to reward most, one item at a time."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from recloop.agents.facts import Trains
from recloop.agents.policy import Carry, FitOptions, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, past_of
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.interaction.reward_terms import expected_by_place
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World

SHORTLIST = 64
"""Items of highest utility whose expected reward is worked out; more than any slate the field shows."""
_CLOSE = 16
"""The same where reward is consumption alone: `utility` orders by it already, but for what an ensemble averages."""
_ROWS = 1 << 15
"""Single-item slates that are asked about at once."""


@runtime_checkable
class FollowsAlong(Protocol):
    """Users whose state can be kept up to date from what was seen, without replaying the whole past."""

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """The state after the answers (B, K, S) to slates (B, K)."""


@runtime_checkable
class TellsChances(Protocol):
    """Users who say of many items at once how likely each is consumed if it is shown alone."""

    def chances(self, state: Any, past: Past, items: Tensor) -> Tensor:
        """Items (B, C) or (C,) -> (B, C) in [0, 1]."""


class GreedyPolicy(Policy):
    """Shows the k admissible items with the highest expected reward, each as if it were shown alone.

    It holds a fitted model of its own (`World.user_model`), guesses the user's state from the past with `infer`
    and keeps the guess up to date from the answers (`observe` where the model has it, else `infer` anew each
    step); it never reads the environment's state. The 64 items of highest `utility` (16 where reward is consumption
    alone) are ranked by expected reward under the world's default reward: weighted expected signals, a signal given on
    another one times the chance of that one, and leaving. Diversity and repeats, which belong to whole slates, are left
    out. Without `expected` it ranks by `utility`, without `utility` it works out the reward of every item. A model that
    tells `chances` is asked for those where reward is consumption alone.

    Args:
        serving: with a user model in it.

    Raises:
        PolicyError: the world has no user model, or one that cannot rank.
    """

    name = "greedy"
    kind = "greedy"
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("user_model",)
    plans = True
    ranks = True

    def __init__(self, serving: Serving) -> None:
        model = serving.world.user_model
        if model is None:
            raise PolicyError(f"world '{serving.world.name}' has no user model to be greedy on; build one that has")
        if type(model).infer is UserSimulator.infer:
            raise PolicyError(f"greedy needs to guess the users' state; write `infer` for {type(model).__name__}")
        if type(model).expected is UserSimulator.expected and type(model).utility is UserSimulator.utility:
            raise PolicyError(f"greedy needs to rank items; write `expected` or `utility` for {type(model).__name__}")
        self.serving: Serving = serving
        self.model = model
        self._prepared: torch.device | None = None

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Take a copy of the world's user model, which was fitted on the train users alone."""
        return cls(Serving.of(world, user_model=copy.deepcopy(world.user_model)))

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """The k best; the carry is the model's guess of the users' state."""
        past = past_of(observation)
        device = past.history.device
        if self._prepared != device:
            self.model.prepare(self.serving.world, device)
            self._prepared = device
        if carry is not None and isinstance(self.model, FollowsAlong):
            state = self.model.observe(carry, past.shown[:, -1], past.answers[:, -1])
        else:
            state = self.model.infer(past, observation["profile"])
        mask = action_mask(observation, self.serving.catalogue_size)
        shortlist, rewards = self._shortlist(state, past, mask, k)
        return self._choose(shortlist, rewards, mask, k, draw), state

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """The user model lies in the serving folder."""
        return cls(serving)

    def _shortlist(self, state: Any, past: Past, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The items worth a closer look (B, C), N where there are none left, and how good each is alone (B, C)."""
        n = self.serving.catalogue_size
        everything = torch.arange(n, device=mask.device)
        if self._consumption_alone and isinstance(self.model, TellsChances):
            chances = self.model.chances(state, past, everything)
            shortlist = best_slate(chances, mask, max(k, min(self._closer_look(k), n)))
            return shortlist, torch.nn.functional.pad(chances, (0, 1)).gather(1, shortlist)
        utility = self.model.utility(state, past, everything)
        if utility is None:
            shortlist = everything.expand(len(mask), -1).masked_fill(~mask, n)
        else:
            shortlist = best_slate(utility, mask, max(k, min(self._closer_look(k), n)))
        rewards = self._rewards(state, past, shortlist)
        if rewards is None:  # already in order of utility
            rewards = -torch.arange(shortlist.shape[1], device=mask.device).expand(shortlist.shape).float()
        return shortlist, rewards

    def _closer_look(self, k: int) -> int:
        """How many items of highest utility are looked at closely."""
        return max(_CLOSE, 2 * k) if self._consumption_alone else SHORTLIST

    @property
    def _consumption_alone(self) -> bool:
        """Whether the reward counts consumption, which is good, and nothing else."""
        reward, consumption = self.serving.world.reward, self.serving.world.signals[0].name
        if not isinstance(reward, WeightedReward) or reward.columns or reward.leaving:
            return False
        others = any(weight for name, weight in reward.signals.items() if name != consumption)
        return reward.signals.get(consumption, 0.0) > 0 and not others

    def _choose(self, shortlist: Tensor, rewards: Tensor, mask: Tensor, k: int, draw: Draw) -> Tensor:
        """A slate (B, k) out of the shortlist: the highest rewards."""
        n = self.serving.catalogue_size
        places = best_slate(rewards, shortlist < n, k)  # (B, k) places in the shortlist
        return torch.nn.functional.pad(shortlist, (0, 1), value=n).gather(1, places)

    def _rewards(self, state: Any, past: Past, items: Tensor) -> Tensor | None:
        """Expected reward of showing each item (B, C) alone, (B, C); None where the model cannot say."""
        (b, c), world = items.shape, self.serving.world
        every_lane = torch.arange(b, device=items.device).repeat_interleave(c)
        parts = []
        for start in range(0, b * c, _ROWS):
            rows, shown = every_lane[start : start + _ROWS], items.reshape(-1, 1)[start : start + _ROWS]
            expected = self.model.expected(state.rows(rows), past.rows(rows), shown)
            if expected is None:
                return None
            reward = self._earned(shown, expected.mean)
            if expected.leave is not None and isinstance(world.reward, WeightedReward):
                reward = reward + world.reward.leaving * expected.leave
            parts.append(reward)
        return torch.cat(parts).view(b, c)

    def _earned(self, items: Tensor, mean: Tensor) -> Tensor:
        """Means where given (R, 1, S) of single items (R, 1) -> what is expected to be earned, (R,)."""
        world, device = self.serving.world, items.device
        columns, vectors = world.catalogue.columns.to(device), world.item_vectors.to(device)
        return expected_by_place(world.reward, items, mean, world.signals, columns, vectors)[:, 0]
