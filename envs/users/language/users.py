"""Users played by a language model: persona, history and session as text, answers by token probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recloop.encoders.base.errors import LanguageModelError, UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.logs.schema import Signal
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fitted.config import AssumedLeaving
from recloop.envs.users.language.answers import YES_NO, AnswerModel, Prompt
from recloop.envs.users.language.prompts import PromptWords, PromptWriter, Question, question

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData

_FEW = 20
"""Questions before the share of useless answers is judged."""


@dataclass(frozen=True)
class Persona(State):
    """Who a user is; what they did stands in the core's record of the past.

    Args:
        profile: float32 (B, p).
    """

    profile: Tensor


class LanguageModelUsers(UserSimulator):
    """Users played by a language model.

    For every place of a slate the model reads the persona (profile), the history as text, the last slates of the
    session with what was taken, the slate, and a question; the answer is the probability it gives to the answer tokens:
    yes and no for binary signals, the digits or letters of an ordinal one's levels, letters of five bands for a
    continuous one. A signal that is given on another is asked for only where that one is positive. What is drawn
    depends on (lane, step, item) as everywhere. Users leave by a stated rule, or the model is asked.

    Slow: B x K questions a step and more for further signals. Equal questions are asked once, and the store of the
    model keeps every answer. For full speed distil them (`recloop distill`).

    Agent4Rec (Zhang et al. 2024) and RecAgent (Wang et al. 2023) let a model act in prose and parse it. Differences:
    probabilities of answer tokens instead, so that means are exact and luck is the simulation's; no free text.

    Args:
        signals: what an answer carries, those of the world, consumption first.
        model: who is asked.
        words: around the questions.
        leaving: the rule, or None to ask the model after each slate.
        nonsense: largest share of questions, from the twentieth on, whose answer may be none of the options; such
            an answer counts as undecided (all options alike), and `unanswered` counts them.

    Raises:
        LanguageModelError: from `respond` and `expected`, where the model cannot be asked or answers nonsense.
    """

    def __init__(
        self,
        signals: Sequence[Signal],
        model: AnswerModel,
        *,
        words: PromptWords | None = None,
        leaving: AssumedLeaving | None = AssumedLeaving(),  # noqa: B008 - frozen
        nonsense: float = 0.2,
    ) -> None:
        self.signals = tuple(signals)
        self.model, self.words = model, words or PromptWords()
        self.leaving = None if leaving is None else leaving.known(goes_on=False)
        self.nonsense = nonsense
        self.questions = tuple(question(signal) for signal in self.signals)
        self.asked, self.unanswered = 0, 0
        self._writer: PromptWriter | None = None

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Keep the titles and profiles; the model stays where it is."""
        self.device = torch.device(device)
        self._profiles = world.users.profile.to(self.device)
        self._n = len(world.catalogue.titles)
        self._writer = PromptWriter(self.signals, world.catalogue.titles, world.users.profile_names, self.words)

    def arrive(self, users: Tensor, draw: Draw) -> Persona:
        """A gather."""
        if self._writer is None:
            raise UserSimulatorError(f"{type(self).__name__} is not prepared; call prepare(world, device) first")
        return Persona(self._profiles[users])

    def infer(self, past: Past, profile: Tensor) -> Persona:
        """Exact: a policy may know all that these users are."""
        return Persona(profile)

    def respond(self, state: Persona, past: Past, slate: Tensor, draw: Draw) -> tuple[Persona, Response]:
        """Ask, and draw the answers; see the class."""
        openings = self._openings(state, past, slate)
        held = slate < self._n
        names = [signal.name for signal in self.signals]
        values = torch.zeros(*slate.shape, len(names), device=self.device)
        given = torch.zeros(values.shape, dtype=torch.bool, device=self.device)
        for s, asked in enumerate(self.questions):
            where = held
            if asked.signal.given_on is not None:
                parent = names.index(asked.signal.given_on)
                where = held & given[..., parent] & (values[..., parent] > 0.5)
            luck = draw.uniform(asked.signal.name, slate)[where].cpu()
            drawn = asked.draw(self._chances(openings, slate, asked, where), luck)
            values[..., s][where] = drawn.to(self.device)
            given[..., s] = where
        left = draw.uniform("leave") < self._leaving(openings, slate, values[..., 0] > 0.5)
        return state, Response(values, given, left)

    def expected(self, state: Persona, past: Past, slate: Tensor) -> Expected:
        """Means by the model's probabilities; leaving by the rule, or None where the model is asked."""
        openings = self._openings(state, past, slate)
        held = slate < self._n
        mean = torch.zeros(*slate.shape, len(self.signals), device=self.device)
        for s, asked in enumerate(self.questions):
            mean[..., s][held] = asked.mean(self._chances(openings, slate, asked, held)).to(self.device)
        leave = None
        if self.leaving is not None:
            leave = self._rule(1 - (1 - mean[..., 0]).prod(1))
        return Expected(mean, leave=leave)

    def consumption(self, state: Persona, past: Past, slate: Tensor) -> Tensor:
        """Probability that each place is consumed, float32 (B, K): `expected` for the first signal alone."""
        held = slate < self._n
        found = torch.zeros(slate.shape, device=self.device)
        chances = self._chances(self._openings(state, past, slate), slate, self.questions[0], held)
        found[held] = self.questions[0].mean(chances).to(self.device)
        return found

    def most_questions(self, slate_size: int) -> int:
        """At most so many questions a user and slate."""
        return slate_size * len(self.signals) + (self.leaving is None)

    def _openings(self, state: Persona, past: Past, slate: Tensor) -> list[str]:
        if self._writer is None:
            raise UserSimulatorError(f"{type(self).__name__} is not prepared; call prepare(world, device) first")
        return self._writer.openings(state.profile, past, slate)

    def _chances(self, openings: list[str], slate: Tensor, asked: Question, where: Tensor) -> Tensor:
        """The model's answers at the places `where`, float32 (n, options) on the CPU, in their order."""
        assert self._writer is not None
        places = where.nonzero().tolist()
        items = slate[where].tolist()
        prompts = [
            self._writer.about_item(openings[lane], place, item, asked)
            for (lane, place), item in zip(places, items, strict=True)
        ]
        return self._ask(prompts, asked.options)

    def _leaving(self, openings: list[str], slate: Tensor, taken: Tensor) -> Tensor:
        """Probability to leave after what was taken, bool (B, K): (B,)."""
        if self.leaving is not None:
            return self._rule(taken.any(1).to(torch.float32))
        assert self._writer is not None
        rows = zip(openings, slate.tolist(), taken.tolist(), strict=True)
        prompts = [
            self._writer.about_leaving(opening, [item for item, own in zip(items, mine, strict=True) if own])
            for opening, items, mine in rows
        ]
        return self._ask(prompts, YES_NO)[:, 1].to(self.device)

    def _rule(self, anything: Tensor) -> Tensor:
        """Probability to leave by the rule, from that of having consumed anything."""
        assert self.leaving is not None
        low, high = self.leaving.chances
        return high + (low - high) * anything

    def _ask(self, prompts: list[Prompt], options: Sequence[str]) -> Tensor:
        """Probabilities; undecided where the model gave none, an error where it often does."""
        if not prompts:
            return torch.zeros(0, len(options))
        found = self.model.probabilities(prompts, options)
        useless = found.isnan().any(1)
        self.asked += len(prompts)
        self.unanswered += int(useless.sum())
        if self.asked >= _FEW and self.unanswered > self.nonsense * self.asked:
            raise LanguageModelError(
                f"{self.model.name} answers {self.unanswered} of {self.asked} questions with none of "
                f"{', '.join(options)} (limit {self.nonsense:.0%}); take a model that follows instructions, or change "
                "the words"
            )
        return torch.where(useless.unsqueeze(1), 1 / len(options), found)
