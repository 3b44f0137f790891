"""What users felt so far, worked out a slate at a time: the inputs that all families of fitted users may read.

Along a log and in the loop it is the same state, advanced by the same function, beside the same remembered slates; the
cost of a step does not depend on how long the past is. No group and no item has a place of its own: a group is read as
the item's own, or through peaks and sorted counts over all groups, so that what tires a user of one topic is known to
tire of every other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.item_facts import CONTENT, FACTS, PLACE, LoggedItemFacts, empty_facts
from recloop.envs.users.fitted.inputs.slate_context import Reading, Recalled
from recloop.envs.users.fitted.inputs.tastes import default_prior, drawn, posterior
from recloop.envs.users.fitted.memory import FittedState, Memory, Sizes

WINDOWS = (1, 2, 3, 5, 10)
"""Slates looked back at."""
LAGGED, LAGS = (3, 5), (1, 2, 3, 5)
"""Windows that are read as they were some slates ago too, and how many."""
_KEPT = max(max(WINDOWS), max(LAGGED) + max(LAGS)) + 1
"""Slates whose running totals are kept."""
FADES = (0.5, 0.8, 0.95)
"""What is left of the diet after one more slate."""
LATELY = 3
"""Slates that count as the last few."""
TRAITS = PLACE + FACTS + 1
"""Numbers of an item that diets add up; the last is 1 for every item."""
SESSION = TRAITS + 3
"""Numbers of a session: its diet, places shown, places refused, slates with a take."""
_RAW = [*range(8), *range(CONTENT, TRAITS)]
"""Numbers of a diet that are read as they are: the leading half of content, and all else."""
_FAR = 9.0
"""Distance to something that is not there."""
_MOST_UNSEEN = 10.0
"""At most so many places are assumed to have been shown around a consumption of which nobody knows."""


@dataclass(frozen=True)
class ExperienceState(FittedState):
    """What B users felt; T of `TRAITS`, C groups.

    Args:
        profile: float32 (B, p).
        totals: float32 (B, 11, C, 2) items of every group shown and taken up to each of the last slates, newest last,
            less what came before the oldest of them.
        hits: float32 (B, 10) whether anything was taken of each of the last slates, newest last.
        since: float32 (B, 2) slates since something was taken, slates in all.
        diet: float32 (B, 3, T) fading sums over what was consumed.
        session: float32 (B, SESSION) of this session.
        precision, pull: float32 (B, 1+r, 1+r), (B, 1+r) of the regression of takes on where items lie.
        away: float32 (B,) days before this session.
        person: float32 (B, 1+r) the taste that a user has and keeps; who is only watched has none.
        known: bool (B,) whether they have one.
    """

    profile: Tensor
    totals: Tensor
    hits: Tensor
    since: Tensor
    diet: Tensor
    session: Tensor
    precision: Tensor
    pull: Tensor
    away: Tensor
    person: Tensor
    known: Tensor


@dataclass(frozen=True)
class Felt:
    """What a state tells of B users whatever is shown to them next.

    Args:
        users: numbers of the user alone, (B, n) each, by group of inputs.
        by_group: (B, C, f) numbers of every group of items.
        taste, doubt: (B, 1+r), (B, 1+r, 1+r) mean and covariance of the taste.
        person: (B, 1+r) the taste itself, of those who have one; the mean of the others'.
        state: it was read from.
    """

    users: dict[str, Tensor]
    by_group: Tensor
    taste: Tensor
    doubt: Tensor
    person: Tensor
    state: ExperienceState


class Experience(Memory):
    """Advances what users felt, and reads inputs off it. It has no weights: its buffers are facts of the log.

    Args:
        signals: what an answer carries.
        sizes: of the users.
        groups: of the items.
        facts: of the items; without them, room for facts to be loaded into.
        persons: whether every user has a taste that stays, and models read it.
    """

    looks_back = True

    basis: Tensor
    centre: Tensor
    own: Tensor
    facts: Tensor
    widths: Tensor
    rate: Tensor
    prior: Tensor
    prior_pull: Tensor
    noise: Tensor

    def __init__(
        self,
        signals: tuple[Signal, ...],
        sizes: Sizes,
        groups: Groups,
        facts: LoggedItemFacts | None = None,
        persons: bool = False,
    ) -> None:
        super().__init__()
        self.signals, self.sizes, self.groups, self.persons = signals, sizes, groups, persons
        facts = facts or empty_facts(sizes.catalogue_size, sizes.item_dim)
        for name, value in vars(facts).items():
            self.register_buffer(name, value.clone())
        for name, value in default_prior(self.rate).items():
            self.register_buffer(name, value)
        self.user_dim = 0
        self._parts = [1, 1, 1, TRAITS, (1 + PLACE) ** 2, 1 + PLACE, 2 * groups.count]

    def blank(self, profile: Tensor) -> ExperienceState:
        """Users of whom only the profile (B, p) is known."""
        b = len(profile)

        def zero(*shape: int) -> Tensor:
            return profile.new_zeros(b, *shape)

        return ExperienceState(
            steps=zero(),
            profile=profile,
            totals=zero(_KEPT, self.groups.count, 2),
            hits=zero(max(WINDOWS)),
            since=zero(2),
            diet=zero(len(FADES), TRAITS),
            session=zero(SESSION),
            precision=self.prior.expand(b, -1, -1),
            pull=self.prior_pull.expand(b, -1),
            away=zero(),
            person=zero(1 + PLACE),
            known=torch.zeros(b, dtype=torch.bool, device=profile.device),
        )

    def columns(self, table: Tensor) -> Tensor:
        """Traits of every item (N+1, d): where it lies, facts of it, 1; all zero for the empty place."""
        placed = (table - self.centre) @ self.basis
        found = torch.cat([placed, self.own, self.facts, torch.ones_like(placed[:, :1])], dim=1)
        return torch.cat([found[:-1], torch.zeros_like(found[:1])])

    def inputs(self, rows: Tensor, items: Tensor, signals: Tensor, shown: bool) -> Tensor:
        """Slates (..., K) with answers (..., K, S) as sums over their places, order-free: (..., i).

        Of consumption of which nobody knows what was shown beside it, as many average items are assumed to have been.
        """
        seen = shown and self.sizes.exposures
        held = (items < self.sizes.catalogue_size).to(rows.dtype)
        taken = held * (signals[..., 0] > 0.5) if shown else held
        place = torch.cat([held.unsqueeze(-1), rows[..., :PLACE]], dim=-1)  # (..., K, 1+r), zero where empty
        weight = taken.unsqueeze(-1)
        if seen:
            outer = place.transpose(-1, -2) @ place
        else:
            around = (1 / self.rate).clamp(max=_MOST_UNSEEN) * taken.sum(-1)
            outer = torch.diag(self._spread()) * around[..., None, None]
        mine = self.groups.sums(items, torch.stack([held * float(seen), taken], dim=-1))
        happened = (held.amax(-1) if seen else taken.amax(-1)).unsqueeze(-1)
        parts = [
            happened,
            taken.amax(-1, keepdim=True),
            (held * float(seen)).sum(-1, keepdim=True),
            (rows * weight).sum(-2),
            outer.flatten(-2),
            (place * weight).sum(-2),
            mine.flatten(-2),
        ]
        return torch.cat(parts, dim=-1)

    def taste_part(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """What steps (B, i) add to the regression of takes: (B, 1+r, 1+r), (B, 1+r)."""
        _, _, _, _, outer, pull, _ = step.split_with_sizes(self._parts, 1)
        return outer.view(-1, 1 + PLACE, 1 + PLACE), pull

    def advance(self, state: ExperienceState, step: Tensor) -> ExperienceState:
        """One slate on, where anything happened."""
        happened, any_taken, shown, diet, outer, pull, mine = step.split_with_sizes(self._parts, 1)
        b, count = len(step), self.groups.count
        there = happened > 0
        # Windows are of slates; consumption before the log's slates began belongs to none of them.
        slate = there & (shown > 0) if self.sizes.exposures else there
        now = state.totals[:, -1] + mine.view(b, count, 2)
        totals = torch.cat([state.totals[:, 1:], now.unsqueeze(1)], dim=1)
        totals = totals - totals[:, :1]
        waited = torch.where(any_taken[:, 0] > 0, 0, state.since[:, 0] + 1)
        since = torch.stack([waited, state.since[:, 1] + 1], dim=1)
        fades = state.diet.new_tensor(FADES).view(1, -1, 1)
        count_taken = diet[:, -1:]
        session = torch.cat([diet, shown, (shown - count_taken).clamp_min(0), any_taken], dim=1)
        return replace(
            state,
            totals=torch.where(slate.view(-1, 1, 1, 1), totals, state.totals),
            hits=torch.where(slate, torch.cat([state.hits[:, 1:], any_taken], dim=1), state.hits),
            since=torch.where(slate, since, state.since),
            diet=torch.where(there.unsqueeze(2), state.diet * fades + diet.unsqueeze(1), state.diet),
            session=torch.where(slate, state.session + session, state.session),
            precision=state.precision + outer.view_as(state.precision),
            pull=state.pull + pull,
        )

    def at(self, state: ExperienceState, steps: Tensor, away: Tensor | None = None) -> ExperienceState:
        """A session's sums begin anew with its first slate."""
        first = steps == 0
        days = torch.zeros_like(state.away) if away is None else away
        return replace(
            state,
            steps=steps,
            session=torch.where(first.unsqueeze(1), 0.0, state.session),
            away=torch.where(first, days, state.away),
        )

    def read(self, state: ExperienceState) -> Reading:
        """Trees read `felt`; there is no vector."""
        return Reading(state.profile)

    def felt(self, state: ExperienceState) -> Felt:
        """What is read of users once a step."""
        now = state.totals[:, -1:] - state.totals[:, [-1 - w for w in WINDOWS]]  # (B, 5, C, 2)
        lags = [(-1 - lag, -1 - lag - w) for w in LAGGED for lag in LAGS]
        begin, end = (state.totals[:, [pair[i] for pair in lags], :, 1] for i in (1, 0))
        before = end - begin  # (B, 8, C) taken in a window, some slates ago
        shown, taken = now.unbind(-1)
        rate = (taken[:, -1] + 2 * self.rate) / (shown[:, -1] + 2)
        by_group = torch.cat([shown, taken, before, rate.unsqueeze(1)], dim=1).transpose(1, 2)
        taste, doubt = posterior(state.precision, state.pull, self.noise)
        hits = torch.stack([state.hits[:, -w:].mean(1) for w in (1, 3, 5, 10)], dim=1)
        clock = torch.stack([state.steps, state.since[:, 1].clamp(max=100), torch.log1p(state.away)], dim=1)
        return Felt(
            users={
                "peaks over groups": self._peaks(shown, taken, before),
                "slates with a take": torch.cat([hits, state.since[:, :1].clamp(max=30)], dim=1),
                "diet": self._diet(state),
                "session": state.session[:, [*_RAW, TRAITS, TRAITS + 1, TRAITS + 2]],
                "time": clock,
                "profile": state.profile,
            },
            by_group=by_group,
            taste=taste,
            doubt=doubt,
            person=torch.where(state.known.unsqueeze(1), state.person, taste),
            state=state,
        )

    def met(self, state: ExperienceState, draw: Draw) -> ExperienceState:
        """Users of whom each is one person: who has no taste yet draws one from what is known of it, and keeps it."""
        if not self.persons or bool(state.known.all()):
            return state
        traits = torch.arange(1 + PLACE, device=state.pull.device).expand(len(state.pull), -1)
        person = drawn(state.precision, state.pull, self.noise, draw.normal("taste", traits))
        person = torch.where(state.known.unsqueeze(1), state.person, person)
        return replace(state, person=person, known=torch.ones_like(state.known))

    def of_items(self, felt: Felt, past: Recalled, items: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """Numbers of items (B, M) by group of inputs, (B, M, n) each, as if each were shown alone.

        Args:
            past: what happened to the users lately.
            rows: (B, M, T) the items' `columns`.
            columns: (N+1, T) of all items.
        """
        place = torch.cat([torch.ones_like(rows[..., :1]), rows[..., :PLACE]], dim=-1)
        wanted = place @ felt.taste.unsqueeze(-1)  # (B, M, 1)
        unsure = ((place @ felt.doubt) * place).sum(-1, keepdim=True).clamp_min(0).sqrt()
        diet = felt.state.diet[..., :CONTENT] / felt.state.diet[..., -1:].clamp_min(0.5)
        like = rows[..., :CONTENT] @ diet.transpose(1, 2)  # (B, M, 3)
        own = self.groups.at(felt.by_group, items)  # (B, M, G, f)
        peak = felt.users["peaks over groups"]
        most = len(self.groups.sizes) - 1
        gap = (
            own[..., 1:, 2 * len(WINDOWS) - 1] - peak[:, None, :most]
        )  # taken of one's own in ten slates, less the most
        again = (past.shown[:, -1:].flatten(1), past.shown.flatten(1), past.history)
        repeats = torch.stack([(items.unsqueeze(2) == seen.unsqueeze(1)).sum(2) for seen in again], dim=-1)
        return {
            "own groups": torch.cat([own.flatten(-2), gap], dim=-1),
            "similar items": self._similar(past, rows, columns),
            "online taste": torch.cat([wanted, unsure, wanted / unsure.clamp_min(1e-3)], dim=-1),
            "likeness to the diet": like,
            "repeats": repeats.to(rows.dtype),
            "item": rows[..., _RAW[:-1]],
            **({"lasting taste": place @ felt.person.unsqueeze(-1)} if self.persons else {}),
        }

    def _similar(self, past: Recalled, rows: Tensor, columns: Tensor) -> Tensor:
        """Of items (B, M, T) how often what is like them was taken, (B, M, n): rates by kernels of three widths, over
        the remembered slates and the last few; how much was shown and consumed near; how near the nearest lies that
        was taken, refused, consumed."""
        n, place = self.sizes.catalogue_size, rows[..., :CONTENT]
        held = (past.shown < n).to(rows.dtype)
        taken = (held * (past.answers[..., 0] > 0.5)).flatten(1).unsqueeze(1)  # (B, 1, L K)
        held = held.flatten(1).unsqueeze(1)
        seen = self._apart(place, F.embedding(past.shown.flatten(1), columns))  # (B, M, L K) squared
        eaten = self._apart(place, F.embedding(past.history, columns))
        there = (past.history < n).to(rows.dtype).unsqueeze(1)
        lately = LATELY * past.shown.shape[2]
        found = []
        for width in self.widths:
            near = torch.exp(seen * (-0.5 / width**2)) * held
            consumed = (torch.exp(eaten * (-0.5 / width**2)) * there).sum(2)
            parts = [near.sum(2), (near * taken).sum(2)]
            parts += [near[..., -lately:].sum(2), (near * taken)[..., -lately:].sum(2)]
            rate, recent = ((parts[i + 1] + self.rate) / (parts[i] + 1) for i in (0, 2))
            found.append(torch.stack([rate, recent, parts[0], parts[1], parts[3], consumed], dim=-1))
        nearest = [
            F.pad(apart + _FAR**2 * (1 - where), (0, 1), value=_FAR**2).amin(2).clamp(0, _FAR**2).sqrt()
            for apart, where in ((seen, taken), (seen, held - taken), (eaten, there))
        ]
        return torch.cat([*found, torch.stack(nearest, dim=-1)], dim=-1)

    def _apart(self, place: Tensor, others: Tensor) -> Tensor:
        """Squared distances of content, (B, M, c) and (B, P, T) -> (B, M, P)."""
        others = others[..., :CONTENT]
        lengths = place.square().sum(-1, keepdim=True) + others.square().sum(-1).unsqueeze(1)
        return (lengths - 2 * place @ others.transpose(1, 2)).clamp_min(0)

    def after(self, felt: Felt, step: Tensor) -> dict[str, Tensor]:
        """What a session is once its slates, as `inputs` (B, i), are answered: what leaving depends on."""
        state = self.advance(felt.state, step)
        shown, refused, hits = state.session[:, -3:].unbind(1)
        diet = state.session[:, :TRAITS]
        mean = diet[:, _RAW[:-1]] / diet[:, -1:].clamp_min(1)
        return {
            "session": torch.cat([state.session[:, [*_RAW, TRAITS, TRAITS + 1, TRAITS + 2]], mean], dim=1),
            "slates with a take": torch.cat(
                [torch.stack([state.hits[:, -w:].mean(1) for w in (1, 3, 5)], dim=1), state.since[:, :1].clamp(max=30)],
                dim=1,
            ),
            "diet": self._diet(state),
            "rest of the slate": torch.stack([refused / shown.clamp_min(1), hits], dim=1),
        }

    def _diet(self, state: ExperienceState) -> Tensor:
        """What is read of the fading diets: the slower two as they are, of the fastest how much was consumed."""
        return torch.cat([state.diet[:, 1:, _RAW].flatten(1), state.diet[:, :1, -1]], dim=1)

    def _peaks(self, shown: Tensor, taken: Tensor, before: Tensor) -> Tensor:
        """(B, W, C) -> (B, n): over the groups of each grouping the most taken in ten slates; then in every window, now
        and some slates ago; the second most; how many groups anything was taken of; the most shown; the mean."""
        most, rest, begin = [], [], 1
        for size in self.groups.sizes[1:]:
            mine, past, seen = (x[:, :, begin : begin + size] for x in (taken, before, shown))
            begin += size
            two = torch.topk(F.pad(mine, (0, 2)), 2, dim=2).values  # (B, W, 2)
            most.append(two[:, -1, :1])
            rest += [
                two[:, :-1, 0],
                two[:, -2:, 1],
                past.amax(2),
                (mine[:, -1] > 0).sum(1, keepdim=True).to(mine.dtype),
            ]
            rest += [seen[:, 2::2].amax(2), mine[:, -1].mean(1, keepdim=True)]
        return torch.cat([*most, *rest], dim=1) if most else taken.new_zeros(len(taken), 0)

    def _spread(self) -> Tensor:
        """(1+r,) mean squares of where items lie; content has length 1 on the whole."""
        n = self.sizes.catalogue_size
        own = self.own[:n].square().mean(0)
        return torch.cat([own.new_ones(1), own.new_full((CONTENT,), 1 / CONTENT), own])
