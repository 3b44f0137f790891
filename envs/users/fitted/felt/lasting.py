"""The tastes of logged users, as all their slates tell of them, and what tastes people have."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.logs.walk import every_step
from recloop.envs.users.fitted.inputs.experience import Experience, ExperienceState
from recloop.envs.users.fitted.inputs.item_facts import PLACE
from recloop.envs.users.fitted.inputs.tastes import drawn

_SLATES = 8192
"""Slates added up at once."""


class Lasting:
    """The tastes of logged users, as far as all their slates tell.

    Args:
        memory: with facts of the items.
        sequences: with slates.
        people: rows of the users.
        columns: (N+1, c) of the items.
    """

    @torch.no_grad()
    def __init__(self, memory: Experience, sequences: Sequences, people: Ints, columns: Tensor) -> None:
        self.memory, self.columns = memory, columns
        self.place = torch.full((sequences.users,), -1)
        self.place[torch.from_numpy(people)] = torch.arange(len(people))
        size = 1 + PLACE
        self.precision, self.pull = torch.zeros(len(people), size, size), torch.zeros(len(people), size)
        self.squares, self.count = torch.zeros(len(people)), torch.zeros(len(people))
        steps = every_step(sequences, people)
        for begin in range(0, len(steps.items), _SLATES):
            some = slice(begin, begin + _SLATES)
            items, answers = torch.from_numpy(steps.items[some]), torch.from_numpy(steps.answers[some])
            outer, pull = self.sums(items, answers)
            of = self.place[torch.from_numpy(steps.users[some])]
            self.precision.index_add_(0, of, outer)
            self.pull.index_add_(0, of, pull)
            held = (items < sequences.catalogue_size).float()
            self.squares.index_add_(0, of, (held * (answers[..., 0] > 0.5)).sum(1))
            self.count.index_add_(0, of, held.sum(1))

    def sums(self, items: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """What slates (Q, K) add to the regression: (Q, 1+r, 1+r), (Q, 1+r)."""
        step = self.memory.inputs(F.embedding(items, self.columns), items, answers, shown=True)
        return self.memory.taste_part(step)

    @torch.no_grad()
    def learn_prior(self, rounds: int = 15) -> None:
        """Mean and covariance of all tastes, and the noise of answers, by expectation and maximisation (Dempster,
        Laird and Rubin 1977) in a linear model with a normal taste a user."""
        memory, total = self.memory, float(self.count.sum())
        prior, pull, noise = memory.prior, memory.prior_pull, memory.noise
        eye = torch.eye(len(pull))
        for _ in range(rounds):
            inverse = torch.linalg.inv(self.precision + prior)
            means = (inverse @ (self.pull + pull).unsqueeze(-1)).squeeze(-1)
            centre = means.mean(0)
            apart = means - centre
            spread = apart.T @ apart / len(means) + inverse.mean(0) * noise + 1e-4 * eye
            fitted = (means.unsqueeze(1) @ self.precision @ means.unsqueeze(2)).flatten()
            rest = self.squares - 2 * (means * self.pull).sum(1) + fitted
            noise = (rest.sum() + noise * (self.precision * inverse).sum()) / max(total, 1)
            prior = noise * torch.linalg.inv(spread)
            pull = prior @ centre
        memory.prior.copy_(prior)
        memory.prior_pull.copy_(pull)
        memory.noise.copy_(noise.clamp_min(1e-4))

    def but_for(
        self, state: ExperienceState, users: Tensor, items: Tensor, answers: Tensor, generator: torch.Generator
    ) -> ExperienceState:
        """States of users with tastes drawn from what all their slates tell but these (B, K), answered (B, K, S)."""
        outer, pull = self.sums(items, answers)
        of, memory = self.place[users], self.memory
        luck = torch.randn(len(of), 1 + PLACE, generator=generator)
        known = self.precision[of] - outer + memory.prior, self.pull[of] - pull + memory.prior_pull
        person = drawn(*known, memory.noise, luck)
        return replace(state, person=person, known=torch.ones_like(state.known))
