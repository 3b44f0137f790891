"""Boredom: users who tire of the topics they are shown too much of. Its best policy can be computed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.storage import read_json, read_tensors
from recloop.envs.interaction.randomness import Draw, purpose_code
from recloop.envs.interaction.response import Expected, Past, State
from recloop.envs.logs.schema import Signal
from recloop.envs.truth.tastes import CLICK, TasteUsers, shares
from recloop.envs.users.fast import NativeForm, NativeUsers

RATING = Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="click")
_OLD_FILE = "topics.safetensors"
"""Where these users were kept when they were of the kind `topics`."""


@dataclass(frozen=True)
class BoredomRules:
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

    def __post_init__(self) -> None:
        shares(self, "fade", "examine", "leave")


@dataclass(frozen=True)
class BoredomState(State):
    """What a user is and how bored they are.

    Args:
        preference: float32 (B, T) appeal of each topic in (0, 1).
        boredom: int64 (B, T) level of each topic.
    """

    preference: Tensor
    boredom: Tensor


class BoredomUsers(TasteUsers, NativeUsers):
    """Users who like some topics, look at the top first, tire of what they are shown too much of, and leave.

    An item i of topic t appeals with a = preference[t] x quality[i] x fade^boredom[t]. At position k it is clicked
    with probability examine^k x a. A clicked item is rated around 1 + 4 x preference[t] x quality[i], rounded to 1
    to 5. After a slate, boredom of a topic rises by one for every `bored_at` places it filled, and falls by one where
    it filled none. The user leaves with probability leave + leave_bored x (1 - mean appeal)^2. Boredom follows
    from what is shown, not from luck, so that the best policy is a small dynamic programme over boredom levels:
    see `recloop.envs.truth.boredom_optimum`.
    """

    kind = "boredom"
    rules_class = BoredomRules
    rules: BoredomRules
    signals = (CLICK, RATING)

    def arrive(self, users: Tensor, draw: Draw) -> BoredomState:
        """Nobody is bored on arrival."""
        preference = self.preference[users]
        return BoredomState(preference, torch.zeros_like(preference, dtype=torch.int64))

    def observe(self, state: BoredomState, slate: Tensor, signals: Tensor) -> BoredomState:
        """Boredom follows from what was shown, whatever the answers."""
        counts = torch.nn.functional.one_hot(self._topic[slate], self.topics + 1).sum(1)[:, : self.topics]
        return BoredomState(state.preference, self.next_boredom(state.boredom, counts))

    def resume(self, state: BoredomState, days_away: Tensor, draw: Draw) -> BoredomState:
        """One level of boredom is forgotten a day away."""
        rested = state.boredom - days_away.to(torch.int64).unsqueeze(1)
        return BoredomState(state.preference, rested.clamp(min=0))

    def expected(self, state: BoredomState, past: Past, slate: Tensor) -> Expected:
        """Exact."""
        appeal = self.utility(state, past, slate)
        click = appeal * self.examined(slate.shape[1])
        rating = self.expected_rating(self._mean_rating(state, slate))
        return Expected(mean=torch.stack([click, rating], dim=2), leave=self.leaving(appeal))

    def utility(self, state: BoredomState, past: Past | None, items: Tensor) -> Tensor:
        """Appeal: preference x quality x fade^boredom."""
        items = items.expand(len(state.preference), -1)
        return self.liking(state.preference * self.rules.fade**state.boredom, items) * self.trait("quality", items)

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

    def next_boredom(self, boredom: Tensor, counts: Tensor) -> Tensor:
        """Boredom after a slate with `counts` places a topic; shapes broadcast, (..., T)."""
        change = counts // self.rules.bored_at - (counts == 0).to(torch.int64)
        return (boredom + change).clamp(0, self.rules.levels - 1)

    def native(self, slate_size: int) -> NativeForm | None:
        """The same laws as a loop; none for a subclass, which may have laws of its own."""
        if type(self) is not BoredomUsers:
            return None
        from recloop.envs.simulation.native import kernels

        rules, everybody = self.rules, torch.arange(len(self.preference))
        named = {"click": "click", "rating": "rating", "angle": "rating/angle", "left": "leave"}
        tables = {
            "topic": self._topic.numpy(),
            "quality": self._traits["quality"].numpy(),
            "examined": self.examined(slate_size).numpy(),
            "fade": (rules.fade ** torch.arange(rules.levels)).numpy(),
            "noise": np.float32(rules.rating_noise),
            "leave": np.float32(rules.leave),
            "leave_bored": np.float32(rules.leave_bored),
            "bored_at": rules.bored_at,
            "topics": self.topics,
            **{name: np.uint64(purpose_code(purpose)) for name, purpose in named.items()},
        }

        def bind(start: Callable[[str], int]) -> tuple[Callable[..., None], list[Any]]:
            places = {name: start(name) for name in ("preference", "boredom")}
            return kernels.boredom_answers, [kernels.BoredomTables(**places, **tables)]

        arrivals = self.arrive(everybody, Draw(everybody))
        return NativeForm(
            arrivals, 1, bind, lambda: (self.preference, self._topic, self._traits["quality"], self.rules)
        )

    def _answer(self, state: BoredomState, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        click = self.drawn("click", self.utility(state, None, slate) * self.examined(slate.shape[1]), slate, draw)
        noisy = self._mean_rating(state, slate) + self.rules.rating_noise * draw.normal("rating", slate)
        rating = noisy.round().clamp(*RATING.bounds) * click
        return torch.stack([click, rating], dim=2), torch.stack([slate < self.items, click > 0], dim=2)

    def _leaving(self, state: BoredomState, slate: Tensor, signals: Tensor) -> Tensor:
        return self.leaving(self.utility(state, None, slate))

    def _mean_rating(self, state: BoredomState, slate: Tensor) -> Tensor:
        return 1 + 4 * self.liking(state.preference, slate) * self.trait("quality", slate)

    @classmethod
    def load(cls, folder: Path | str, **context: Any) -> Self:
        """Undo `save`; reads the older folders of the kind `topics` too."""
        folder = Path(folder)
        if not (folder / _OLD_FILE).exists():
            return super().load(folder, **context)
        tensors = read_tensors(folder / _OLD_FILE)
        rules = cls.rules_class(**read_json(folder / "rules.json"))
        return cls(tensors["preference"], tensors["topic"], {"quality": tensors["quality"]}, rules)
