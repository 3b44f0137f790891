"""What words mean: a softmax over wishes on top of a frozen encoder, re-tuned online a step at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.agents.slates import FORBIDDEN

Keep = Literal["nothing", "replay", "ewc"]
"""How what was known is kept while a head is re-tuned: not at all; by lessons of before, drawn again; by a quadratic
penalty on what mattered before (elastic weight consolidation)."""

_STEPS = 5
"""Steps a slate."""
_BIAS = 0.1
"""Length of the bias' steps, as a share of phi's."""
_FIT = 100.0
"""Length of the steps of the first fit."""
_SEEN = 0.5
"""Chance of a wish, in some lesson, from which on it is one of those that are up at present."""
_SHARPNESS = 12.0
"""Logit that the words of a wish give it over words that have nothing in common with it, before anything is tuned."""


@dataclass(frozen=True)
class WishHead:
    """p(wish | words) = softmax(phi h + b), where h are words as the frozen instruction encoder reads them.

    Online softmax regression by gradient steps; the gradient is written out, (p - q) h. New lessons are told apart
    among the wishes that are up at present alone, so that wishes nobody has just now are not unlearned (asymmetric
    cross-entropy, Caccia et al. 2022). Elastic weight consolidation follows Kirkpatrick et al. (2017); difference: the
    Fisher information is that of the lessons the head was fitted on, once, and the penalty is applied implicitly, so
    that no weight makes a step diverge.

    Args:
        phi: float32 (W, u).
        bias: float32 (W,).
        anchor: phi as it was fitted.
        fisher: float32 (W, u) diagonal Fisher information of phi there.
        words: float32 (M, u) lessons of before; and `wish` float32 (M, W) what they meant.
        wish: see `words`.
    """

    phi: Tensor
    bias: Tensor
    anchor: Tensor
    fisher: Tensor
    words: Tensor
    wish: Tensor

    @classmethod
    def fitted(cls, words: Tensor, wish: Tensor, wishes: int, passes: int = 40) -> WishHead:
        """Fitted on words (M, u) of length 1 and the wishes that they stand for, int64 (M,)."""
        told = F.one_hot(wish, wishes).float()
        centre = F.normalize((told.T @ words) / told.sum(0).clamp_min(1).unsqueeze(1), dim=1)
        phi = _SHARPNESS * centre
        head = cls(phi, torch.zeros(wishes), phi, torch.zeros_like(phi), words, told)
        for _ in range(passes):
            head = head._moved(words, told, _FIT)
        chance = head.log_chances(words).exp()
        fisher = ((chance * (1 - chance)).T @ words.square()) / len(words)
        return replace(head, anchor=head.phi, fisher=fisher)

    def log_chances(self, words: Tensor) -> Tensor:
        """Words (B, u) -> log p (B, W)."""
        return (words @ self.phi.T + self.bias).log_softmax(1)

    def tuned(self, words: Tensor, wish: Tensor, rate: float, keep: Keep, strength: float, luck: Tensor) -> WishHead:
        """After a few steps on lessons.

        Args:
            words: (M, u), and `wish` (M, W) how likely each wish is by what came of them; rows of zeros teach nothing.
            wish: see `words`.
            rate: length of a step.
            keep: how what was known is kept.
            strength: of that: lessons of before for each new one, or the weight of the penalty.
            luck: float32 in (0, 1), (R,), for drawing lessons of before.
        """
        heard = wish.sum(1) > 0
        words, wish = words[heard], wish[heard]
        if not len(words):
            return self
        head = self._remembering(words, wish) if keep == "replay" else self
        again = (luck[: int(strength * len(words))] * len(self.words)).long()
        for _ in range(_STEPS):
            head = head._moved(words, wish, rate)
            if keep == "replay" and len(again):
                head = head._moved(head.words[again], head.wish[again], rate)
            if keep == "ewc":
                pull = rate * strength * self.fisher
                head = replace(head, phi=(head.phi + pull * self.anchor) / (1 + pull))
        return head

    def _remembering(self, words: Tensor, wish: Tensor) -> WishHead:
        """With each lesson in the place of the one whose words are nearest, among those of wishes that are up.

        What words mean now is what they mean; what is said of other wishes stays.
        """
        old = ~(wish.amax(0) > _SEEN)[self.wish.argmax(1)]
        place = (words @ self.words.T).masked_fill(old, -torch.inf).argmax(1)
        return replace(self, words=self.words.index_copy(0, place, words), wish=self.wish.index_copy(0, place, wish))

    def _moved(self, words: Tensor, wish: Tensor, rate: float) -> WishHead:
        """One step down the mean cross-entropy of the chances against `wish`, among the wishes that are up."""
        up = wish.amax(0) > _SEEN
        told = wish * up
        told = told / told.sum(1, keepdim=True).clamp_min(1e-9)
        logits = (words @ self.phi.T + self.bias).masked_fill(~up, FORBIDDEN)
        off = (logits.softmax(1) - told) / len(words)  # (M, W)
        return replace(self, phi=self.phi - rate * off.T @ words, bias=self.bias - rate * _BIAS * off.sum(0))
