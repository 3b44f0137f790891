"""`lm-ranker`: the items whose texts lie nearest to the text of what a user did, by a fine-tuned language model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.language.bases import Base
from recloop.agents.language.candidates import CandidateSource
from recloop.agents.language.examples import Moment, NextItems, check_texts
from recloop.agents.language.fitting import fine_tune, pretrain
from recloop.agents.language.policy import LanguagePolicy, ready, trained
from recloop.agents.language.tokens import Tokens
from recloop.agents.language.towers import TowerTexts, TwoTowers, history_vectors, item_table
from recloop.agents.language.tuning import TuningConfig, bring_back
from recloop.agents.policy import FitOptions
from recloop.agents.settings import with_settings
from recloop.agents.transfer.contract import TextAlone
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.state.next_item import popularity_of_unseen
from recloop.encoders.text.encoder import Pooling
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.tables import Catalogue
from recloop.envs.world.world import World

_HELD_OUT = 128
"""Held-out users that a validation asks."""


@dataclass(frozen=True)
class RankerConfig:
    """What the two towers read and how they are tuned.

    Args:
        model: `all-MiniLM-L6-v2`, a folder, or a name on the hub; encoders and decoders alike.
        pooling: of a text's tokens: `mean`, `cls` (encoders) or `last` (decoders).
        item_text: what stands for an item: its whole `text`, or its `title` alone.
        window: newest items of a history that are told.
        title_tokens: of a title in a history that are read.
        max_tokens: of a history; where it does not fit, its oldest items go, and it is counted.
        item_tokens: of an item's text.
        history_prefix, item_prefix: in front of every text, where a model was trained with one (`query:`).
        temperature: that cosines are divided by, at first.
        tuning: how the language model is fine-tuned.
    """

    model: str = DEFAULT_MODEL
    pooling: Pooling = "mean"
    item_text: Literal["text", "title"] = "text"
    window: int = 10
    title_tokens: int = 16
    max_tokens: int = 112
    item_tokens: int = 24
    history_prefix: str = ""
    item_prefix: str = ""
    temperature: float = 0.05
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        for name in ("window", "title_tokens", "max_tokens", "item_tokens"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of lm-ranker must be at least 1")
        if not self.temperature > 0:
            raise PolicyError(f"temperature={self.temperature} of lm-ranker must be above 0")


class LanguageRanker(LanguagePolicy[RankerConfig, TwoTowers, TowerTexts], TextAlone):
    """Shows the k admissible items with the best score: cosine of history and item, over a temperature, plus a bias.

    Trained on moments of the train users by a softmax over the batch's own items, each logit less the log of how often
    its item is met there (Yi et al. 2019). The bias is the log of the item's count times a learned weight; an item that
    nobody consumed has the count that its vector promises. The catalogue is encoded once; a history is read again
    only when it has changed. `tensors` holds `items` (N, d), `popularity` (N,) and `histories` (d, d), the map on top
    of the language model.

    Attributes:
        network: that map, which learners may tune further.
    """

    name = "lm-ranker"
    kind = "lm-ranker"
    paper: ClassVar[str] = "Karpukhin et al. 2020"
    own: ClassVar[tuple[str, ...]] = ("items", "popularity", "histories")
    reads: ClassVar[tuple[str, ...]] = ("history",)
    config_class: ClassVar[type[RankerConfig]] = RankerConfig

    def __init__(
        self,
        config: RankerConfig,
        base: Base,
        catalogue: Catalogue,
        tensors: Mapping[str, Tensor],
        source: CandidateSource | None = None,
        made: tuple[TwoTowers, TowerTexts] | None = None,
    ) -> None:
        super().__init__(config, base, catalogue, tensors, source, made)
        dim = self.kept["items"].shape[1]
        self.network = nn.Linear(dim, dim, bias=False, device="meta").to_empty(device="cpu")
        self.network.weight.data.copy_(self.kept["histories"].T)

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Fine-tune on the world's train users; `options.steps` are steps of the optimiser."""
        config, base = cls._asked(options)
        return cls._fitted(world, options, config, base, {})

    @classmethod
    def _fitted(
        cls, world: World, options: FitOptions, config: RankerConfig, base: Base, start: Mapping[str, Tensor]
    ) -> Self:
        """Fine-tuned on a world's train users from what was trained before, if anything."""
        tuning, device = config.tuning, checked_device(options.device)
        check_texts(_told(config, world.catalogue), world.name)
        towers, texts = cls._opened(config, base, world.catalogue, {}, device, options.seed)
        if start:
            bring_back(towers, start)
        counts = world.catalogue.popularity
        if tuning.trains:
            rng = np.random.default_rng([options.seed, 0x1A])
            moments = NextItems(world, config.window, tuning.held_out, rng, tuning.labelled)
            _train(towers, texts, moments, tuning, options)
            counts = counts if tuning.labelled == 1 else moments.counts.to(counts.dtype)
        tuned = trained(towers, tuning)
        items = item_table(towers, texts, len(world.catalogue), device)
        popularity = popularity_of_unseen(items, _log_shares(counts), counts) * float(towers.popularity_weight)
        acting = {"items": items, "popularity": popularity, "histories": towers.of_history.detach().cpu()}
        return cls(config, base, world.catalogue, {**tuned, **acting}, made=(towers, texts))

    def moved(self, world: World, device: str = "cpu") -> Self:
        """See `TextAlone`; the items' bias, which counted them, stays behind."""
        place, catalogue = checked_device(device), world.catalogue
        check_texts(_told(self.settings, catalogue), world.name)
        towers, texts = self._opened(self.settings, self.base, catalogue, {}, place, 0)
        bring_back(towers, self._tuned)
        ready(towers, self.settings.tuning)
        items = item_table(towers, texts, len(catalogue), place)
        histories = self.network.weight.detach().cpu().T.contiguous()
        acting = {"items": items, "popularity": torch.zeros(len(catalogue)), "histories": histories}
        return type(self)(self.settings, self.base, catalogue, {**self._tuned, **acting}, made=(towers, texts))

    def tuned(self, world: World, options: FitOptions) -> Self:
        """See `TextAlone`; `options.steps` are steps of the optimiser."""
        config = self.settings
        if options.steps is not None:
            config = replace(config, tuning=replace(config.tuning, steps=options.steps))
        config = with_settings(config, options.settings, self.name)
        if config.model != self.settings.model or config.tuning.method != self.settings.tuning.method:
            raise PolicyError(
                f"policy '{self.name}' was tuned by {self.settings.tuning.method} on the language model "
                f"'{self.settings.model}', and the settings say {config.tuning.method} on '{config.model}'; leave "
                "these out, or train anew"
            )
        return self._fitted(world, options, config, self.base, self._tuned)

    def afresh(self, seed: int) -> Self:
        """See `TextAlone`: the language model as it came, with the starting weights of what is tuned of it."""
        towers, _ = self._opened(self.settings, self.base, self._catalogue, {}, checked_device("cpu"), seed)
        start, identity = trained(towers, self.settings.tuning), torch.eye(self.kept["items"].shape[1])
        return type(self)(self.settings, self.base, self._catalogue, {**start, **self.kept, "histories": identity})

    def logits(self, observation: Observation) -> Tensor:
        """Logits of the next item (B, N), differentiable in the map on top of the language model."""
        history = observation["history"]
        towers, texts = self._loaded(history.device)
        newest = texts.history.newest(history)
        said = self._recent.rows(newest, lambda places: history_vectors(towers, texts, newest[places]))
        vectors = F.normalize(self.network.to(history.device)(said), dim=1) / towers.log_temperature.exp()
        return vectors @ self.kept["items"].to(history.device).T + self.kept["popularity"].to(history.device)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Logits of the next item, (B, N)."""
        return self.logits(observation)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a map of its own; the language model and what it has read are shared."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network, memo)
        return twin

    def tensors(self) -> dict[str, Tensor]:
        """What acting reads, and what was trained; the language model itself stays where it is."""
        return {**super().tensors(), "histories": self.network.weight.detach().cpu().T.contiguous()}

    @classmethod
    def _model(
        cls,
        config: RankerConfig,
        model: Any,
        tokenizer: Any,
        catalogue: Catalogue,
        kept: Mapping[str, Tensor],
        language: Any,
    ) -> tuple[TwoTowers, TowerTexts]:
        texts = TowerTexts(
            tokenizer, model, catalogue.titles, _told(config, catalogue), config.window, config.title_tokens,
            config.max_tokens, config.item_tokens, config.history_prefix, config.item_prefix,
        )  # fmt: skip
        dim = int(model.config.hidden_size)
        return TwoTowers(language, dim, config.pooling, config.temperature, config.tuning.trains), texts


def _told(config: RankerConfig, catalogue: Catalogue) -> Sequence[str]:
    return catalogue.texts if config.item_text == "text" else catalogue.titles


def _log_shares(counts: Tensor) -> Tensor:
    return ((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).log()


def _train(towers: TwoTowers, texts: TowerTexts, moments: NextItems, tuning: TuningConfig, options: FitOptions) -> None:
    shares = _log_shares(moments.counts).to(towers.of_item.device)
    held, device = moments.last(_HELD_OUT), shares.device

    def told(count: int) -> Tokens:
        """Histories and items, as many of each over time."""
        drawn = moments.draw(count, everybody=True)
        if moments.rng.random() < 0.5:
            return texts.of_items(drawn.target.to(device))
        return texts.of_histories(texts.history.newest(drawn.history.to(device)))

    if tuning.pretraining:
        pretrain(towers.language, texts.words, tuning, told, options)
    fine_tune(
        towers,
        tuning,
        lambda count: moments.batches(count, tuning.batch),
        lambda batch: _loss(towers, texts, batch, shares),
        (lambda: float(_loss(towers, texts, held, shares))) if len(held.users) > 1 else None,
        options,
        "lm-ranker",
    )


def _loss(towers: TwoTowers, texts: TowerTexts, batch: Moment, shares: Tensor) -> Tensor:
    """Cross-entropy of each next item among those of the batch that the user had not lately consumed."""
    device = shares.device
    newest, target = texts.history.newest(batch.history.to(device)), batch.target.to(device)
    histories = towers.histories(texts.of_histories(newest))  # (B, d)
    logits = histories @ towers.items(texts.of_items(target)).T  # (B, B)
    logits = logits + (towers.popularity_weight - 1) * shares[target]  # the bias, less the log of the odds to be here
    own = torch.eye(len(target), dtype=torch.bool, device=device)
    known = (newest.unsqueeze(2) == target).any(1) | (target[:, None] == target)
    return F.cross_entropy(logits.masked_fill(known & ~own, -torch.inf), torch.arange(len(target), device=device))
