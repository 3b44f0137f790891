"""What our agents see of an observation, at a cost that does not grow with the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.encoders.base.tensor_struct import TensorStruct
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.item_space import POPULARITY_SPREAD, centred, with_popularity
from recloop.envs.interaction.observation import CONTEXT, Observation, ObservationSpec
from recloop.envs.logs.schema import Signal

FEATURE_KEYS = ("state", "shown", "answers", "context")
"""The observation keys that features are made of, besides `profile` in a world that has profiles."""

ANCHORS = ("last shown", "shown lately", "consumed lately", "picked", "liked lately")
"""Mean vectors that an action head may be drawn to or away from, in this order; `lately` fades by the slate, `liked`
is by the mean of the signals besides consumption."""

_FADE = 0.7
"""What each slate back leaves of its weight in the `lately` means."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks; round-trips through JSON.

    Args:
        hidden: units of each hidden layer.
        slate_dim: length to which the mean item vector of a past slate is projected.
        layers: hidden layers of the trunk.
        prior: how much of the state encoder's score (standardised) a fresh agent's scores hold.
        shared_gain: how fast gates that all users share learn, as a multiple of the learning rate.
        state_gain: how fast what depends on the user's state learns, likewise.
        proto_scale: root mean square of the entries of a fresh `proto` action, in (0, 1).
        hears: whether what the user says is read: by the trunk, by the retriever, and as a fact of each item. For
            learners that choose candidates on policy, in a world with an instruction encoder.
    """

    hidden: int = 64
    slate_dim: int = 16
    layers: int = 2
    prior: float = 3.0
    shared_gain: float = 30.0
    state_gain: float = 0.5
    proto_scale: float = 0.4
    hears: bool = False


@dataclass(frozen=True)
class ItemTables:
    """What is known of the items, frozen; row N, the empty place, is zero.

    Args:
        vectors: float32 (N+1, d), where slates and actions live.
        encoder_vectors: float32 (N+1, d), the items as the state encoder's next-item scores read them.
        encoder_bias: float32 (N+1,), the part of those scores that no user explains.
        log_popularity: float32 (N+1,), log(1 + times consumed) on the train users, scaled to [0, 1].
        wishes: float32 (N+1, u), the items as instructions are held against them; None for who does not hear.
    """

    vectors: Tensor
    encoder_vectors: Tensor
    encoder_bias: Tensor
    log_popularity: Tensor
    wishes: Tensor | None = None

    @classmethod
    def of(cls, encoder: StateEncoder, popularity: Tensor, wishes: Tensor | None = None) -> "ItemTables":
        """The tables of a world's encoder, its items' popularity (N,), and what instructions are held against."""
        device = encoder.item_vectors.device
        logs = torch.log1p(popularity.to(device, torch.float32))
        return cls(
            encoder.item_vectors.detach().clone(),
            encoder.out_items.detach().clone(),
            F.pad(encoder.popularity.detach(), (0, 1)),
            F.pad(logs / logs.max().clamp_min(1e-6), (0, 1)),
            None if wishes is None else wishes.to(device),
        )

    def with_popularity(self, spread: float = POPULARITY_SPREAD) -> "ItemTables":
        """The same with one more coordinate of item space: how popular an item is, which its text may not tell.

        Args:
            spread: standard deviation of that coordinate, as a multiple of the vectors' spread around their mean.
        """
        return replace(self, vectors=with_popularity(self.vectors, self.log_popularity[:-1], spread))

    def centred(self) -> Tensor:
        """The vectors around their mean over the catalogue, of mean square length 1; (N+1, d), row N zero."""
        return centred(self.vectors)

    @property
    def catalogue_size(self) -> int:
        """N."""
        return len(self.vectors) - 1

    @property
    def dim(self) -> int:
        """d."""
        return self.vectors.shape[1]

    @property
    def state_dim(self) -> int:
        """Length of the encoder's state vectors: d, but where item space was given more coordinates."""
        return self.encoder_vectors.shape[1]


class SlateMeans(nn.Module):
    """The mean (centred) vector of each past slate, and of it by each signal of the answers. No parameters.

    Args:
        tables: the items.
        signals: of the answers; the first is consumption, 0 or 1. The others count as shares of their largest size, so
            that 0 is "not given".
    """

    vectors: Tensor
    scales: Tensor

    def __init__(self, tables: ItemTables, signals: Sequence[Signal]) -> None:
        super().__init__()
        self.register_buffer("vectors", tables.centred(), persistent=False)
        sizes = [max(abs(bound) for bound in signal.bounds) or 1.0 for signal in signals]
        self.register_buffer("scales", torch.tensor(sizes, device=self.vectors.device), persistent=False)

    def forward(self, shown: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Slates (B, L, K) and the answers (B, L, K, S) -> (B, L, d) and (B, L, S, d), zero where empty.

        Both are divided by the number of items *shown*, so that the length of the second tells how much was liked.
        """
        b, length, k = shown.shape
        dim, signals = self.vectors.shape[1], len(self.scales)
        if length * k == 0:
            return self.vectors.new_zeros(b, length, dim), self.vectors.new_zeros(b, length, signals, dim)
        held = (shown < len(self.vectors) - 1).to(self.vectors.dtype)
        size = held.sum(2, keepdim=True).clamp_min(1)
        known = answers / self.scales
        taken = torch.cat([(answers[..., :1] > 0.5).to(known.dtype), known[..., 1:]], dim=3) * held.unsqueeze(3)
        by_signal = [self._sum(shown, taken[..., s]) / size for s in range(signals)]
        return self._sum(shown, held) / size, torch.stack(by_signal, dim=2)

    def _sum(self, items: Tensor, weights: Tensor) -> Tensor:
        flat = items.flatten(0, 1)
        total = F.embedding_bag(flat, self.vectors, per_sample_weights=weights.flatten(0, 1), mode="sum")
        return total.view(*items.shape[:2], -1)


@dataclass(frozen=True)
class FeatureInputs(TensorStruct):
    """What `LoopFeatures` reads in an observation before any parameter is involved: worked out once, used often.

    Args:
        user: float32 (B, d + c), state and context.
        slates: float32 (B, L, (1 + S) d), means of what was shown, and of it by each signal.
        rest: float32 (B, d + p + u), mean of what is picked, profile, and what the user says where that is heard.
        anchors: float32 (B, 5, d), the `ANCHORS`.
    """

    user: Tensor
    slates: Tensor
    rest: Tensor
    anchors: Tensor


class LoopFeatures(nn.Module):
    """Observation -> features (B, 5 d + hidden): the `ANCHORS` in item space, then a trunk; `split` parts them.

    The trunk is an MLP (LayerNorm, tanh) over the state, the context, the profile, and for each of the last L slates
    the projected mean of what was shown and of it by each signal, so that an agent can see what it has worn out and
    what was liked. The anchors have no parameters; `picked` is what the slate in the making holds, zero where none is
    observed.

    Args:
        tables: the items.
        spec: of observations.
        config: sizes.
    """

    lately: Tensor

    def __init__(self, tables: ItemTables, spec: ObservationSpec, config: NetworkConfig) -> None:
        super().__init__()
        self.dim, self.hidden, self.profile_dim = tables.dim, config.hidden, spec.profile_dim
        self.hears = tables.wishes is not None
        self.means = SlateMeans(tables, spec.signals)
        self.project = nn.Linear((1 + len(spec.signals)) * tables.dim, config.slate_dim)
        width = tables.state_dim + len(CONTEXT) + spec.profile_dim + spec.shown_length * config.slate_dim + tables.dim
        width += 0 if tables.wishes is None else tables.wishes.shape[1]
        layers: list[nn.Module] = []
        for _ in range(config.layers):
            layers += [nn.Linear(width, config.hidden), nn.LayerNorm(config.hidden), nn.Tanh()]
            width = config.hidden
        self.trunk = nn.Sequential(*layers)
        lately = _FADE ** torch.arange(spec.shown_length - 1, -1, -1, dtype=torch.float32)  # (L,)
        self.register_buffer("lately", lately / lately.sum(), persistent=False)
        self.mean_scale = tables.dim**0.5  # entries of the means about as large as those of the state

    @property
    def size(self) -> int:
        """Length of the features."""
        return self.hidden + len(ANCHORS) * self.dim

    def forward(self, observation: Observation) -> Tensor:
        inputs = self.inputs(observation)
        return torch.cat([inputs.anchors.flatten(1), self.trunk_of(inputs)], dim=1)

    @torch.no_grad()
    def inputs(self, observation: Observation) -> FeatureInputs:
        """The part without parameters."""
        state = observation["state"]
        shown, taken = self.means(observation["shown"].long(), observation["answers"])  # (B, L, d), (B, L, S, d)
        picked = self._picked(observation, state)
        rest = [picked * self.mean_scale]
        if self.profile_dim:
            rest.append(F.softsign(observation["profile"]))
        if self.hears:
            rest.append(observation["instruction"])
        consumed, others = taken[:, :, 0], taken[:, :, 1:]
        liked = others.sum(2) / max(others.shape[2], 1)
        lately = [self.lately @ each for each in (shown, consumed, liked)]
        return FeatureInputs(
            user=torch.cat([state, observation["context"]], dim=1),
            slates=torch.cat([shown, taken.flatten(2)], dim=2) * self.mean_scale,
            rest=torch.cat(rest, dim=1),
            anchors=torch.stack([shown[:, -1], *lately[:2], picked, lately[2]], dim=1),
        )

    def trunk_of(self, inputs: FeatureInputs) -> Tensor:
        """The part with parameters: (B, hidden)."""
        slates = torch.tanh(self.project(inputs.slates)).flatten(1)
        trunk: Tensor = self.trunk(torch.cat([inputs.user, slates, inputs.rest], dim=1))
        return trunk

    @staticmethod
    def split(features: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Features -> trunk (B, hidden) and anchors (B, 5, d)."""
        anchors = features[:, : len(ANCHORS) * dim].view(-1, len(ANCHORS), dim)
        return features[:, len(ANCHORS) * dim :], anchors

    def _picked(self, observation: Observation, state: Tensor) -> Tensor:
        if "picked" not in observation:
            return state.new_zeros(len(state), self.dim)
        picked = observation["picked"].long().unsqueeze(1)  # (B, 1, K)
        mean: Tensor = self.means(picked, state.new_zeros(*picked.shape, len(self.means.scales)))[0][:, 0]
        return mean
