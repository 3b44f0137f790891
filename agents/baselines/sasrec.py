"""SASRec: self-attention over what a user consumed, trained to name the next item."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.facts import Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World

_FEWEST_PASSES, _MOST_ITEMS = 3, 4_000_000
"""What bounds training by default on a large log."""


@dataclass(frozen=True)
class SASRecConfig:
    """Sizes of the network and how it is trained.

    Args:
        length: how many of a user's newest items it reads.
        dim: d, length of an item's embedding.
        blocks: attention blocks.
        heads: attention heads; divides `dim`.
        dropout: share of activations dropped in training, in [0, 1).
        epochs: passes over the train users; the learning rate falls to zero over them.
        patience: passes without a better held-out loss before training stops.
        batch_items: items a gradient step, about.
        learning_rate: of Adam at its highest.
        weight_decay: of AdamW, on the weights of the blocks alone.
        held_out: share of the train users whose last item is held out to stop by.
        seconds: stop after this time; None for no limit. A run cut by time is not repeatable to the bit.
    """

    length: int = 50
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    epochs: int = 20
    patience: int = 4
    batch_items: int = 2048
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    held_out: float = 0.2
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("length", "dim", "blocks", "heads", "epochs", "patience", "batch_items"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of SASRec must be at least 1")
        if self.dim % self.heads:
            raise PolicyError(f"dim={self.dim} of SASRec is no multiple of heads={self.heads}")
        for name in ("dropout", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of SASRec must lie in [0, 1)")


class SASRec(nn.Module):
    """Next-item scores from the items before (Kang and McAuley 2018).

    Differences: trained by cross-entropy over the whole catalogue instead of one sampled negative; layer norm before
    each block and GELU; a start token, so that an empty history has scores too; an item bias, starting at the
    log of the counts; no dropout inside attention; long users are cut into windows at random places, so that all they
    consumed is learned from.

    Args:
        catalogue_size: N.
        config: sizes.
        seed: of the starting weights; no global generator is touched.
    """

    def __init__(self, catalogue_size: int, config: SASRecConfig, seed: int = 0) -> None:
        super().__init__()
        self.catalogue_size = catalogue_size
        self.config = config
        d = config.dim
        generator = torch.Generator().manual_seed(seed)
        self.items = _normal((catalogue_size + 1, d), generator)  # row N starts every sequence
        self.places = _normal((config.length + 1, d), generator)
        self.bias = nn.Parameter(torch.zeros(catalogue_size))
        self.blocks = nn.ModuleList(_Block(config, generator) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(d)

    def forward(self, items: Tensor, noise: torch.Generator | None = None) -> Tensor:
        """What follows each place: items int64 (B, T), empty places N at the end, T <= length -> (B, T+1, d).

        Place 0 has seen nothing, place t the first t items. `noise` draws the dropout; None is evaluation.
        """
        started = F.pad(items, (1, 0), value=self.catalogue_size)
        x = F.embedding(started, self.items) * math.sqrt(self.config.dim) + self.places[: started.shape[1]]
        x = dropped(x, self.config.dropout, noise)
        for block in self.blocks:
            x = block(x, noise)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., N)."""
        return hidden @ self.items[:-1].T + self.bias

    def scores(self, history: Tensor) -> Tensor:
        """Scores of the next item: histories int64 (B, H), newest last, N empty -> (B, N)."""
        history = history[:, -self.config.length :]
        held = history < self.catalogue_size
        count = held.sum(1)
        order = torch.sort(held.long(), dim=1, descending=True, stable=True).indices  # items first, in order
        hidden = self.forward(history.gather(1, order)[:, : max(int(count.max()), 1)])
        return self.logits(hidden[torch.arange(len(history), device=history.device), count])


class SASRecPolicy(ScoringPolicy):
    """Shows the k admissible items that SASRec thinks come next.

    Args:
        model: the trained network.
    """

    name = "sasrec"
    kind = "sasrec"
    trains: ClassVar[Trains] = "log"
    config_class: ClassVar[type[SASRecConfig]] = SASRecConfig

    def __init__(self, model: SASRec) -> None:
        self.model = model.eval()

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Train on the sequences of the world's train users.

        `options.steps` are passes over them; default 20, fewer on large logs so that about four million items are
        read in all, some minutes on one core.
        """
        from recloop.agents.baselines.sasrec_training import train_sasrec

        users = world.users.rows("train").numpy()
        passes = max(_FEWEST_PASSES, _MOST_ITEMS // max(int(world.sequences.lengths[users].sum()), 1))
        config = SASRecConfig(
            length=min(SASRecConfig.length, world.users.history.shape[1]), epochs=min(SASRecConfig.epochs, passes)
        )
        return cls(train_sasrec(world.sequences, users, config, options))

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Next-item logits, (B, N)."""
        history = observation["history"]
        return self.model.to(history.device).scores(history)

    def config(self) -> dict[str, Any]:
        """Sizes and training of the network."""
        return asdict(self.model.config)

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights."""
        return dict(self.model.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        model = SASRec(serving.catalogue_size, SASRecConfig(**config))
        model.load_state_dict(dict(tensors))
        return cls(model)


class _Block(nn.Module):
    """Causal self-attention, then two pointwise layers, each behind a layer norm and beside a shortcut."""

    def __init__(self, config: SASRecConfig, generator: torch.Generator) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.before_attention, self.before_layers = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query_key_value = _linear(d, 3 * d, generator)
        self.mix = _linear(d, d, generator)
        self.inner = _linear(d, 2 * d, generator)
        self.outer = _linear(2 * d, d, generator)

    def forward(self, x: Tensor, noise: torch.Generator | None) -> Tensor:
        b, t, d = x.shape
        split = self.query_key_value(self.before_attention(x)).view(b, t, 3, self.heads, d // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, heads, T, d / heads)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + dropped(self.mix(read.transpose(1, 2).reshape(b, t, d)), self.dropout, noise)
        inner = dropped(F.gelu(self.inner(self.before_layers(x))), self.dropout, noise)
        out: Tensor = x + dropped(self.outer(inner), self.dropout, noise)
        return out


def dropped(x: Tensor, share: float, noise: torch.Generator | None) -> Tensor:
    """Dropout that draws from a generator of its own; the identity where `noise` is None."""
    if noise is None or share == 0:
        return x
    keep = torch.rand(x.shape, generator=noise, device=x.device) >= share
    return x * keep * (1 / (1 - share))


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=generator) * 0.02)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer whose weights come from `generator` (Glorot and Bengio 2010, uniform) and whose bias is zero."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = math.sqrt(6 / (inputs + outputs))
    with torch.no_grad():
        layer.weight.copy_((torch.rand(outputs, inputs, generator=generator) * 2 - 1) * bound)
        layer.bias.zero_()
    return layer
