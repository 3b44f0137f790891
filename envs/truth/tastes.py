"""The common ground of the truth worlds: users who like topics, items with traits, clicks, and leaving."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.data import WorldData

CLICK = Signal("click")
LIKE = Signal("like", given_on="click")


@dataclass(frozen=True)
class TasteState(State):
    """What users like.

    Args:
        preference: float32 (B, T) for each topic, in (0, 1].
    """

    preference: Tensor


class TasteUsers(UserSimulator, Artifact):
    """Base of users with a preference for each topic. A world states its laws in a frozen dataclass of rules.

    `respond` draws the answers (`_answer`), draws whether the user leaves (`_leaving`, given the answers), and moves
    the state on (`observe`). So the state follows from the answers alone: `observe` with logged answers rebuilds the
    true state at any slate of a log. Users may consume an item again.

    Args:
        preference: float32 (U, T) by row of the users table, in (0, 1].
        topic: int64 (N,) each item's topic.
        traits: float32 (N,) each, in (0, 1], by the names in `trait_names`.
        rules: the laws.

    Raises:
        UserSimulatorError: a preference or trait outside (0, 1], a topic that no preference speaks of, a missing trait.
    """

    artifact_file = "rules"
    artifact_error = UserSimulatorError
    artifact_tensors = "tastes"

    kind: ClassVar[str]
    rules_class: ClassVar[type]
    trait_names: ClassVar[tuple[str, ...]] = ("quality",)
    signals: tuple[Signal, ...] = (CLICK,)

    def __init__(self, preference: Tensor, topic: Tensor, traits: Mapping[str, Tensor], rules: Any) -> None:
        missing = [name for name in self.trait_names if name not in traits]
        if missing:
            raise UserSimulatorError(f"{type(self).__name__} needs the item trait(s) {', '.join(missing)}; pass them")
        used = {name: traits[name] for name in self.trait_names}
        for name, values in {"preference": preference, **used}.items():
            if not bool(((values > 0) & (values <= 1)).all()):
                raise UserSimulatorError(f"{name} must lie in (0, 1]; it spans {values.min()} to {values.max()}")
        if int(topic.min()) < 0 or int(topic.max()) >= preference.shape[1]:
            raise UserSimulatorError(
                f"topic spans {int(topic.min())} to {int(topic.max())}; preference has {preference.shape[1]} topics, "
                "number them from 0"
            )
        self.preference = preference.to(torch.float32)
        self.rules = rules
        self.topics = preference.shape[1]
        self.items = len(topic)
        # Row N, the empty place: a topic that nobody likes, and no trait.
        self._topic = torch.cat([topic.to(torch.int64), topic.new_tensor([self.topics])])
        self._traits = {n: torch.cat([v.to(torch.float32), v.new_zeros(1)]) for n, v in used.items()}

    @property
    def topic(self) -> Tensor:
        """int64 (N,) each item's topic."""
        return self._topic[:-1]

    @property
    def traits(self) -> dict[str, Tensor]:
        """float32 (N,) each, by name."""
        return {name: values[:-1] for name, values in self._traits.items()}

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Move the tables; they are few."""
        self.device = torch.device(device)
        self.preference = self.preference.to(self.device)
        self._topic = self._topic.to(self.device)
        self._traits = {name: values.to(self.device) for name, values in self._traits.items()}

    def arrive(self, users: Tensor, draw: Draw) -> Any:
        """Users like what their rows say."""
        return TasteState(self.preference[users])

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """See the class."""
        signals, given = self._answer(state, slate, draw)
        left = draw.uniform("leave") < self._leaving(state, slate, signals)
        return self.observe(state, slate, signals), Response(signals=signals, given=given, left=left)

    def observe(self, state: Any, slate: Tensor, signals: Tensor) -> Any:
        """The state after the answers (B, K, S) to slates (B, K), within a session; here nothing changes."""
        return state

    @abstractmethod
    def _answer(self, state: Any, slate: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Signals float32 (B, K, S) and where they are given, bool (B, K, S)."""

    def _leaving(self, state: Any, slate: Tensor, signals: Tensor) -> Tensor:
        """Chance (B,) to leave after these answers to slates: `leave`, or `leave_empty` where nothing was clicked."""
        clicked = (signals[..., 0] > 0.5).any(1)
        return torch.where(clicked, self.rules.leave, self.rules.leave_empty)

    def _expected_leaving(self, click: Tensor) -> Tensor:
        """`_leaving` before the answers, for independent clicks of these chances (B, K)."""
        empty = (1 - click).prod(1)
        mean: Tensor = self.rules.leave + (self.rules.leave_empty - self.rules.leave) * empty
        return mean

    def promise(self, state: Any, items: Tensor) -> Tensor | None:
        """What looking at each item (B, C) is expected to do for later slates, up to a factor; None where nothing does.

        For planners alone: `recloop.agents.baselines.planner`.
        """
        return None

    def liking(self, preference: Tensor, items: Tensor) -> Tensor:
        """Preference (B, T) for the topics of items (B, C), (B, C); 0 for the empty place."""
        return torch.nn.functional.pad(preference, (0, 1)).gather(1, self._topic[items])

    def trait(self, name: str, items: Tensor) -> Tensor:
        """A trait of items, any shape; 0 for the empty place."""
        return self._traits[name][items]

    def examined(self, k: int) -> Tensor:
        """Chance that each of k places is looked at, (k,): `examine ** position`."""
        positions = torch.arange(k, device=self.device, dtype=torch.float32)
        chance: Tensor = self.rules.examine**positions
        return chance

    def per_topic(self, values: Tensor, items: Tensor) -> Tensor:
        """Sums of values (B, K) over the topics of items (B, K), (B, T)."""
        sums = values.new_zeros(len(items), self.topics + 1).scatter_add(1, self._topic[items], values)
        return sums[:, : self.topics]

    def drawn(self, purpose: str, chance: Tensor, slate: Tensor, draw: Draw) -> Tensor:
        """Yes or no, float32 (B, K), by chances (B, K): luck belongs to the item, not to its place."""
        return (draw.uniform(purpose, slate) < chance).to(torch.float32)

    def stored_facts(self) -> dict[str, Any]:
        """The rules."""
        return asdict(self.rules)

    def stored_tensors(self) -> dict[str, Tensor]:
        """Tastes, and what the items are like."""
        traits = {f"trait.{name}": values for name, values in self.traits.items()}
        return {"preference": self.preference, "topic": self.topic, **traits}

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        traits = {n.removeprefix("trait."): v for n, v in tensors.items() if n.startswith("trait.")}
        return cls(tensors["preference"], tensors["topic"], traits, cls.rules_class(**facts))


def shares(rules: Any, *names: str) -> None:
    """Raise `UserSimulatorError` where one of the named rules is no share in [0, 1]."""
    for name in names:
        value = getattr(rules, name)
        if not 0 <= value <= 1:
            raise UserSimulatorError(f"{type(rules).__name__}.{name}={value} must lie in [0, 1]")
