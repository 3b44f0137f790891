"""Critics of points in item space: what a direction, an item or the mean of a slate is worth to a user."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.networks.features import ANCHORS, FeatureInputs, ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import Actor, EncoderDirection
from recloop.envs.interaction.observation import Observation, ObservationSpec


@dataclass(frozen=True)
class ItemFeatures:
    """What actors and critics read of B lanes before any parameter is involved: worked out once for all of them.

    Args:
        observation: with `state`.
        inputs: of `LoopFeatures`.
    """

    observation: Observation
    inputs: FeatureInputs


def head_of(actor: Actor, known: ItemFeatures) -> Tensor:
    """What an actor gives, (B, ...)."""
    trunk = actor.features.trunk_of(known.inputs)
    given: Tensor = actor.head(torch.cat([known.inputs.anchors.flatten(1), trunk], dim=1), known.observation)
    return given


class PointCritic(nn.Module):
    """Q(s, x) of points x of item space, for several heads over one trunk.

    A head is an inner product of x with a query from the trunk, plus one hidden layer (ReLU) over the trunk, x, and
    the inner products of x with the `ANCHORS` and with the state encoder's direction, so that a critic can soon say
    that what was shown lately is worn out. Points live where `ItemTables.centred` has the items.

    Args:
        tables: the items.
        spec: of observations.
        config: sizes.
        heads: Q, critics that share the trunk; 2 where a learner takes the smaller of two estimates.
    """

    def __init__(self, tables: ItemTables, spec: ObservationSpec, config: NetworkConfig, heads: int = 1) -> None:
        super().__init__()
        self.features = LoopFeatures(tables, spec, config)
        self.encoder = EncoderDirection(tables)
        self.dim, self.heads, self.width = tables.dim, heads, config.hidden
        self.query = nn.Linear(self.features.hidden, heads * self.dim)
        self.of_trunk = nn.Linear(self.features.hidden, heads * self.width)
        self.of_point = nn.Linear(self.dim + len(ANCHORS) + 1, heads * self.width, bias=False)
        self.out = nn.Parameter(torch.empty(heads, 1, self.width, 1).uniform_(-1, 1) / self.width**0.5)
        self.offset = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, known: ItemFeatures, points: Tensor, heads: int | None = None) -> Tensor:
        """Q-values (Q, B, M) of points (B, M, d), by the first `heads` heads; default all."""
        heads = self.heads if heads is None else heads
        trunk = self.features.trunk_of(known.inputs)
        start = self.encoder.start(known.observation).unsqueeze(1)
        near = torch.cat([known.inputs.anchors, start], dim=1)  # (B, anchors + 1, d)
        told = torch.cat([points, points @ near.transpose(1, 2)], dim=2)
        inner = self._of(self.of_point, told, heads) + self._of(self.of_trunk, trunk.unsqueeze(1), heads)
        queries = self._of(self.query, trunk.unsqueeze(1), heads)  # (Q, B, 1, d)
        linear = (queries @ points.transpose(1, 2))[:, :, 0]
        return linear + (torch.relu(inner) @ self.out[:heads])[..., 0] + self.offset[:heads]

    def _of(self, layer: nn.Linear, inputs: Tensor, heads: int) -> Tensor:
        """What the first heads' part of a layer makes of (B, M, ...): (Q, B, M, w)."""
        rows = layer.out_features // self.heads * heads
        bias = None if layer.bias is None else layer.bias[:rows]
        outputs = F.linear(inputs, layer.weight[:rows], bias)
        return outputs.view(*inputs.shape[:2], heads, -1).movedim(2, 0)


@torch.no_grad()
def follow(targets: nn.Module, networks: nn.Module, share: float) -> None:
    """Polyak: targets += share (networks - targets), in place, all parameters at once."""
    torch._foreach_lerp_(list(targets.parameters()), list(networks.parameters()), share)
