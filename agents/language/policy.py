"""What all policies of a language model share: settings, the model underneath, and being kept as what was trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from recloop.agents.facts import Group, Trains
from recloop.agents.language.bases import TRAINED_TIMES, Base
from recloop.agents.language.candidates import CandidateSource, without_candidates
from recloop.agents.language.recent import Recent
from recloop.agents.language.tuning import TuningConfig, bring_back, changed, merged, opened
from recloop.agents.policy import FitOptions, ScoringPolicy
from recloop.agents.serving import Serving
from recloop.agents.settings import with_settings
from recloop.encoders.base.digests import digest_of_value
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.tables import Catalogue

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


class LanguagePolicy(ScoringPolicy, Generic[C, M, T]):
    """Scores items by a language model that lies elsewhere: kept are what was trained of it, and its fingerprint.

    The model is loaded when it is first asked, and what it made of a lane is kept until the lane changes.

    Args:
        config: how it was made; its `model` names the language model, its `tuning` how it is tuned.
        base: the language model.
        catalogue: the items.
        tensors: those named in `own`, and what was trained.
        source: of candidates, where the policy puts another's best in order.
        made: the model and what reads texts for it, where they are there.

    Attributes:
        own: names of the tensors that are no weights of the model.
        decoder: whether the model is loaded with the head that names the next token.
    """

    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "lm"
    extras: ClassVar[tuple[str, ...]] = ("text",)
    own: ClassVar[tuple[str, ...]] = ()
    decoder: ClassVar[bool] = False

    def __init__(
        self,
        config: C,
        base: Base,
        catalogue: Catalogue,
        tensors: Mapping[str, Tensor],
        source: CandidateSource | None = None,
        made: tuple[M, T] | None = None,
    ) -> None:
        self.settings, self.base, self.source, self._catalogue = config, base, source, catalogue
        self.kept = {name: tensors[name] for name in self.own}
        self._tuned = {name: value for name, value in tensors.items() if name not in self.own}
        self._made = made
        self._recent = Recent()

    @classmethod
    @abstractmethod
    def _model(
        cls, config: C, model: Any, tokenizer: Any, catalogue: Catalogue, kept: Mapping[str, Tensor], language: Any
    ) -> tuple[M, T]:
        """What stands on top of `language`, the loaded `model` as it is tuned, and what reads texts for it."""

    @classmethod
    def _asked(cls, options: FitOptions) -> tuple[C, Base]:
        """The settings, of which `options.steps` are steps of the optimiser, and the language model, which fits."""
        assert cls.config_class is not None
        config = cls.config_class()
        if options.steps is not None:
            config = replace(config, tuning=replace(config.tuning, steps=options.steps))
        config = with_settings(config, options.settings, cls.name)
        base = Base.of(config.model)
        times = TRAINED_TIMES if config.tuning.method == "all" else 0.0
        base.check_memory(options.device, config.tuning.bits, times)
        return config, base

    @classmethod
    def _opened(
        cls, config: C, base: Base, catalogue: Catalogue, kept: Mapping[str, Tensor], device: torch.device, seed: int
    ) -> tuple[M, T]:
        """The model, open to training as the settings say, on a device."""
        tuning = _tuning_of(config)
        model, tokenizer = base.load(device, tuning.bits, cls.decoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            language = opened(model, tuning)
        module, texts = cls._model(config, model, tokenizer, catalogue, kept, language)
        return module.to(device).eval(), texts

    def _loaded(self, device: torch.device) -> tuple[M, T]:
        """The model and its texts on a device, ready to act."""
        if self._made is None:
            tuning = _tuning_of(self.settings)
            self.base.check_memory(device, tuning.bits)
            self._made = self._opened(self.settings, self.base, self._catalogue, self.kept, device, 0)
            bring_back(self._made[0], self._tuned)
            ready(self._made[0], tuning)
        self._made[0].to(device)
        return self._made

    @property
    def parameter_counts(self) -> tuple[int, int]:
        """Numbers that are trained, and all there are."""
        total = sum(weight.numel() for weight in self._loaded(torch.device("cpu"))[0].parameters())
        return sum(value.numel() for value in self._tuned.values()), total

    def config(self) -> dict[str, Any]:
        """The settings, and which model, retriever and catalogue they were made with."""
        return {
            **asdict(self.settings),  # type: ignore[call-overload]
            "base": self.base.fingerprint,
            "source": None if self.source is None else self.source.facts(),
            "catalogue": _digest(self._catalogue),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What was trained, what is the policy's own, and the retriever's."""
        return {**self._tuned, **self.kept, **({} if self.source is None else self.source.tensors())}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`; the language model is loaded when it is first asked.

        Raises:
            PolicyError: it was fine-tuned on another model, or made for another catalogue.
        """
        facts, catalogue = dict(config), serving.world.catalogue
        fingerprint, told, digest = (facts.pop(name) for name in ("base", "source", "catalogue"))
        if digest != _digest(catalogue):
            raise PolicyError(
                f"the policy was made for another catalogue than these {len(catalogue)} items; train it anew in this "
                "world"
            )
        assert cls.config_class is not None
        settings: Any = cls.config_class(**{**facts, "tuning": TuningConfig(**facts["tuning"])})
        base = Base.of(settings.model)
        base.check_is(fingerprint)
        source = None if told is None else CandidateSource.restored(told, settings.candidates, serving, tensors)
        return cls(settings, base, catalogue, without_candidates(tensors), source)


def trained(module: nn.Module, tuning: TuningConfig) -> dict[str, Tensor]:
    """What was trained of a model, on the CPU; the model is then ready to act."""
    tensors = {name: value.detach().clone().cpu() for name, value in changed(module).items()}
    ready(module, tuning)
    return tensors


def ready(module: nn.Module, tuning: TuningConfig) -> None:
    """For acting: nothing is trained, and low-rank and scaling adapters cost nothing."""
    if tuning.bits == 32 and tuning.method in ("lora", "adalora", "ia3"):
        merged(module)
    module.requires_grad_(False).eval()


def _tuning_of(config: Any) -> TuningConfig:
    tuning: TuningConfig = config.tuning
    return tuning


def _digest(catalogue: Catalogue) -> str:
    return digest_of_value([list(catalogue.ids), list(catalogue.texts)])
