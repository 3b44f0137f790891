"""Sequence models as policies: SASRec and its kin, by name."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recloop.agents.facts import Group, Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.registry import make_policy
from recloop.agents.sequence.config import (
    BERT4RecConfig,
    ESASRecConfig,
    GRU4RecConfig,
    GSASRecConfig,
    HSTUConfig,
    SequenceConfig,
)
from recloop.agents.sequence.content import content_of
from recloop.agents.sequence.model import SequenceModel
from recloop.agents.sequence.teaching import lessons_of
from recloop.agents.sequence.training import sequence_anchor, train_sequence_model
from recloop.agents.serving import Serving
from recloop.encoders.base.anchors import Anchor
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World

_FEWEST_PASSES, _MOST_ITEMS = 3, 4_000_000
"""What bounds training by default on a large log."""


class SASRecPolicy(ScoringPolicy):
    """Self-attention over what a user consumed; any backbone, loss and item representation by its settings.

    The paper's differences: trained by the softmax over the whole catalogue instead of one sampled negative (which
    `loss=bce` has), norm before each block and GELU, a start token, an item bias.

    Args:
        model: the trained network.
    """

    name = "sasrec"
    kind = "sasrec"
    group: ClassVar[Group] = "supervised"
    paper: ClassVar[str] = "Kang and McAuley 2018"
    trains: ClassVar[Trains] = "log"
    resumable: ClassVar[bool] = True
    continues: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("history",)
    config_class: ClassVar[type[SequenceConfig]] = SequenceConfig

    def __init__(self, model: SequenceModel) -> None:
        self.model = model.eval()

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Train on the sequences of the world's train users.

        `options.steps` are passes over them; fewer than the config's by default on large logs, so that about four
        million items are read in all, some minutes on one core.
        """
        users = world.users.rows("train").numpy()
        passes = max(_FEWEST_PASSES, _MOST_ITEMS // max(int(world.sequences.lengths[users].sum()), 1))
        config = cls.config_class()
        config = replace(
            config, length=min(config.length, world.users.history.shape[1]), epochs=min(config.epochs, passes)
        )
        config, options = options.over(config, cls.name, "epochs"), replace(options, steps=None, settings={})
        content = content_of(world, config.items, options.device)
        lessons = None
        if config.teacher is not None:
            teacher = make_policy(config.teacher, world, FitOptions(options.seed, device=options.device))
            lessons = lessons_of(teacher, world, users, config.length, config.lessons, seed=options.seed)
        return cls(train_sequence_model(world.sequences, users, config, options, content, lessons, cls.name))

    def continued(self, world: World, options: FitOptions, anchor: Anchor | None = None) -> Self:
        """Trained on; `options.steps` are passes, `options.settings` replace those of how it was trained."""
        users = world.users.rows("train").numpy()
        model = train_sequence_model(
            world.sequences, users, self.model.config, options, name=self.name, start=self.model, anchor=anchor
        )
        policy = type(self)(model)
        policy.name, policy.serving = self.name, Serving.of(world)
        return policy

    def anchored(self, world: World, strength: float) -> Anchor:
        """By the likelihood of every train user's newest items, a softmax over the catalogue whatever `loss` says."""
        return sequence_anchor(self.model, world.sequences, world.users.rows("train").numpy(), strength)

    @property
    def network(self) -> nn.Module:
        """The model."""
        return self.model

    def logits(self, observation: Observation) -> Tensor:
        """Next-item logits (B, N), differentiable."""
        history = observation["history"]
        return self.model.to(history.device).scores(history)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Next-item logits, (B, N)."""
        return self.logits(observation)

    def config(self) -> dict[str, Any]:
        """Parts, sizes and training of the network."""
        return asdict(self.model.config)

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights."""
        return dict(self.model.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        settings = SequenceConfig(**{**config, "items": tuple(config.get("items", ("ids",)))})
        model = SequenceModel(serving.catalogue_size, settings)
        model.load_state_dict(dict(tensors))
        return cls(model)


class GRU4RecPolicy(SASRecPolicy):
    """A GRU over what a user consumed, trained by the whole softmax."""

    name = "gru4rec"
    kind = "gru4rec"
    paper: ClassVar[str] = "Hidasi et al. 2016"
    config_class: ClassVar[type[SequenceConfig]] = GRU4RecConfig


class GSASRecPolicy(SASRecPolicy):
    """SASRec with many negatives and calibrated cross-entropy."""

    name = "gsasrec"
    kind = "gsasrec"
    paper: ClassVar[str] = "Petrov and Macdonald 2023"
    config_class: ClassVar[type[SequenceConfig]] = GSASRecConfig


class ESASRecPolicy(SASRecPolicy):
    """SASRec with LiGR's gated layers and sampled softmax."""

    name = "esasrec"
    kind = "esasrec"
    paper: ClassVar[str] = "Tikhonovich et al. 2025"
    config_class: ClassVar[type[SequenceConfig]] = ESASRecConfig


class BERT4RecPolicy(SASRecPolicy):
    """Attention in both directions, trained to name masked items."""

    name = "bert4rec"
    kind = "bert4rec"
    paper: ClassVar[str] = "Sun et al. 2019"
    config_class: ClassVar[type[SequenceConfig]] = BERT4RecConfig


class HSTUPolicy(SASRecPolicy):
    """Pointwise gated attention, trained by sampled softmax."""

    name = "hstu"
    kind = "hstu"
    paper: ClassVar[str] = "Zhai et al. 2024"
    config_class: ClassVar[type[SequenceConfig]] = HSTUConfig
