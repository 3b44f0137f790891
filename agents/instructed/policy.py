"""The policy: what a user is taken to want, by words and by what came of slates, on top of any policy that scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.acting import picked_by
from recloop.agents.facts import Group, Trains
from recloop.agents.instructed.asker import FACTS, AskingStep, asking_facts, learned_asker
from recloop.agents.instructed.evidence import by_history, evidence, refitted
from recloop.agents.instructed.head import Keep, WishHead
from recloop.agents.language.candidates import CandidateSource
from recloop.agents.policy import Carry, FitOptions, Policy
from recloop.agents.serving import Serving
from recloop.agents.slates import action_mask, best_slate
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.instruction.phrases import TRAINING
from recloop.envs.build.speaking import wishes_of
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.transition import Transition
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.rollout import rollout
from recloop.envs.world.world import World

Tune = Literal["nothing", "head", "all"]
Ask = Literal["never", "gain", "learned"]

_HEAD = tuple(field.name for field in fields(WishHead))
_TRIAL_LANES = 128
_LESSON_WORDS = 16
"""Wordings of each wish that the head is fitted on, of the phrases that no simulated user speaks by."""
_SURE = 0.5
"""Chance of the likeliest wish from which on a slate teaches the head."""


@dataclass(frozen=True)
class InstructionTunedConfig:
    """See `InstructionTuned`.

    Args:
        base: the policy that orders items where nobody says anything: a name, trained first with its defaults, or a
            policy folder; it must score items.
        weight: how many standard deviations of the base's score an item is worth that surely fits.
        strength: log-odds that a fitting item is taken to have over another, in reading what was taken.
        listens: False never reads a word: the deaf policy, for comparison.
        feels: whether takes and ratings change what a user is taken to want, within a wish.
        tunes: what is re-tuned while acting: nothing; the head alone; or all, which is the head and what items fit.
        rate: length of the head's steps.
        keeps: how what was known is kept: nothing, replay or ewc.
        keeping: lessons of before for each new one, or the weight of the penalty.
        asks: whether an empty slate, a question, is ever shown: never; where the expected information gain is above
            `price`; or as was learned in the loop.
        price: nats of expected gain that a question must be worth.
        questions: asked in an episode at most.
        trials: episodes a lane that the learned asker is trained for, 128 lanes.
    """

    base: str = "popularity"
    weight: float = 4.0
    strength: float = 2.0
    listens: bool = True
    feels: bool = True
    tunes: Tune = "nothing"
    rate: float = 10.0
    keeps: Keep = "nothing"
    keeping: float = 1.0
    asks: Ask = "never"
    price: float = 1.0
    questions: int = 3
    trials: int = 40

    def __post_init__(self) -> None:
        for name in ("weight", "strength", "rate", "keeping", "price"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise PolicyError(
                    f"{name}={getattr(self, name)} of 'instruction-tuned'; give a finite number from 0 on"
                )
        if self.questions < 0 or self.trials < 1:
            raise PolicyError(f"questions={self.questions}, trials={self.trials}; give 0 or more, and 1 or more")


@dataclass(frozen=True)
class Heard:
    """What the policy keeps of B lanes, and what it has learned while acting.

    Args:
        head: as re-tuned so far.
        fits: float32 (W, N) how well items fit wishes, likewise.
        taken: float32 (2,) items taken and shown so far: the usual rate.
        words: float32 (B, u) what each user said last.
        known: float32 (B, W) log-chances of wishes by words and history alone.
        evidence: float32 (B, W) log-likelihood of what came of slates since, under each wish.
        asked: int64 (B,) questions asked in the episode.
        silent: int64 (B,) those of them since words were heard last.
        facts: float32 (B, 4) what the asker saw; zeros where it never asks.
        asks: bool (B,) whether it asked just now.
    """

    head: WishHead
    fits: Tensor
    taken: Tensor
    words: Tensor
    known: Tensor
    evidence: Tensor
    asked: Tensor
    silent: Tensor
    facts: Tensor
    asks: Tensor

    @property
    def chances(self) -> Tensor:
        """p(wish) (B, W) by all that is known."""
        return (self.known + self.evidence).softmax(1)


class InstructionTuned(Policy):
    """Shows what a base policy would, drawn towards what the user is taken to want; re-tunes itself where asked to.

    What is wanted is one of the world's attributes (`wishes_of`). Its chance is that of the words, softmax(phi h + b)
    with h from the frozen instruction encoder, or without words that of the user's history; times the likelihood of
    what was taken and how slates were rated since. With `tunes` every step then moves phi and b towards what came of
    the words: cross-entropy of the chances by words against those by all that is known, a few gradient steps for all
    lanes together, of the lanes where something is known. `listens=False` and `feels=False` are the deaf policy with
    the same base.

    Args:
        base: orders the items.
        head, fits: as fitted.
        config: see there.
        asker: float32 (4,) weights of the learned asker.

    Attributes:
        explores: whether the learned asker asks by chance, with the log-odds that it gives, as while it is trained.
    """

    name = "instruction-tuned"
    kind = "instruction-tuned"
    needs: ClassVar[tuple[str, ...]] = ("instruction",)
    trains: ClassVar[Trains] = "log"
    group: ClassVar[Group] = "supervised"
    reads_instruction: bool = True
    config_class: ClassVar[type[Any] | None] = InstructionTunedConfig

    def __init__(
        self,
        base: CandidateSource,
        head: WishHead,
        fits: Tensor,
        config: InstructionTunedConfig,
        asker: Tensor | None = None,
    ) -> None:
        self.base, self.head, self.fits, self.settings = base, head, fits, config
        self.asker = torch.zeros(len(FACTS)) if asker is None else asker
        self.plans, self.explores = base.policy.plans, False

    @classmethod
    def fit(cls, world: World, options: FitOptions) -> Self:
        """Make the base, fit the head on phrases that no simulated user speaks by, and train the asker if there is one.

        Raises:
            PolicyError: a world without an instruction encoder, or a base that scores no items.
        """
        config = options.over(InstructionTunedConfig(), cls.name, budget="trials")
        if world.instruction is None:
            raise PolicyError(
                f"policy 'instruction-tuned' needs a world whose users speak and '{world.name}' has no instruction "
                "encoder; make one with `recloop speak`"
            )
        base = CandidateSource.fit(config.base, 1, world, options)
        told = wishes_of(world, world.instruction, book=TRAINING, wordings=_LESSON_WORDS, seed=options.seed)
        count = len(told.names)
        head = WishHead.fitted(told.vectors, torch.arange(count).repeat_interleave(told.wordings), count)
        policy = cls(base, head, told.fits.float(), config)
        policy.serving = Serving.of(world)
        if config.asks == "learned":
            policy.asker = learned_asker(policy._trying(world, options.seed), config.trials)
        return policy

    @torch.no_grad()
    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        """See the class."""
        heard = self._hear(observation, carry)
        chances = heard.chances
        scores = self.base.scores(observation)
        deviation = scores.std(1, keepdim=True, correction=0).clamp_min(1e-6)
        drawn = (scores - scores.mean(1, keepdim=True)) / deviation + self.settings.weight * (chances @ heard.fits)
        slate = best_slate(drawn, action_mask(observation, scores.shape[1]), k)
        if self.settings.asks == "never":
            return slate, heard
        facts = asking_facts(chances, observation["context"][:, 0], heard.asked, heard.silent)
        asks = (facts[:, 1] > self.settings.price) if self.settings.asks == "gain" else self._asks(facts, draw)
        asks = asks & (heard.asked < self.settings.questions)
        slate = torch.where(asks.unsqueeze(1), scores.shape[1], slate)
        asked, silent = heard.asked + asks.long(), heard.silent + asks.long()
        return slate, replace(heard, asked=asked, silent=silent, facts=facts, asks=asks)

    @torch.no_grad()
    def update(self, carry: Carry, transition: Transition, counts: Tensor) -> Carry:
        """Weigh the wishes by what came of the slates, and re-tune what is to be."""
        heard: Heard = carry
        slate, response, empty = transition.slate, transition.response, heard.fits.shape[1]
        held = slate < empty
        took = (response.signals[..., 0] > 0.5) & response.given[..., 0]
        fits = F.pad(heard.fits, (0, 1)).T[slate]  # (B, K, W)
        told = evidence(fits, took, held, response.rating, heard.taken, self.settings.strength)
        if not self.settings.feels:
            told = torch.zeros_like(told)
        shown = torch.stack([(took & held & counts[:, None]).sum(), (held & counts[:, None]).sum()]).float()
        heard = replace(heard, evidence=heard.evidence + told, taken=heard.taken + shown)
        if self.settings.tunes == "nothing":
            return heard
        spoke = (heard.words != 0).any(1) & counts & held.any(1)
        chances = heard.chances
        lesson = chances * (spoke & (chances.amax(1) > _SURE)).unsqueeze(1)
        luck = torch.rand(len(lesson) * 4, generator=torch.Generator().manual_seed(int(heard.taken[1])))
        settings = self.settings
        head = heard.head.tuned(heard.words, lesson, settings.rate, settings.keeps, settings.keeping, luck)
        fit = heard.fits
        if settings.tunes == "all":
            fit = refitted(fit, chances * spoke.unsqueeze(1), slate, took, held, heard.taken)
        return replace(heard, head=head, fits=fit)

    def _hear(self, observation: Observation, carry: Carry) -> Heard:
        """What is known of each lane before the slate: new words, and new episodes, begin anew."""
        history = by_history(observation, self.fits)
        said = observation.get("instruction")
        if said is None or not self.settings.listens:
            said = history.new_zeros(len(history), self.head.phi.shape[1])
        fresh = observation["context"][:, 0] == 0
        nothing = torch.zeros_like(fresh)
        if carry is None:
            zeros, none = torch.zeros_like(history), torch.zeros_like(fresh, dtype=torch.int64)
            taken, facts = history.new_zeros(2), history.new_zeros(len(history), len(FACTS))
            carry = Heard(self.head, self.fits, taken, said, history, zeros, none, none, facts, nothing)
        before: Heard = carry
        anew = fresh | (said != before.words).any(1)
        known = torch.where((said != 0).any(1, keepdim=True), before.head.log_chances(said), history)
        return replace(
            before,
            words=said,
            known=known,
            evidence=before.evidence.masked_fill(anew.unsqueeze(1), 0.0),
            asked=before.asked.masked_fill(fresh, 0),
            silent=before.silent.masked_fill(fresh | (said != 0).any(1), 0),
            asks=nothing,
        )

    def _asks(self, facts: Tensor, draw: Draw) -> Tensor:
        """Whether the learned asker asks, bool (B,)."""
        odds = facts @ self.asker
        return odds > torch.logit(draw.uniform("ask")) if self.explores else odds > 0

    def _trying(self, world: World, seed: int) -> Callable[[Tensor, int], Iterator[AskingStep]]:
        """Episodes among the users that policies are trained in, in which it asks by chance."""
        keys = (*DEFAULT_KEYS, "action_mask", "instruction")
        core = Core(world, batch=_TRIAL_LANES, users="train", keys=keys, seed=seed)

        def episodes(weights: Tensor, trial: int) -> Iterator[AskingStep]:
            trying = type(self)(self.base, self.head, self.fits, self.settings, weights)
            trying.serving, trying.explores = self.serving, True
            core.reset(seed=seed * 1_000_003 + trial)
            act = partial(picked_by, trying, seed=seed ^ trial)
            for step in rollout(core, act, learn=trying.update):
                heard: Heard = step.picked.carry
                yield AskingStep(heard.facts, heard.asks, step.transition.reward, step.alive)

        return episodes

    def learned(self, carry: Carry) -> Self:
        """The same policy, which starts from what a carry has learned."""
        later = type(self)(self.base, carry.head, carry.fits, self.settings, self.asker)
        later.serving = self.serving
        return later

    def config(self) -> dict[str, Any]:
        """Settings, and the base's."""
        return {"settings": asdict(self.settings), "base": self.base.facts()}

    def tensors(self) -> dict[str, Tensor]:
        """Head, fits and asker, and the base's own."""
        head = {f"head.{name}": getattr(self.head, name) for name in _HEAD}
        return {**head, "fits": self.fits, "asker": self.asker, **self.base.tensors()}

    @classmethod
    def restore(cls, serving: Serving, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Undo `config` and `tensors`."""
        base = CandidateSource.restored(config["base"], 1, serving, tensors)
        head = WishHead(**{name: tensors[f"head.{name}"] for name in _HEAD})
        settings = InstructionTunedConfig(**config["settings"])
        return cls(base, head, tensors["fits"], settings, tensors["asker"])
