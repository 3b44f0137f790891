"""R_pred = DNN(V_fused): a deep net on the world's state that names the next item."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.facts import Group, Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.fit import FitLoop, Pass, fit, shuffled
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World


@dataclass(frozen=True)
class DNNConfig:
    """Sizes of the net and how it is fitted.

    Args:
        hidden: units of each of its two hidden layers.
        epochs: passes over the train users.
        batch_users: users a gradient step.
        window: newest items of a user that are learned from.
        learning_rate: of AdamW, falling to zero by a cosine.
        held_out: share of the train users whose loss says which pass was the best.
    """

    hidden: int = 128
    epochs: int = 10
    batch_users: int = 64
    window: int = 100
    learning_rate: float = 2e-3
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batch_users", "window"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of the dnn must be at least 1")


class DNN(nn.Module):
    """Scores of all items from the state vector (Covington, Adams and Sargin 2016).

    Differences: the input is the state encoder's frozen vector, and beside its own score stands the encoder's, so that
    a fresh net ranks as the encoder does; a full softmax instead of a sampled one; items are scored by
    the encoder's item vectors plus a learned correction.

    Args:
        items: float32 (N+1, d) item vectors as the encoder's scores read them; row N is zero.
        popularity: float32 (N,) the part of those scores that no user explains.
        hidden: units of a hidden layer.
        seed: of the starting weights; no global generator is touched.
    """

    items: Tensor

    def __init__(self, items: Tensor, popularity: Tensor, hidden: int, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("items", items.clone())
        self.correction = nn.Parameter(torch.zeros_like(items[:-1]))
        self.popularity = nn.Parameter(popularity.clone())
        d, generator = items.shape[1], torch.Generator().manual_seed(seed)
        self.inner = _linear(d, hidden, generator)
        self.outer = _linear(hidden, hidden, generator)
        self.wanted = _linear(hidden, d, generator)
        with torch.no_grad():
            self.wanted.weight.zero_()

    def forward(self, state: Tensor) -> Tensor:
        """State vectors (..., d) -> scores (..., N)."""
        hidden = F.gelu(self.outer(F.gelu(self.inner(state))))
        wanted: Tensor = state + self.wanted(hidden)
        return wanted @ (self.items[:-1] + self.correction).T + self.popularity


class DNNPolicy(ScoringPolicy):
    """Shows the k admissible items that a deep net on `observation["state"]` ranks first.

    Args:
        net: fitted.
        config: how.
    """

    name = "dnn"
    kind = "dnn"
    group: ClassVar[Group] = "supervised"
    paper: ClassVar[str] = "Covington et al. 2016"
    trains: ClassVar[Trains] = "log"
    config_class: ClassVar[type[DNNConfig]] = DNNConfig

    def __init__(self, net: DNN, config: DNNConfig) -> None:
        self.net, self.settings = net.eval(), config

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Learn the next item of the world's train users from the states before; `options.steps` are passes."""
        config = options.over(DNNConfig(), cls.name, "epochs")
        encoder = world.state_encoder
        device = torch.device(options.device)
        net = DNN(encoder.out_items.cpu(), encoder.popularity.cpu(), config.hidden, options.seed).to(device)
        _fit(net, world, config, options)
        return cls(net.cpu(), config)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Next-item scores, (B, N)."""
        state = observation["state"]
        scores: Tensor = self.net.to(state.device)(state)
        return scores

    def config(self) -> dict[str, Any]:
        """How it was fitted."""
        return asdict(self.settings)

    def tensors(self) -> dict[str, Tensor]:
        """The net's weights and item vectors."""
        return dict(self.net.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        settings = DNNConfig(**config)
        net = DNN(tensors["items"], tensors["popularity"], settings.hidden)
        net.load_state_dict(dict(tensors))
        return cls(net, settings)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer whose weights come from `generator`, uniform by fan-in, and whose bias is zero."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.copy_((torch.rand(outputs, inputs, generator=generator) * 2 - 1) * bound)
        layer.bias.zero_()
    return layer


def _fit(net: DNN, world: World, config: DNNConfig, options: FitOptions) -> None:
    """Fit on all train users but some; the weights of the pass that predicts those best are kept."""
    generator = torch.Generator().manual_seed(options.seed)
    users = world.users.rows("train")
    users = users[torch.from_numpy(world.sequences.lengths)[users] >= 2]
    if not len(users):
        raise PolicyError(
            f"no train user of world '{world.name}' consumed two items; the dnn has no next item to learn"
        )
    users = users[torch.randperm(len(users), generator=generator)]
    held_out = users[: int(len(users) * config.held_out)]
    train = users[len(held_out) :]
    loop = FitLoop(
        passes=config.epochs,
        learning_rate=config.learning_rate,
        schedule="cosine",
        steps_a_pass=-(-len(train) // config.batch_users),
        summed=True,
    )

    def held_out_loss() -> float:
        parts = [_loss(net, world, batch, config) for batch in torch.split(held_out, config.batch_users)]
        return sum(float(loss) for loss, _ in parts) / max(sum(count for _, count in parts), 1)

    def log(one: Pass) -> None:
        if options.log is not None:
            options.log("train/loss", one.loss, one.number)
            options.log("validation/loss", one.held_out, one.number)

    fit(
        net,
        loop,
        lambda: (train[rows] for rows in shuffled(len(train), config.batch_users, generator)),
        lambda batch: _loss(net, world, batch, config),
        held_out_loss if len(held_out) else None,
        log=log,
        name="dnn",
        progress=options.progress,
        error=PolicyError,
    )


def _loss(net: DNN, world: World, users: Tensor, config: DNNConfig) -> tuple[Tensor, int]:
    """Summed negative log-likelihood of each next item of some users, and how many there are."""
    encoder, device = world.state_encoder, net.items.device
    history, feedback = world.sequences.last(users.numpy(), config.window)
    where = encoder.item_vectors.device
    with torch.no_grad():
        states, held = encoder.trajectory(*(t.to(where) for t in (world.users.profile[users], history, feedback)))
    target = torch.sort((history < net.items.shape[0] - 1).long(), dim=1, descending=True, stable=True).indices
    target = history.gather(1, target)[:, 1:].to(device)  # items first, as the states come
    asked = held[:, 1:].to(device)
    scores = net(states[:, :-1].to(device)[asked])
    return F.cross_entropy(scores, target[asked], reduction="sum"), int(asked.sum())
