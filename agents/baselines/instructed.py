"""A policy that hears what the user asks for: the state's next item and the instruction, weighed."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.agents.facts import Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.instruction.encoder import InstructionEncoder
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World


class InstructedPolicy(ScoringPolicy):
    """Shows the k items with the best sum of two scores, each standardised over the catalogue.

    The state encoder's score of the next item, and `weight` times the inner product of `observation["instruction"]`
    with the items' content vectors. Nothing is learned. Without a wish (a zero row, or no such key) the state alone
    decides.

    Args:
        state_encoder: scores items from `observation["state"]`.
        instruction: scores them from `observation["instruction"]`.
        weight: standard deviations of the one that one of the other is worth.

    Raises:
        PolicyError: where the world has no instruction encoder, or `weight` is negative.
    """

    name = "instructed"
    kind = "instructed"
    needs: ClassVar[tuple[str, ...]] = ("instruction",)
    trains: ClassVar[Trains] = "no"
    deterministic: ClassVar[bool] = True
    reads_instruction: bool = True

    def __init__(self, state_encoder: StateEncoder, instruction: InstructionEncoder, weight: float = 2.0) -> None:
        if not weight >= 0:
            raise PolicyError(f"weight={weight} of the instruction; give 0 or more")
        self.state_encoder, self.instruction, self.weight = state_encoder, instruction, weight

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Take the world's two encoders."""
        return cls(world.state_encoder, _encoder_of(world))

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Both scores as one, (B, N)."""
        scores = _standardised(self.state_encoder.scores(observation["state"]))
        instruction = observation.get("instruction")
        if instruction is None:
            return scores
        return scores + self.weight * _standardised(self.instruction.scores_of(instruction))

    def config(self) -> dict[str, Any]:
        """The weight; both encoders are served with the world."""
        return {"weight": self.weight}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config`."""
        return cls(serving.world.state_encoder, _encoder_of(serving.world), **config)


def _encoder_of(world: World) -> InstructionEncoder:
    if world.instruction is None:
        raise PolicyError(
            f"policy 'instructed' needs an instruction encoder and world '{world.name}' has none; build it with "
            "--encoder.instruction"
        )
    return world.instruction


def _standardised(scores: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the catalogue, (B, N); equal scores become zeros."""
    deviation = scores.std(dim=1, keepdim=True, correction=0)
    return (scores - scores.mean(dim=1, keepdim=True)) / deviation.clamp_min(1e-6)
