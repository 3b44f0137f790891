"""`lm-classifier`: a language model reads history and item together and says whether this user will take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recloop.agents.language.candidates import CandidateSource, reordered
from recloop.agents.language.examples import NextItems, check_texts
from recloop.agents.language.fitting import fine_tune, pretrain
from recloop.agents.language.pairs import DrawnPairs, LabelledPairs, ShownPairs
from recloop.agents.language.policy import LanguagePolicy, trained
from recloop.agents.language.tokens import HistoryTokens, Tokens, Words, around, joined
from recloop.agents.language.tuning import TuningConfig
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.text.encoder import Pooling, pool
from recloop.encoders.text.models import DEFAULT_MODEL, token_limit
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.core import checked_device
from recloop.envs.world.tables import Catalogue
from recloop.envs.world.world import World

_HELD_OUT = 64


@dataclass(frozen=True)
class ClassifierConfig:
    """What is read of a pair, whose candidates it orders, and how it is tuned.

    Args:
        model: `all-MiniLM-L6-v2`, a folder, or a name on the hub; encoders and decoders alike.
        pooling: of a pair's tokens: `mean`, `cls` (encoders) or `last` (decoders).
        retriever: whose best candidates are put in order: the name or folder of a policy with scores.
        candidates: C.
        negatives_from: what the user did not take is what was `shown` and left, where the log has exposures, or drawn
            from the `catalogue` by popularity; `auto` is shown where there is any.
        negatives: drawn for each item that was taken.
        window: newest items of a history that are told.
        title_tokens: of a title in a history that are read.
        max_tokens: of a history and an item; where they do not fit, the oldest items of the history go.
        item_tokens: of an item's text.
        batch: pairs that are read at once.
        pseudo_labels: in (0.5, 1): once fine-tuned, the model names what it is so sure of among exposures without
            labels (`tuning.labelled`), and is fine-tuned again with these (Lee 2013); 0 leaves them out.
        tuning: how the language model is fine-tuned; a batch counts pairs.
    """

    model: str = DEFAULT_MODEL
    pooling: Pooling = "mean"
    retriever: str = "encoder"
    candidates: int = 20
    negatives_from: Literal["auto", "shown", "catalogue"] = "auto"
    negatives: int = 3
    window: int = 10
    title_tokens: int = 16
    max_tokens: int = 136
    item_tokens: int = 24
    batch: int = 64
    pseudo_labels: float = 0.0
    tuning: TuningConfig = field(default_factory=TuningConfig)

    def __post_init__(self) -> None:
        if self.pseudo_labels and not 0.5 < self.pseudo_labels < 1:
            raise PolicyError(f"pseudo_labels={self.pseudo_labels} of lm-classifier must lie in (0.5, 1), or be 0")
        if self.pseudo_labels and self.tuning.labelled == 1:
            raise PolicyError("pseudo_labels of lm-classifier need exposures without labels; lower tuning.labelled")
        for name in ("candidates", "negatives", "window", "title_tokens", "max_tokens", "item_tokens", "batch"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of lm-classifier must be at least 1")
        if not self.tuning.trains:
            raise PolicyError("lm-classifier has to be trained: its head is new; take tuning.method=head or another")


class PairModel(nn.Module):
    """The log-odds that the user of a history takes an item, read together: pooled tokens, and one line on top.

    Args:
        language: the model, its weights open as they are to be trained.
        dim: length of its vectors.
        pooling: of its tokens.
    """

    def __init__(self, language: Any, dim: int, pooling: Pooling) -> None:
        super().__init__()
        self.language, self.pooling = language, pooling
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tokens) -> Tensor:
        """Pairs -> float32 (n,)."""
        mask = tokens.held.long()
        hidden = self.language(input_ids=tokens.ids, attention_mask=mask).last_hidden_state
        return pool(hidden.float(), mask, self.pooling) @ self.weight + self.bias


class PairTexts:
    """Pairs of a history and an item as one text: the titles of the history, a separator, the item's text."""

    def __init__(self, tokenizer: Any, model: Any, catalogue: Catalogue, config: ClassifierConfig) -> None:
        self.pad, self.words = int(tokenizer.pad_token_id or 0), Words.of(tokenizer)
        self._before, self._after = around(tokenizer)
        between = tokenizer.sep_token or "\nNext:"
        self._between = Tokens.of(tokenizer, [between], config.item_tokens)
        told = [text if text.strip() else title for text, title in zip(catalogue.texts, catalogue.titles, strict=True)]
        self._items = Tokens.of(tokenizer, [f" {' '.join(text.split())}" for text in told], config.item_tokens)
        room = token_limit(config.max_tokens, model, tokenizer) - int(self._items.counts.max())
        room -= sum(int(part.counts) for part in (self._before, self._between, self._after))
        self.history = HistoryTokens(tokenizer, catalogue.titles, config.window, config.title_tokens, room)

    def of(self, newest: Tensor, items: Tensor) -> Tokens:
        """Histories (n, W) with items (n,)."""
        count, device = len(items), items.device
        before, between, after = (p.to(device).expanded(count) for p in (self._before, self._between, self._after))
        item = self._items[items.cpu()].to(device)
        return joined([before, self.history.tokens(newest), between, item, after], self.pad)


class LanguageClassifier(LanguagePolicy[ClassifierConfig, PairModel, PairTexts]):
    """Shows the candidates of a retriever in the order of the chance that this user takes them; below them its own.

    A cross-encoder (Nogueira and Cho 2019) with binary cross-entropy. Negatives are what was shown and left, or drawn
    by popularity: then the log of an item's popularity is added back to its log-odds (`tensors` holds it as `prior`).
    """

    name = "lm-classifier"
    kind = "lm-classifier"
    paper: ClassVar[str] = "Nogueira and Cho 2019"
    own: ClassVar[tuple[str, ...]] = ("prior",)
    config_class: ClassVar[type[ClassifierConfig]] = ClassifierConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Take or fit the retriever, and fine-tune; `options.steps` are steps of the optimiser."""
        config, base = cls._asked(options)
        tuning, device = config.tuning, checked_device(options.device)
        check_texts(world.catalogue.texts, world.name)
        rng = np.random.default_rng([options.seed, 0x1C])
        moments = NextItems(world, config.window, tuning.held_out, rng, tuning.labelled)
        pairs = _pairs(world, moments, config)
        source = CandidateSource.fit(config.retriever, config.candidates, world, options)
        model, texts = cls._opened(config, base, world.catalogue, {}, device, options.seed)
        held = pairs.held(_HELD_OUT)

        def told(count: int) -> Tokens:
            drawn = moments.draw(count, everybody=True)
            return texts.of(texts.history.newest(drawn.history.to(device)), drawn.target.to(device))

        def tune() -> None:
            fine_tune(
                model,
                tuning,
                lambda count: pairs.batches(count, tuning.batch),
                lambda batch: _loss(model, texts, batch),
                None if held is None else lambda: float(_loss(model, texts, held)),
                options,
                "lm-classifier",
            )

        if tuning.pretraining:
            pretrain(model.language, texts.words, tuning, told, options)
        tune()
        if config.pseudo_labels and isinstance(pairs, ShownPairs):
            pairs.learn_from_unlabelled(lambda some: _chances(model, texts, some), config.pseudo_labels)
            tune()
        counts = moments.counts
        prior = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).log() * float(pairs.prior)
        return cls(config, base, world.catalogue, {**trained(model, tuning), "prior": prior}, source, (model, texts))

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Log-odds of the candidates, and the retriever's order below, (B, N)."""
        assert self.source is not None
        found = self.source.scores(observation)
        rows = self.source.best(observation, found)  # (B, C)
        model, texts = self._loaded(found.device)
        newest = texts.history.newest(observation["history"])

        def made(places: Tensor) -> Tensor:
            items = rows[places].clamp_max(len(self._catalogue) - 1)  # what stands for a missing one is never shown
            histories = newest[places].repeat_interleave(items.shape[1], dim=0)
            size = self.settings.batch
            parts = zip(torch.split(histories, size), torch.split(items.flatten(), size), strict=True)
            return torch.cat([model(texts.of(*part)) for part in parts]).view(items.shape)

        prior = F.pad(self.kept["prior"].to(found.device), (0, 1))[rows]
        return reordered(found, rows, self._recent.rows(torch.cat([newest, rows], dim=1), made) + prior)

    @classmethod
    def _model(
        cls,
        config: ClassifierConfig,
        model: Any,
        tokenizer: Any,
        catalogue: Catalogue,
        kept: Mapping[str, Tensor],
        language: Any,
    ) -> tuple[PairModel, PairTexts]:
        texts = PairTexts(tokenizer, model, catalogue, config)
        return PairModel(language, int(model.config.hidden_size), config.pooling), texts


def _pairs(world: World, moments: NextItems, config: ClassifierConfig) -> ShownPairs | DrawnPairs:
    exposed = world.sequences.slates is not None
    drawn = not exposed or config.negatives_from == "catalogue"
    if config.pseudo_labels and drawn:
        raise PolicyError(f"pseudo_labels need exposures, and the pairs of world '{world.name}' are drawn; take 0")
    if config.negatives_from == "shown" and not exposed:
        raise PolicyError(
            f"negatives_from=shown, and the log of world '{world.name}' has no exposures; take catalogue or auto"
        )
    return DrawnPairs(moments, config.negatives) if drawn else ShownPairs(world, moments)


@torch.no_grad()
def _chances(model: PairModel, texts: PairTexts, pairs: LabelledPairs) -> Tensor:
    """The chance that each pair is taken, as far as taken and left ones are as many, (n,)."""
    model.eval()
    newest, items = texts.history.newest(pairs.history.to(model.weight.device)), pairs.items.to(model.weight.device)
    chances: Tensor = model(texts.of(newest, items)).sigmoid().cpu()
    return chances


def _loss(model: PairModel, texts: PairTexts, batch: LabelledPairs) -> Tensor:
    """Binary cross-entropy; pairs taken and not taken count alike, however many there are of each."""
    device = model.weight.device
    newest, taken = texts.history.newest(batch.history.to(device)), batch.taken.to(device)
    found = model(texts.of(newest, batch.items.to(device)))
    share = taken.mean().clamp(1e-3, 1 - 1e-3)
    weight = torch.where(taken > 0.5, 0.5 / share, 0.5 / (1 - share))
    return F.binary_cross_entropy_with_logits(found, taken, weight)
