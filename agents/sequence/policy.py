"""Sequence models as policies: SASRec and its kin, by name."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from recloop.agents.facts import Group, Trains
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.registry import make_policy
from recloop.agents.sequence.backbones import linear
from recloop.agents.sequence.config import (
    BERT4RecConfig,
    ESASRecConfig,
    GRU4RecConfig,
    GSASRecConfig,
    HSTUConfig,
    SequenceConfig,
)
from recloop.agents.sequence.content import TextsRead, content_of
from recloop.agents.sequence.model import SequenceModel
from recloop.agents.sequence.teaching import lessons_of
from recloop.agents.sequence.training import sequence_anchor, train_sequence_model
from recloop.agents.serving import Serving
from recloop.agents.transfer.contract import TextAlone
from recloop.encoders.base.anchors import Anchor
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.world.world import World

_FEWEST_PASSES, _MOST_ITEMS = 3, 4_000_000
"""What bounds training by default on a large log."""
_SHAPE = ("backbone", "items", "length", "dim", "blocks", "heads")
"""Settings that say which weights there are."""


class SASRecPolicy(ScoringPolicy, TextAlone):
    """Self-attention over what a user consumed; any backbone, loss and item representation by its settings.

    The paper's differences: trained by the softmax over the whole catalogue instead of one sampled negative (which
    `loss=bce` has), norm before each block and GELU, a start token, an item bias.

    Args:
        model: the trained network.
        read: where its items are their texts alone, by whom these were read.
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

    def __init__(self, model: SequenceModel, read: TextsRead | None = None) -> None:
        self.model, self.read = model.eval(), read

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
        return cls._of(train_sequence_model(world.sequences, users, config, options, content, lessons, cls.name))

    def moved(self, world: World, device: str = "cpu") -> Self:
        """See `TextAlone`; the bias of the items, which was learned of each by itself, stays behind."""
        self._check_text_alone()
        model = SequenceModel(
            len(world.catalogue), self.model.config, content=content_of(world, self.model.config.items, device)
        )
        model.take(self.model)
        model.fold()
        return self._of(model)

    def tuned(self, world: World, options: FitOptions) -> Self:
        """See `TextAlone`; the bias of the items starts at the log of their counts. A teacher is not asked again."""
        self._check_text_alone()
        own = self.model.config
        config, options = options.over(own, self.name, "epochs"), replace(options, steps=None, settings={})
        for name in _SHAPE:
            if getattr(config, name) != getattr(own, name):
                raise PolicyError(
                    f"{name}={getattr(config, name)} does not fit the weights of policy '{self.name}', which have "
                    f"{name}={getattr(own, name)}; leave it out, or train anew"
                )
        users, content = world.users.rows("train").numpy(), content_of(world, config.items, options.device)
        config = replace(config, teacher=None)
        model = train_sequence_model(
            world.sequences, users, config, options, content, name=self.name, start=self.model.cpu()
        )
        return self._of(model)

    def afresh(self, seed: int) -> Self:
        """See `TextAlone`."""
        self._check_text_alone()
        n, width = self.model.catalogue_size, self.model.state_dict()["projections.text.weight"].shape[1]
        model = SequenceModel(n, self.model.config, seed, {"text": torch.zeros(n, width)})
        model.fold()
        return self._of(model)

    @classmethod
    def _of(cls, model: SequenceModel) -> Self:
        return cls(model, TextsRead.of(model.items) if model.config.items == ("text",) else None)

    def _check_text_alone(self) -> None:
        sources = self.model.config.items
        if sources != ("text",):
            raise PolicyError(
                f"policy '{self.name}' knows its items by {', '.join(sources)}, which another world does not share; "
                "train it with --set items=text"
            )
        if self.read is None:
            raise PolicyError(f"policy '{self.name}' is of a recloop that kept no map of its texts; train it anew")
        self.read.check(self.model.items, self.name)

    def continued(self, world: World, options: FitOptions, anchor: Anchor | None = None) -> Self:
        """Trained on; `options.steps` are passes, `options.settings` replace those of how it was trained."""
        users = world.users.rows("train").numpy()
        model = train_sequence_model(
            world.sequences, users, self.model.config, options, name=self.name, start=self.model, anchor=anchor
        )
        policy = type(self)(model, self.read)
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
        """Parts, sizes and training of the network, and by whom its texts were read."""
        return {**asdict(self.model.config), **({} if self.read is None else {"read": asdict(self.read)})}

    def tensors(self) -> dict[str, Tensor]:
        """The network's weights."""
        return dict(self.model.state_dict())

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        facts = dict(config)
        read = facts.pop("read", None)
        settings = SequenceConfig(**{**facts, "items": tuple(facts.get("items", ("ids",)))})
        model = SequenceModel(serving.catalogue_size, settings)
        if read is not None:
            width = tensors["projections.text.weight"].shape[1]
            model.projections["text"] = linear(width, settings.dim, torch.Generator()).requires_grad_(False)
        model.load_state_dict(dict(tensors))
        return cls(model, None if read is None else TextsRead(**read))


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
