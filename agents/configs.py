"""What every agent that learns in the loop is trained with."""

from dataclasses import asdict, dataclass, field
from typing import Any

from recloop.agents.networks.features import NetworkConfig
from recloop.encoders.base.errors import PolicyError


@dataclass(frozen=True)
class AgentConfig:
    """What all agents share.

    Args:
        steps: environment steps over all lanes; one is one action of one lane.
        num_envs: users simulated at once, one a lane.
        learning_rate: of Adam at the start; falls linearly to zero.
        gamma: discount a slate, in [0, 1].
        candidates: C, items retrieved to choose from; None for the retriever's default.
        validations: how often the policy is tried during training; the best one is kept.
        validation_episodes: of a trial, always with the same users.
        network: sizes.
    """

    steps: int = 200_000
    num_envs: int = 64
    learning_rate: float = 5e-4
    gamma: float = 0.9
    candidates: int | None = None
    validations: int = 10
    validation_episodes: int = 128
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "validations", "validation_episodes"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)}; it must be at least 1")
        if not 0 <= self.gamma <= 1:
            raise PolicyError(f"gamma={self.gamma}; it must lie in [0, 1]")

    @property
    def plans_on_user_model(self) -> bool:
        """Whether the policy takes a copy of the world's user model along."""
        return False

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `with_settings` undoes it."""
        return asdict(self)
