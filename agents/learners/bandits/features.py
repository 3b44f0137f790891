"""What bandits know of an item for a user: facts, the item, and the user times the item."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.isolation import isolated_randomness
from recloop.agents.learners.off_policy.item_values import CandidateValues
from recloop.agents.networks.features import ItemTables, NetworkConfig
from recloop.agents.networks.heads import FACTS, make_actor
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation, ObservationSpec

_FACTS_ONLY = NetworkConfig(hidden=1, slate_dim=1, layers=1)
"""Of networks whose parameters nobody asks: facts are made before any is involved."""


class Arms(NamedTuple):
    """What B lanes may show.

    Args:
        items: int64 (B, C) item rows.
        mask: bool (B, C), where there is an item.
        x: float32 (B, C, D) features; zero where there is none.
    """

    items: Tensor
    mask: Tensor
    x: Tensor


class BanditFeatures(nn.Module):
    """Observation with `candidates` -> features (B, C, D) of every candidate: D = 1 + F + r + r r.

    One constant; the `FACTS` that action heads know of an item, standardised over the candidates; the item's r
    principal components, each of spread 1 over the catalogue; and their outer product with r coordinates of the user's
    state, along the axes in which the encoder's item vectors differ most (as user and article features are joined in Li
    et al. 2010). What does not vary over the catalogue is zero. No parameters; both tables are saved, since a
    decomposition may turn out otherwise elsewhere.

    Args:
        tables: the items.
        spec: of observations.
        components: r, at most d.

    Raises:
        PolicyError: item vectors that are no finite numbers.
    """

    components: Tensor
    axes: Tensor

    def __init__(self, tables: ItemTables, spec: ObservationSpec, components: int) -> None:
        super().__init__()
        broken = ~torch.isfinite(tables.vectors).all(1) | ~torch.isfinite(tables.encoder_vectors).all(1)
        if bool(broken.any()):
            raise PolicyError(
                f"the vectors of {int(broken.sum())} of {tables.catalogue_size} items hold NaN or infinity (first: row "
                f"{int(broken.nonzero()[0, 0])}); build the world anew, a bandit cannot learn from them"
            )
        r = min(components, tables.dim, tables.state_dim)
        vectors = tables.centred()
        seen_from = vectors @ _principal(vectors[:-1], r)  # (N+1, r)
        spread = seen_from[:-1].std(0, correction=0)
        varies = spread > 1e-4
        self.register_buffer("components", torch.where(varies, seen_from / spread.clamp_min(1e-4), 0.0))
        encoder = tables.encoder_vectors[:-1]
        self.register_buffer("axes", _principal(encoder - encoder.mean(0), r))
        with isolated_randomness(0):
            self.facts = CandidateValues(make_actor("candidates", tables, spec, _FACTS_ONLY), values=0)
        self.size = 1 + len(FACTS) + r + r * r

    @torch.no_grad()
    def forward(self, observation: Observation) -> Arms:
        look = self.facts.look(observation)
        item = F.embedding(look.items, self.components)  # (B, C, r)
        user = observation["state"] @ self.axes  # (B, r)
        both = item.unsqueeze(3) * user[:, None, None]  # (B, C, r, r)
        parts = [torch.ones_like(item[..., :1]), look.facts.transpose(1, 2), item, both.flatten(2)]
        return Arms(look.items, look.mask, torch.cat(parts, dim=2) * look.mask.unsqueeze(2))


def _principal(vectors: Tensor, r: int) -> Tensor:
    """The r directions (d, r) of length 1 in which vectors (N, d) vary most."""
    directions = torch.linalg.eigh((vectors.T @ vectors).double().cpu())[1].flip(1)[:, :r]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    axes: Tensor = directions * largest.sign()
    return axes.to(vectors)
