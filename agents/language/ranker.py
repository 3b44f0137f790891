"""`lm-ranker`: the items whose texts lie nearest to the text of what a user did, by a fine-tuned language model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.facts import Group, Trains
from recloop.agents.language.bases import TRAINED_TIMES, Base
from recloop.agents.language.examples import Moment, NextItems, check_texts
from recloop.agents.language.fitting import fine_tune
from recloop.agents.language.recent import Recent
from recloop.agents.language.towers import TowerTexts, TwoTowers, history_vectors, item_table
from recloop.agents.language.tuning import TuningConfig, bring_back, changed, merged, opened
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.agents.settings import with_settings
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.state.next_item import popularity_of_unseen
from recloop.encoders.text.encoder import Pooling
from recloop.encoders.text.models import DEFAULT_MODEL
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.tables import Catalogue
from recloop.envs.world.world import World

_ACTING = ("items", "popularity", "histories")
"""Tensors that acting reads, beside those of the language model."""
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


class LanguageRanker(ScoringPolicy):
    """Shows the k admissible items with the best score: cosine of history and item, over a temperature, plus a bias.

    Trained on moments of the train users by a softmax over the batch's own items, each logit less the log of how often
    its item is met there (Yi et al. 2019). The bias is the log of the item's count times a learned weight; an item that
    nobody consumed has the count that its vector promises. The catalogue is encoded once; a history is read again
    only when it has changed.

    Args:
        config: how it was made.
        base: the language model.
        catalogue: the items.
        tensors: `items` (N, d), `popularity` (N,), `histories` (d, d) the map on top of the language model, and what
            was trained of the model.
        made: the towers and texts where they are there; else they are loaded at the first history.
    """

    name = "lm-ranker"
    kind = "lm-ranker"
    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "lm"
    paper: ClassVar[str] = "Karpukhin et al. 2020"
    extras: ClassVar[tuple[str, ...]] = ("text",)
    reads: ClassVar[tuple[str, ...]] = ("history",)
    config_class: ClassVar[type[RankerConfig]] = RankerConfig

    def __init__(
        self,
        config: RankerConfig,
        base: Base,
        catalogue: Catalogue,
        tensors: Mapping[str, Tensor],
        made: tuple[TwoTowers, TowerTexts] | None = None,
    ) -> None:
        self.settings, self.base, self._catalogue = config, base, catalogue
        self.items, self.popularity = tensors["items"], tensors["popularity"]
        dim = self.items.shape[1]
        self.network = nn.Linear(dim, dim, bias=False, device="meta").to_empty(device="cpu")
        self.network.weight.data.copy_(tensors["histories"].T)
        self._tuned = {name: value for name, value in tensors.items() if name not in _ACTING}
        self._made = made
        self._recent = Recent()

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Fine-tune on the world's train users; `options.steps` are steps of the optimiser."""
        config = RankerConfig()
        if options.steps is not None:
            config = replace(config, tuning=replace(config.tuning, steps=options.steps))
        config = with_settings(config, options.settings, cls.name)
        device = checked_device(options.device)
        told = world.catalogue.texts if config.item_text == "text" else world.catalogue.titles
        check_texts(told, world.name)
        base = Base.of(config.model)
        times = TRAINED_TIMES if config.tuning.method == "all" else 0.0
        base.check_memory(device, config.tuning.bits, times)
        towers, texts = _towers(base, config, world.catalogue, device, options.seed)
        counts = world.catalogue.popularity
        if config.tuning.trains:
            rng = np.random.default_rng([options.seed, 0x1A])
            moments = NextItems(world, max(config.window, 1), config.tuning.held_out, rng)
            _train(towers, texts, moments, config, options)
        tuned = {name: value.clone().cpu() for name, value in changed(towers).items()}
        _ready(towers, config)
        table = item_table(towers, texts, len(world.catalogue), device)
        popularity = popularity_of_unseen(table, _log_shares(counts), counts)
        popularity = popularity * float(towers.popularity_weight)
        acting = {"items": table, "popularity": popularity, "histories": towers.of_history.detach().cpu()}
        return cls(config, base, world.catalogue, {**tuned, **acting}, (towers, texts))

    def logits(self, observation: Observation) -> Tensor:
        """Logits of the next item (B, N), differentiable in the map on top of the language model."""
        history = observation["history"]
        towers, texts = self._loaded(history.device)
        newest = texts.history.newest(history)
        said = self._recent.rows(newest, lambda places: history_vectors(towers, texts, newest[places]))
        vectors = F.normalize(self.network.to(history.device)(said), dim=1) / towers.log_temperature.exp()
        return vectors @ self.items.to(history.device).T + self.popularity.to(history.device)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Logits of the next item, (B, N)."""
        return self.logits(observation)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a map of its own; the language model and what it has read are shared."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network, memo)
        return twin

    def _loaded(self, device: torch.device) -> tuple[TwoTowers, TowerTexts]:
        if self._made is None:
            self.base.check_memory(device, self.settings.tuning.bits)
            towers, texts = _towers(self.base, self.settings, self._catalogue, device, 0)
            bring_back(towers, self._tuned)
            _ready(towers, self.settings)
            self._made = towers, texts
        self._made[0].to(device)
        return self._made

    @property
    def parameter_counts(self) -> tuple[int, int]:
        """Numbers that are trained, and all there are."""
        trained = sum(value.numel() for value in self._tuned.values())
        total = sum(weight.numel() for weight in self._loaded(torch.device("cpu"))[0].parameters())
        return trained, total

    def config(self) -> dict[str, Any]:
        """The settings, and which model and catalogue they were made for."""
        return {
            **asdict(self.settings),
            "base": self.base.fingerprint,
            "catalogue": digest_of_value([list(self._catalogue.ids), list(self._catalogue.texts)]),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What acting reads, and what was trained; the language model itself stays where it is."""
        histories = self.network.weight.detach().T.contiguous()
        return {**self._tuned, "items": self.items, "popularity": self.popularity, "histories": histories}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; the language model is loaded when it is first asked.

        Raises:
            PolicyError: it was fine-tuned on another model, or made for another catalogue.
        """
        facts = dict(config)
        fingerprint, catalogue = facts.pop("base"), serving.world.catalogue
        check_catalogue(facts.pop("catalogue"), catalogue)
        settings = RankerConfig(**{**facts, "tuning": TuningConfig(**facts["tuning"])})
        base = Base.of(settings.model)
        base.check_is(fingerprint)
        return cls(settings, base, catalogue, tensors)


def check_catalogue(digest: str, catalogue: Catalogue) -> None:
    """`PolicyError` where a policy was made for other items than these."""
    if digest != digest_of_value([list(catalogue.ids), list(catalogue.texts)]):
        raise PolicyError(
            f"the policy was made for another catalogue than these {len(catalogue)} items; train it anew in this world"
        )


def _towers(
    base: Base, config: RankerConfig, catalogue: Catalogue, device: torch.device, seed: int
) -> tuple[TwoTowers, TowerTexts]:
    model, tokenizer = base.load(device, config.tuning.bits)
    told = catalogue.texts if config.item_text == "text" else catalogue.titles
    texts = TowerTexts(
        tokenizer, model, catalogue.titles, told, config.window, config.title_tokens, config.max_tokens,
        config.item_tokens, config.history_prefix, config.item_prefix,
    )  # fmt: skip
    dim = int(model.config.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language = opened(model, config.tuning)
    towers = TwoTowers(language, dim, config.pooling, config.temperature, config.tuning.trains)
    return towers.to(device).eval(), texts


def _ready(towers: TwoTowers, config: RankerConfig) -> None:
    """For acting: nothing is trained, and adapters cost nothing."""
    if config.tuning.bits == 32 and config.tuning.method in ("lora", "adalora", "ia3"):
        merged(towers)
    towers.requires_grad_(False).eval()


def _log_shares(counts: Tensor) -> Tensor:
    return ((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).log()


def _train(towers: TwoTowers, texts: TowerTexts, moments: NextItems, config: RankerConfig, options: FitOptions) -> None:
    device = towers.of_item.device
    shares = _log_shares(moments.counts).to(device)
    held_out = partial(_loss, towers, texts, moments.last(_HELD_OUT), shares)
    fine_tune(
        towers,
        config.tuning,
        lambda count: moments.batches(count, config.tuning.batch),
        lambda batch: _loss(towers, texts, batch, shares),
        (lambda: float(held_out())) if len(moments.held) > 1 else None,
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
