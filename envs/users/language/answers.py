"""What a language model is asked and how it answers: by the probabilities of answer tokens, never by prose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recloop.encoders.base.errors import LanguageModelError

LETTERS = "ABCDEFGHIJKLMNOPQRST"
"""Labels of answers that have no digit of their own."""
YES_NO = ("no", "yes")
"""Options of a binary question, in the order of its values."""


@dataclass(frozen=True)
class Prompt:
    """One question.

    Args:
        shared: its beginning, equal for all questions about one user and slate, so that a model may read it once.
        own: the rest; the next token is the answer.
    """

    shared: str
    own: str

    @property
    def text(self) -> str:
        """The whole question."""
        return self.shared + self.own


class AnswerModel(Protocol):
    """Anything that can say how probable each answer to a question is."""

    name: str
    """What reports call it."""

    def probabilities(self, prompts: Sequence[Prompt], options: Sequence[str]) -> Tensor:
        """Probability of each option as the answer: float32 (n, options) on the CPU, rows sum to 1.

        A row is NaN where the model's answer is none of the options. Equal questions get equal answers.

        Raises:
            LanguageModelError: it cannot be asked; what was answered before is kept where it has a store.
        """


def spelled(token: str) -> str:
    """A token as options are compared: without the spaces, quotes and marks around it, in lower case.

    >>> spelled(" Yes."), spelled("▁no"), spelled("Ġ4")
    ('yes', 'no', '4')
    """
    return token.strip(" \n\t\r.\"'▁Ġ*:)(").casefold()


def pooled(chances: Iterable[tuple[str, float]], options: Sequence[str], least_mass: float) -> list[float] | None:
    """Probabilities of the options from those of tokens, renormalised; None where they hold too little of the mass.

    >>> pooled([(" Yes", 0.25), ("yes", 0.125), ("No", 0.125), ("maybe", 0.25)], ["no", "yes"], 0.01)
    [0.25, 0.75]
    """
    wanted = [spelled(option) for option in options]
    sums = [0.0] * len(wanted)
    for token, chance in chances:
        found = spelled(token)
        if found in wanted:
            sums[wanted.index(found)] += chance
    mass = sum(sums)
    if not mass > least_mass:
        return None
    return [value / mass for value in sums]


def as_rows(answers: Sequence[Sequence[float] | None], options: int) -> Tensor:
    """Answers as float32 (n, options), NaN rows for None."""
    nothing = [float("nan")] * options
    return torch.tensor([nothing if answer is None else list(answer) for answer in answers]).reshape(-1, options)


def checked_options(options: Sequence[str]) -> None:
    """`LanguageModelError` where options cannot be told apart."""
    if len(options) < 2 or len({spelled(option) for option in options}) < len(options):
        raise LanguageModelError(f"options {list(options)} cannot be told apart; give two or more different ones")
