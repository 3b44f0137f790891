"""Critics of points in item space: what a direction, an item or the mean of a slate is worth to a user."""

import torch
from torch import Tensor, nn

from recloop.agents.networks.features import ANCHORS, ItemTables, LoopFeatures, NetworkConfig
from recloop.agents.networks.heads import EncoderDirection
from recloop.envs.observation import Observation


class PointCritic(nn.Module):
    """Q(s, x) of points x of item space, for several heads over one trunk.

    A head is an inner product of x with a query from the trunk, plus one hidden layer (tanh) over the trunk, x, and
    the inner products of x with the `ANCHORS` and with the state encoder's direction, so that a critic can soon say
    that what was shown lately is worn out. Points live where `ItemTables.centred` has the items.

    Args:
        tables: the items.
        shown_length: L.
        profile_dim: p.
        config: sizes.
        heads: Q, critics that share the trunk; 2 where a learner takes the smaller of two estimates.
    """

    def __init__(
        self, tables: ItemTables, shown_length: int, profile_dim: int, config: NetworkConfig, heads: int = 1
    ) -> None:
        super().__init__()
        self.features = LoopFeatures(tables, shown_length, profile_dim, config)
        self.encoder = EncoderDirection(tables)
        self.dim, self.heads, self.width = tables.dim, heads, config.hidden
        self.query = nn.Linear(self.features.hidden, heads * self.dim)
        self.of_trunk = nn.Linear(self.features.hidden, heads * self.width)
        self.of_point = nn.Linear(self.dim, heads * self.width, bias=False)
        self.of_likeness = nn.Linear(len(ANCHORS) + 1, heads * self.width, bias=False)
        self.out = nn.Parameter(torch.empty(heads, 1, 1, self.width).uniform_(-1, 1) / self.width**0.5)
        self.offset = nn.Parameter(torch.zeros(heads, 1, 1))

    def forward(self, observation: Observation, points: Tensor) -> Tensor:
        """Q-values (Q, B, M) of points (B, M, d)."""
        trunk, anchors = LoopFeatures.split(self.features(observation), self.dim)
        known = torch.cat([anchors, self.encoder.start(observation).unsqueeze(1)], dim=1)  # (B, anchors + 1, d)
        likeness = points @ known.transpose(1, 2)  # (B, M, anchors + 1)
        inner = self.of_point(points) + self.of_likeness(likeness) + self.of_trunk(trunk).unsqueeze(1)
        inner = torch.tanh(self._by_head(inner))  # (Q, B, M, h)
        queries = self._by_head(self.query(trunk).unsqueeze(1))  # (Q, B, 1, d)
        linear = (queries @ points.transpose(1, 2))[:, :, 0]
        return linear + (inner * self.out).sum(3) + self.offset

    def _by_head(self, values: Tensor) -> Tensor:
        """(B, M, Q w) -> (Q, B, M, w)."""
        return values.unflatten(2, (self.heads, -1)).movedim(2, 0)


@torch.no_grad()
def follow(targets: nn.Module, networks: nn.Module, share: float) -> None:
    """Polyak: targets += share (networks - targets), in place, all parameters at once."""
    torch._foreach_lerp_(list(targets.parameters()), list(networks.parameters()), share)
