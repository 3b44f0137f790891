"""Ground-truth users with topics: latent preferences, position bias, boredom and leaving, all written down."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.data import WorldData

CLICK = Signal("click")
RATING = Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="click")


@dataclass(frozen=True)
class TopicRules:
    """The laws of the world.

    Args:
        bored_at: every so many places that a topic fills in one slate bore its user by one level more.
        levels: number of boredom levels of a topic, from 0 to levels - 1.
        fade: what each level leaves of a topic's appeal, in (0, 1).
        examine: by position from the top, the probability that a place is looked at is `examine ** position`.
        leave: probability to leave after a slate of full appeal.
        leave_bored: added to `leave` times the square of the slate's missing appeal.
        rating_noise: standard deviation of a rating around its mean, in levels.
    """

    bored_at: int = 2
    levels: int = 4
    fade: float = 0.7
    examine: float = 0.88
    leave: float = 0.01
    leave_bored: float = 0.2
    rating_noise: float = 0.6


@dataclass(frozen=True)
class TopicState(State):
    """What a user is and how bored they are.

    Args:
        preference: float32 (B, T) appeal of each topic in (0, 1).
        boredom: int64 (B, T) level of each topic.
    """

    preference: Tensor
    boredom: Tensor


class TopicUsers(UserSimulator):
    """Users who like some topics, look at the top first, tire of what they are shown too much of, and leave.

    An item i of topic t appeals with a = preference[t] x quality[i] x fade^boredom[t]. At position k it is clicked
    with probability examine^k x a. A clicked item is rated around 1 + 4 x preference[t] x quality[i], rounded to 1
    to 5. After a slate, boredom of a topic rises by one for every `bored_at` places it filled, and falls by one where
    it filled none. The user leaves with probability leave + leave_bored x (1 - mean appeal)^2. Boredom follows
    from what is shown, not from luck, so that the best policy is a small dynamic programme over boredom levels:
    see `recloop.envs.truth.topics_optimum`. Users may click an item again.

    Args:
        preference: float32 (U, T) by row of the users table.
        topic: int64 (N,) each item's topic.
        quality: float32 (N,) in (0, 1].
        rules: the laws.
    """

    kind = "topics"
    signals = (CLICK, RATING)

    def __init__(self, preference: Tensor, topic: Tensor, quality: Tensor, rules: TopicRules) -> None:
        for name, values in (("preference", preference), ("quality", quality)):
            if bool(((values <= 0) | (values > 1)).any()):
                raise UserSimulatorError(f"{name} must lie in (0, 1]; it spans {values.min()} to {values.max()}")
        self.preference = preference.to(torch.float32)
        self.topic = topic.to(torch.int64)
        self.quality = quality.to(torch.float32)
        self.rules = rules
        self.topics = preference.shape[1]
        self._table_items()

    def _table_items(self) -> None:
        """Item tables with a row N for the empty place: no appeal, and a topic of its own."""
        self._topic = torch.cat([self.topic, self.topic.new_tensor([self.topics])])
        self._quality = torch.cat([self.quality, self.quality.new_zeros(1)])

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Move the tables; they are few."""
        self.device = torch.device(device)
        self.preference = self.preference.to(self.device)
        self.topic, self.quality = self.topic.to(self.device), self.quality.to(self.device)
        self._table_items()

    def arrive(self, users: Tensor, draw: Draw) -> TopicState:
        """Nobody is bored on arrival."""
        preference = self.preference[users]
        return TopicState(preference, torch.zeros_like(preference, dtype=torch.int64))

    def respond(self, state: TopicState, past: Past, slate: Tensor, draw: Draw) -> tuple[TopicState, Response]:
        """See the class."""
        appeal = self.appeal(state, slate)  # (B, K)
        click = draw.uniform("click", slate) < appeal * self.examined(slate.shape[1])
        mean = self._mean_rating(state, slate)
        noisy = mean + self.rules.rating_noise * draw.normal("rating", slate)
        rating = noisy.round().clamp(*RATING.bounds) * click
        shown = slate < len(self.quality)
        response = Response(
            signals=torch.stack([click.to(torch.float32), rating], dim=2),
            given=torch.stack([shown, click], dim=2),
            left=draw.uniform("leave") < self.leaving(appeal),
        )
        return self._tire(state, slate), response

    def observe(self, state: TopicState, slate: Tensor, signals: Tensor) -> TopicState:
        """The state after the answers (B, K, S) to slates (B, K): boredom follows from what was shown."""
        return self._tire(state, slate)

    def resume(self, state: TopicState, days_away: Tensor, draw: Draw) -> TopicState:
        """One level of boredom is forgotten a day away."""
        rested = state.boredom - days_away.to(torch.int64).unsqueeze(1)
        return TopicState(state.preference, rested.clamp(min=0))

    def expected(self, state: TopicState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        appeal = self.appeal(state, slate)
        click = appeal * self.examined(slate.shape[1])
        rating = self.expected_rating(self._mean_rating(state, slate))
        return Expected(mean=torch.stack([click, rating], dim=2), leave=self.leaving(appeal))

    def utility(self, state: TopicState, past: Past, items: Tensor) -> Tensor:
        """Appeal."""
        return self.appeal(state, items.expand(len(state.preference), -1))

    def appeal(self, state: TopicState, items: Tensor) -> Tensor:
        """preference x quality x fade^boredom of items (B, C), (B, C); 0 for the empty place."""
        faded = state.preference * self.rules.fade**state.boredom
        faded = torch.nn.functional.pad(faded, (0, 1))  # (B, T+1)
        return faded.gather(1, self._topic[items]) * self._quality[items]

    def examined(self, k: int) -> Tensor:
        """Probability that each of k places is looked at, (k,)."""
        return self.rules.examine ** torch.arange(k, device=self.device, dtype=torch.float32)

    def leaving(self, appeal: Tensor) -> Tensor:
        """Probability to leave after a slate with these appeals (..., K), (...)."""
        return self.rules.leave + self.rules.leave_bored * (1 - appeal.mean(-1)).square()

    def expected_rating(self, mean: Tensor) -> Tensor:
        """Mean of the rounded and clipped rating around `mean`, same shape."""
        scale = self.rules.rating_noise * math.sqrt(2.0)
        total = torch.full_like(mean, RATING.levels[0])
        for level in RATING.levels[1:]:  # E[rating] = 1 + sum over levels of P(rating >= level)
            total = total + 0.5 * torch.erfc((level - 0.5 - mean) / scale)
        return total

    def _mean_rating(self, state: TopicState, slate: Tensor) -> Tensor:
        liked = torch.nn.functional.pad(state.preference, (0, 1)).gather(1, self._topic[slate])
        return 1 + 4 * liked * self._quality[slate]

    def _tire(self, state: TopicState, slate: Tensor) -> TopicState:
        counts = torch.nn.functional.one_hot(self._topic[slate], self.topics + 1).sum(1)[:, : self.topics]
        return TopicState(state.preference, self.next_boredom(state.boredom, counts))

    def next_boredom(self, boredom: Tensor, counts: Tensor) -> Tensor:
        """Boredom after a slate with `counts` places a topic; shapes broadcast, (..., T)."""
        change = counts // self.rules.bored_at - (counts == 0).to(torch.int64)
        return (boredom + change).clamp(0, self.rules.levels - 1)

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        write_json(folder / "rules.json", asdict(self.rules))
        write_tensors(
            folder / "topics.safetensors",
            {"preference": self.preference, "topic": self.topic, "quality": self.quality},
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Undo `save`."""
        rules = TopicRules(**read_json(folder / "rules.json"))
        return cls(**read_tensors(folder / "topics.safetensors"), rules=rules)
