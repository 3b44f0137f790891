"""SASRec: self-attention over what a user consumed, trained to name the next item."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.baselines.next_item import without_last
from recloop.agents.facts import Group, Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitLoop, Pass, fit
from recloop.envs.interaction.observation import Observation
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.simulation.core import checked_device
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
    group: ClassVar[Group] = "supervised"
    paper: ClassVar[str] = "Kang and McAuley 2018"
    config_class: ClassVar[type[SASRecConfig]] = SASRecConfig

    def __init__(self, model: SASRec) -> None:
        self.model = model.eval()

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Train on the sequences of the world's train users.

        `options.steps` are passes over them; default 20, fewer on large logs so that about four million items are
        read in all, some minutes on one core.
        """
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


def train_sasrec(
    sequences: Sequences, users: Ints, config: SASRecConfig | None = None, options: FitOptions | None = None
) -> SASRec:
    """Train on the given users; the weights of the pass with the best held-out loss are kept.

    Equal bits for equal arguments, device and threads, unless `config.seconds` cuts the run.

    Args:
        sequences: what the users consumed; of every other user nothing is read.
        users: int64 (U,) whom to learn from.
        config: sizes and training.
        options: seed, device, progress bar and log; `steps` replaces `config.epochs`, `settings` the rest. Logs
            `sasrec/loss`, `sasrec/held_out_loss` (both nats an item) and `sasrec/learning_rate` a pass.

    Raises:
        PolicyError: where the users consumed nothing.
    """
    options = options or FitOptions()
    config = options.over(config or SASRecConfig(), "sasrec", "epochs")
    users = users[sequences.lengths[users] > 0]
    if not len(users):
        raise PolicyError("the train users consumed nothing; SASRec needs at least one sequence")
    rng = np.random.default_rng(options.seed)
    held = _held_out(sequences, users, config.held_out, rng)
    kept = without_last(sequences, held)
    model = SASRec(sequences.catalogue_size, config, options.seed)
    with torch.no_grad():
        counts = torch.from_numpy(kept.popularity(users))
        model.bias.copy_(torch.log((counts + 1) / (counts.sum() + len(counts))))
    model = model.to(checked_device(options.device))
    noise = torch.Generator(model.bias.device).manual_seed(options.seed)

    def loss(items: Tensor) -> tuple[Tensor, float]:
        target = items < model.catalogue_size
        hidden = model(items[:, :-1], noise)
        return F.cross_entropy(model.logits(hidden[target]), items[target]), float(target.sum())

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("sasrec/loss", one.loss, one.number + 1)
            options.log("sasrec/held_out_loss", one.held_out, one.number + 1)
            options.log("sasrec/learning_rate", one.learning_rate, one.number + 1)

    steps_a_pass = max(1, round(float(kept.lengths[users].sum()) / config.batch_items))
    loop = FitLoop(
        passes=config.epochs,
        learning_rate=config.learning_rate,
        betas=(0.9, 0.98),
        schedule="warm-cosine",
        warmup=min(100, 1 + steps_a_pass * config.epochs // 20),
        steps_a_pass=steps_a_pass,
        clip=1.0,
        patience=config.patience,
        seconds=config.seconds,
    )
    decayed = {name for name, weight in model.named_parameters() if name.startswith("blocks") and weight.dim() > 1}
    fit(
        model,
        loop,
        lambda: _batches(model, kept, users, rng),
        loss,
        (lambda: _held_out_loss(model, sequences, held)) if len(held) else None,
        groups=[
            {"params": [w for n, w in model.named_parameters() if n in decayed], "weight_decay": config.weight_decay},
            {"params": [w for n, w in model.named_parameters() if n not in decayed], "weight_decay": 0.0},
        ],
        log=log,
        name="sasrec",
        progress=options.progress,
        error=PolicyError,
    )
    return model.eval()


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


def _batches(model: SASRec, kept: Sequences, users: Ints, rng: np.random.Generator) -> Iterator[Tensor]:
    """Windows of all users in a new order, of like length together: int64 (B, T), empty places N at the end."""
    owner, first, size = _windows(kept.lengths[users], model.config.length, rng)
    order = np.lexsort((rng.random(len(size)), size))
    ends = np.cumsum(size[order]) // model.config.batch_items
    groups = np.split(order, np.flatnonzero(np.diff(ends)) + 1)
    for place in rng.permutation(len(groups)):
        group = groups[place]
        width = int(size[group].max())
        starts = kept.offsets[users[owner[group]]] + first[group]
        steps = np.arange(width)
        held = steps < size[group][:, None]
        rows = np.where(held, starts[:, None] + steps, 0)
        items = np.where(held, kept.items[rows], kept.catalogue_size)
        yield torch.from_numpy(items).to(model.bias.device)


def _held_out_loss(model: SASRec, sequences: Sequences, held: Ints) -> float:
    """Mean nats of the held-out last items."""
    total, device = 0.0, model.bias.device
    for chunk in np.array_split(held, -(-len(held) // 256)):
        ends = sequences.lengths[chunk] - 1
        history, _ = sequences.last(chunk, model.config.length, ends)
        target = torch.from_numpy(sequences.items[sequences.offsets[chunk] + ends]).to(device)
        total += float(F.cross_entropy(model.scores(history.to(device)), target, reduction="sum"))
    return total / len(held)


def _held_out(sequences: Sequences, users: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Users whose last item is held out: a share of those with three items or more, rising."""
    able = users[sequences.lengths[users] >= 3]
    chosen: Ints = np.sort(rng.permutation(able)[: round(share * len(able))])
    return chosen


def _windows(lengths: Ints, length: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Cut sequences into windows of at most `length` at random places, each item in exactly one.

    Returns int64 (W,): the owner's place in `lengths`, the first item, and the number of items.
    """
    newest = np.minimum(rng.integers(1, length + 1, len(lengths)), lengths)
    newest = np.where(lengths <= length, lengths, newest)
    more = -(-(lengths - newest) // length)  # windows before the newest one
    owner = np.repeat(np.arange(len(lengths)), more + 1)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(more + 1) - (more + 1), more + 1)  # 0 is the newest
    end = lengths[owner] - np.where(number == 0, 0, newest[owner] + (number - 1) * length)
    size = np.where(number == 0, newest[owner], np.minimum(length, end))
    return owner, end - size, size
