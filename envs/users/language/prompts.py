"""The words in which a language model is told who it is, what it did, what it is shown and what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.encoders.base.errors import LanguageModelError
from recloop.encoders.text.history import HistoryTemplate, history_text
from recloop.envs.interaction.response import Past
from recloop.envs.logs.behavior_text import default_template
from recloop.envs.logs.schema import Signal
from recloop.envs.users.language.answers import LETTERS, YES_NO, Prompt

_BANDS = 5
"""Answers that a continuous signal is asked in."""
_DEGREES = ((-1.5, "far below average"), (-0.5, "below average"), (0.5, "average"), (1.5, "above average"))
_ASKED = {
    "click": "Would you click on it?",
    "consume": "Would you choose it?",
    "rating": "You took it. How would you rate it",
    "like": "Would you like it?",
}
"""Questions by the signal's name; others are asked for by name."""


@dataclass(frozen=True)
class PromptWords:
    """The words around a user. Change them to suit a catalogue; braces are not interpreted.

    Args:
        role: who the model is to be.
        most_items: newest items of the history that are told.
        most_slates: newest slates of the session that are told; the core's record holds no more than its own.
        history: how the history reads; None makes a template of the signals.
    """

    role: str = "Answer as this person would, who uses an app that recommends things."
    most_items: int = 15
    most_slates: int = 3
    history: HistoryTemplate | None = None

    def __post_init__(self) -> None:
        if self.most_items < 1 or self.most_slates < 0:
            raise LanguageModelError(
                f"most_items={self.most_items} must be 1 or more, most_slates={self.most_slates} 0"
            )


@dataclass(frozen=True)
class Question:
    """How one signal is asked for.

    Args:
        signal: what the answer gives.
        text: ends so that the next token is the answer.
        options: the answers that are read.
        low, high: (options,) the values each option stands for: one value, or a band.
    """

    signal: Signal
    text: str
    options: tuple[str, ...]
    low: Tensor
    high: Tensor

    def mean(self, chances: Tensor) -> Tensor:
        """Expected value of answers with these probabilities (..., options)."""
        return chances @ ((self.low + self.high) / 2)

    def draw(self, chances: Tensor, luck: Tensor) -> Tensor:
        """The value at luck in (0, 1) of answers (..., options): even within a band."""
        rising = chances.cumsum(-1)
        option = (luck.unsqueeze(-1) > rising[..., :-1]).sum(-1)
        before = torch.where(option > 0, rising.gather(-1, (option - 1).clamp_min(0).unsqueeze(-1))[..., 0], 0.0)
        own = chances.gather(-1, option.unsqueeze(-1))[..., 0].clamp_min(1e-9)
        within = ((luck - before) / own).clamp(0, 1)
        return self.low[option] + (self.high[option] - self.low[option]) * within


def question(signal: Signal) -> Question:
    """How a signal is asked for: yes or no, its levels by digit or letter, or five bands of its range.

    >>> question(Signal("rating", "ordinal", levels=(1, 2, 3), given_on="click")).options
    ('1', '2', '3')
    """
    said = signal.name.replace("_", " ")
    if signal.kind == "binary":
        text = _ASKED.get(signal.name, f"Is your answer to '{said}' yes?")
        values = torch.tensor([0.0, 1.0])
        return Question(signal, f"{text} Answer yes or no.\nAnswer:", YES_NO, values, values)
    text = _ASKED.get(signal.name, f"What is its {said}")
    if signal.kind == "ordinal":
        values = torch.tensor(signal.levels)
        if all(float(level).is_integer() and 0 <= level <= 9 for level in signal.levels):
            options = tuple(f"{level:.0f}" for level in signal.levels)
            text = f"{text}, from {options[0]} to {options[-1]}? Answer with the number.\nAnswer:"
            return Question(signal, text, options, values, values)
        low = high = values
        names = [f"{level:g}" for level in signal.levels]
    else:
        edges = torch.linspace(*signal.bounds, _BANDS + 1)
        low, high = edges[:-1], edges[1:]
        names = [f"{a:.3g} to {b:.3g}" for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    if len(names) > len(LETTERS):
        raise LanguageModelError(
            f"'{said}' has {len(names)} levels; a language model is asked for {len(LETTERS)} at most"
        )
    options = tuple(LETTERS[: len(names)])
    key = ", ".join(f"{letter} = {name}" for letter, name in zip(options, names, strict=True))
    return Question(signal, f"{text}? {key}. Answer with the letter.\nAnswer:", options, low, high)


class PromptWriter:
    """Writes the questions about users of one world.

    Args:
        signals: of the world.
        titles: of all items, (N,).
        profile_names: of the features.
        words: around them.
    """

    def __init__(
        self, signals: Sequence[Signal], titles: Sequence[str], profile_names: Sequence[str], words: PromptWords
    ) -> None:
        self.signals, self.words = tuple(signals), words
        self.titles = [" ".join(str(title).split()) for title in titles]
        self.profile_names = tuple(profile_names)
        self.template = words.history or default_template(signals)
        self.template.check(signal.name for signal in signals)

    def openings(self, profile: Tensor, past: Past, slate: Tensor) -> list[str]:
        """What all questions about one user and slate begin with, one a lane: profile (B, p), slate (B, K)."""
        lanes = zip(
            profile.tolist(),
            past.history.tolist(),
            past.feedback.tolist(),
            past.shown.tolist(),
            past.answers.tolist(),
            past.step.tolist(),
            past.days_away.tolist(),
            slate.tolist(),
            strict=True,
        )
        return [self._opening(*lane) for lane in lanes]

    def about_item(self, opening: str, place: int, item: int, asked: Question) -> Prompt:
        """A signal at one place of the slate."""
        return Prompt(opening, f"About number {place + 1}, {self.titles[item]}: {asked.text}")

    def about_leaving(self, opening: str, taken: Sequence[int]) -> Prompt:
        """Whether the user stops now, having taken these items."""
        said = ", ".join(self.titles[item] for item in taken) or "nothing"
        return Prompt(opening, f"You took {said}. Do you stop using the app now? Answer yes or no.\nAnswer:")

    def _opening(
        self,
        profile: list[float],
        history: list[int],
        feedback: list[list[float]],
        shown: list[list[int]],
        answers: list[list[list[float]]],
        step: int,
        days_away: float,
        slate: list[int],
    ) -> str:
        n = len(self.titles)
        own = [(item, values) for item, values in zip(history, feedback, strict=True) if item < n]
        own = own[-self.words.most_items :]
        told = history_text(
            [self.titles[item] for item, _ in own], [self._given(values) for _, values in own], self.template
        )
        lines = [self.words.role]
        if profile:
            lines.append(f"About the person: {persona(profile, self.profile_names)}.")
        lines.append(f"Chosen before, oldest first: {told}.")
        if days_away > 0:
            lines.append(f"The person is back after {days_away:.0f} day(s).")
        remembered = min(step, len(shown), self.words.most_slates)
        for items, values in zip(shown[len(shown) - remembered :], answers[len(answers) - remembered :], strict=True):
            seen = [self._remembered(item, v) for item, v in zip(items, values, strict=True) if item < n]
            lines.append(f"Shown a moment ago: {', '.join(seen) or 'nothing'}.")
        now = [f"{place}. {self.titles[item]}" for place, item in enumerate(slate, start=1) if item < n]
        lines.append(f"Shown now, from the top: {'; '.join(now) or 'nothing'}.\n")
        return "\n".join(lines)

    def _given(self, values: list[float]) -> dict[str, float]:
        """Signals other than consumption; 0 stands for not given in the core's record."""
        pairs = zip(self.signals[1:], values[1:], strict=True)
        return {signal.name: value for signal, value in pairs if value != 0 or signal.kind == "binary"}

    def _remembered(self, item: int, values: list[float]) -> str:
        taken = "taken" if values[0] > 0.5 else "not taken"
        return f"{self.titles[item]} ({taken})"


def persona(profile: Sequence[float], names: Sequence[str]) -> str:
    """Features of a profile in words: categories by name, numbers by how far from the average they lie.

    >>> persona([1.2, 0.0, 1.0], ["age", "plan=free", "plan=paid"])
    'age above average, plan paid'
    """
    said = []
    for value, name in zip(profile, names, strict=True):
        column, equals, category = name.partition("=")
        if equals:
            said += [f"{column} {category}"] if value > 0.5 else []
        else:
            said.append(f"{column} " + next((word for limit, word in _DEGREES if value < limit), "far above average"))
    return ", ".join(said) or "nothing known"
