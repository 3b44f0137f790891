"""Users who say what they want, on top of any simulator: a wish shifts what they take, and they rate what they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from recloop.encoders.base.artifact import Artifact
from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.fast import SpreadFreeUsers
from recloop.envs.users.odds import check_draws_by_item, expected_with_odds, other_odds, utility_with_odds
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.users.speaking.wishes import Wishes

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


@dataclass(frozen=True)
class Speech:
    """How strong wishes are, how they come and go, and how users answer. No log tells of it: all of this is assumed.

    Args:
        strength: log-odds between an item that fits the wish and one that does not: one half up, the other down. 0
            leaves every answer as it would be without words.
        wishes: chance that a session, or what follows the end of a wish, has a wish.
        spoken: chance that a wish is said when it comes; else it is said when asked for.
        changes: chance after a slate that a wish turns into another, or that somebody without one gets one.
        enough: items that fit and were taken after which a wish is met.
        patience: slates in a row, questions aside, of which nothing that fits was taken before a wish is given up.
        quits: chance that who gives a wish up leaves with it; of no effect at strength 0.
        tells: chance that a question is answered truly.
        misunderstands: chance that it is answered with another wish; else it is not answered.
        rating_noise: standard deviation of the share that a rating is made from.
    """

    strength: float = 2.0
    wishes: float = 0.8
    spoken: float = 1.0
    changes: float = 0.05
    enough: int = 3
    patience: int = 4
    quits: float = 0.5
    tells: float = 0.9
    misunderstands: float = 0.05
    rating_noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("wishes", "spoken", "changes", "quits", "tells", "misunderstands"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserSimulatorError(f"Speech.{name}={getattr(self, name)} must lie in [0, 1]")
        if self.tells + self.misunderstands > 1:
            raise UserSimulatorError(
                f"Speech.tells={self.tells} and misunderstands={self.misunderstands} add up to more than 1; lower one"
            )
        if not 0 <= self.strength < float("inf") or not 0 <= self.rating_noise < float("inf"):
            raise UserSimulatorError(
                f"Speech.strength={self.strength}, rating_noise={self.rating_noise}; give finite numbers from 0 on"
            )
        if self.enough < 1 or self.patience < 1:
            raise UserSimulatorError(f"Speech.enough={self.enough}, patience={self.patience}; both at least 1")


@dataclass(frozen=True)
class SpeakingState(State):
    """Users with a wish.

    Args:
        own: the state of who they are without words.
        user: int64 (B,) rows of the wishes' table of users.
        wish: int64 (B,); W is none.
        words: int64 (B,) what they said last, a row of the wishes' words; W V is nothing.
        met: int64 (B,) items that fit and were taken.
        waited: int64 (B,) slates in a row of which nothing that fits was taken.
    """

    own: Any
    user: Tensor
    wish: Tensor
    words: Tensor
    met: Tensor
    waited: Tensor


class SpeakingUsers(SpreadFreeUsers, Artifact):
    """Users who say what they want, whoever they are without words.

    With a wish, an item that fits has `strength` more log-odds to be taken than one that does not; everything else
    that a user does follows from what was taken, by their own model. A wish is met, given up or changed as `Speech`
    says, and followed by another or by none. What was said stands in `observation["instruction"]`; what was meant only
    `meant` tells. Every slate is rated from 1 to 5: by the share of it that fits, or of a user without a wish by the
    share taken (`Response.rating`).

    **A slate without any item is a question**, "what would you like?": it costs a turn, and with it what an empty slate
    costs with these users; the answer is the wish in other words, another wish, or nothing.

    Users who start cold (`infer`) have no wish at first.

    Args:
        users: they must draw consumption by item with `draw.uniform` or `draw.gumbel`, under the purpose `consume` or
            the name of the first signal, as fitted and written-down users do.
        wishes: of the world.
        speech: how strong, how long.
        meaning: int64 (W,): wish w is said in the words of wish meaning[w]; default its own. A drift of wording.
        voiced: rows of the wishes that come up at all; default all.

    Raises:
        UserSimulatorError: a `meaning` that is no permutation, no wish that comes up, and from `prepare` for users
            who do not draw by item.
    """

    artifact_file = "speaking"
    artifact_error = UserSimulatorError

    kind: ClassVar[str] = "speaking"

    def __init__(
        self,
        users: UserSimulator,
        wishes: Wishes,
        speech: Speech | None = None,
        *,
        meaning: Sequence[int] | Tensor | None = None,
        voiced: Sequence[int] | Tensor | None = None,
    ) -> None:
        self.users, self.wishes, self.speech, self.signals = users, wishes, speech or Speech(), users.signals
        everything = torch.arange(len(wishes.names))
        self.meaning = _permutation(everything if meaning is None else meaning, len(everything))
        self.voiced = everything if voiced is None else torch.as_tensor(voiced, dtype=torch.int64)
        if not len(self.voiced) or int(self.voiced.min()) < 0 or int(self.voiced.max()) >= len(everything):
            raise UserSimulatorError(
                f"voiced names {self.voiced.tolist()}; give rows of wishes, from 0 to {len(everything) - 1}"
            )

    def without_spread(self) -> UserSimulator:
        """The same users, without spread where they know a way."""
        users = self.users.without_spread() if isinstance(self.users, SpreadFreeUsers) else self.users
        return SpeakingUsers(users, self.wishes, self.speech, meaning=self.meaning, voiced=self.voiced)

    def prepare(self, world: WorldData, device: torch.device | str) -> None:
        """Prepare the users, and tables of wishes and words."""
        self.users.prepare(world, device)
        self.device = torch.device(device)
        wishes, none = self.wishes, len(self.wishes.names)
        if wishes.fits.shape[1] != len(world.catalogue) or len(wishes.likely) != len(world.users) + 1:
            raise UserSimulatorError(
                f"the wishes are those of {wishes.fits.shape[1]} items and {len(wishes.likely) - 1} users, world "
                f"'{world.name}' has {len(world.catalogue)} and {len(world.users)}; make them for this world"
            )
        if self.speech.strength:
            check_draws_by_item(self.users, world, self.device, "hear a wish")
        self._fits = torch.nn.functional.pad(wishes.fits, (0, 1, 0, 1)).to(self.device)  # (W+1, N+1)
        likely = torch.zeros_like(wishes.likely)
        likely[:, self.voiced] = wishes.likely[:, self.voiced]
        chances = (likely / likely.sum(1, keepdim=True)).cumsum(1)
        self._chances = chances.to(self.device)  # (U+1, W)
        first = torch.cat([self.meaning * wishes.wordings, self.meaning.new_tensor([none * wishes.wordings])])
        self._first = first.to(self.device)  # (W+1,)
        self._vectors = torch.nn.functional.pad(wishes.vectors, (0, 0, 0, 1)).to(self.device)  # (W V + 1, u)

    def arrive(self, users: Tensor, draw: Draw) -> SpeakingState:
        """Who they are, and the wish that they come with."""
        wish = self._wish(users, draw)
        zeros = torch.zeros_like(users)
        return SpeakingState(self.users.arrive(users, draw), users, wish, self._words(wish, draw), zeros, zeros)

    def respond(self, state: SpeakingState, past: Past, slate: Tensor, draw: Draw) -> tuple[SpeakingState, Response]:
        """See the class."""
        speech, none, held = self.speech, len(self.wishes.names), slate < self._fits.shape[1] - 1
        own, response = self._answered(state, past, slate, draw)
        asked, wants = ~held.any(1), state.wish < none
        taken = (response.signals[..., 0] > 0.5) & response.given[..., 0]
        fits = self._fits[state.wish.unsqueeze(1), slate]
        hits = (fits & taken).sum(1)
        met = state.met + hits
        waited = torch.where(hits > 0, 0, state.waited + (~asked).long())
        done = wants & (met >= speech.enough)
        tired = wants & ~done & (waited >= speech.patience)
        changed = ~done & ~tired & (draw.uniform("wish changes") < speech.changes)
        if speech.strength:
            response = replace(response, left=response.left | (tired & (draw.uniform("wish quits") < speech.quits)))
        share = torch.where(wants, fits.sum(1), taken.sum(1)) / held.sum(1).clamp_min(1)
        noisy = (share + speech.rating_noise * draw.normal("wish rating")).clamp(0, 1)
        response = replace(response, rating=torch.where(asked, 0.0, (1 + 4 * noisy).round()))
        ended, zeros = done | tired | changed, torch.zeros_like(met)
        wish = torch.where(ended, self._wish(state.user, draw), state.wish)
        words = torch.where(ended, self._words(wish, draw), torch.where(asked, self._told(state, draw), state.words))
        after = SpeakingState(
            own, state.user, wish, words, torch.where(ended, zeros, met), torch.where(ended, zeros, waited)
        )
        return after, response

    def resume(self, state: SpeakingState, days_away: Tensor, draw: Draw) -> SpeakingState:
        """A new session has a wish of its own."""
        wish, zeros = self._wish(state.user, draw), torch.zeros_like(state.met)
        own = self.users.resume(state.own, days_away, draw)
        return SpeakingState(own, state.user, wish, self._words(wish, draw), zeros, zeros)

    def infer(self, past: Past, profile: Tensor) -> SpeakingState:
        """The users' guess, of people without a wish who are in no table."""
        zeros = torch.zeros(len(profile), dtype=torch.int64, device=profile.device)
        none = len(self.wishes.names)
        nobody, silent = zeros + len(self.wishes.likely) - 1, zeros + none * self.wishes.wordings
        return SpeakingState(self.users.infer(past, profile), nobody, zeros + none, silent, zeros, zeros)

    def expected(self, state: SpeakingState, past: Past, slate: Tensor) -> Expected | None:
        """The users' own, consumption with the odds of the wish; exact where items do not compete in a slate."""
        found = self.users.expected(state.own, past, slate)
        return expected_with_odds(found, self._shift(state.wish, slate)) if self.speech.strength else found

    def utility(self, state: SpeakingState, past: Past, items: Tensor) -> Tensor | None:
        """The users' own with the odds of the wish; see `utility_with_odds`."""
        found = self.users.utility(state.own, past, items)
        shift = self._shift(state.wish, items.expand(len(state.wish), -1) if items.dim() == 1 else items)
        return utility_with_odds(self.users, found, shift) if self.speech.strength else found

    def says(self, state: SpeakingState) -> Tensor:
        """What was said last, as vectors (B, u); zero is nothing."""
        return self._vectors[state.words]

    def meant(self, state: SpeakingState) -> list[str]:
        """What each user wants, by name; blank for nothing."""
        names = (*self.wishes.names, "")
        return [names[wish] for wish in state.wish.tolist()]

    def said(self, state: SpeakingState) -> list[str]:
        """What each user said last, in words; blank for nothing."""
        texts = (*self.wishes.texts, "")
        return [texts[words] for words in state.words.tolist()]

    def stored_facts(self) -> dict[str, Any]:
        """How they speak."""
        return {"speech": asdict(self.speech)}

    def stored_tensors(self) -> dict[str, Tensor]:
        """What words mean, and which wishes come up."""
        return {"meaning": self.meaning, "voiced": self.voiced}

    def stored_children(self) -> dict[str, Artifact]:
        """The wishes."""
        return {"wishes": self.wishes}

    def write(self, folder: Path) -> None:
        """The users beside."""
        super().write(folder)
        save_simulator(self.users, folder / "users")

    @classmethod
    def restored(cls, facts: dict[str, Any], tensors: dict[str, Tensor], folder: Path, **context: Any) -> Self:
        """See `Artifact`."""
        return cls(
            load_simulator(folder / "users"), Wishes.load(folder / "wishes"), Speech(**facts["speech"]), **tensors
        )

    def _answered(self, state: SpeakingState, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        """What the users do, with the odds of the wish."""
        if not self.speech.strength:
            return self.users.respond(state.own, past, slate, draw)
        return self.users.respond(state.own, past, slate, other_odds(self.users, draw, self._shift(state.wish, slate)))

    def _shift(self, wish: Tensor, items: Tensor) -> Tensor:
        """Log-odds (B, C) that a wish gives items (B, C): half the strength up or down; 0 without a wish."""
        half = (self._fits[wish.unsqueeze(1), items].float() - 0.5) * self.speech.strength
        return half * (wish < len(self.wishes.names)).unsqueeze(1)

    def _wish(self, users: Tensor, draw: Draw) -> Tensor:
        """A wish by what is likely for users (B,), or none."""
        luck = draw.uniform("wish").unsqueeze(1)
        which = torch.searchsorted(self._chances[users], luck).squeeze(1).clamp(max=len(self.wishes.names) - 1)
        return torch.where(draw.uniform("wishes") < self.speech.wishes, which, len(self.wishes.names))

    def _words(self, wish: Tensor, draw: Draw) -> Tensor:
        """How a wish is said when it comes, if it is."""
        said = draw.uniform("wish is said") < self.speech.spoken
        return torch.where(said, self._worded(wish, draw), len(self._vectors) - 1)

    def _worded(self, wish: Tensor, draw: Draw) -> Tensor:
        """Words for wishes (B,), by luck; the row of nothing for none."""
        way = (draw.uniform("words") * self.wishes.wordings).long().clamp(max=self.wishes.wordings - 1)
        return self._first[wish] + torch.where(wish < len(self.wishes.names), way, 0)

    def _told(self, state: SpeakingState, draw: Draw) -> Tensor:
        """What is said when asked: the wish, another one, or what was said before."""
        speech, luck, many = self.speech, draw.uniform("answer"), len(self.wishes.names)
        other = (state.wish + 1 + (draw.uniform("wrong answer") * (many - 1)).long().clamp(max=many - 2)) % many
        told = torch.where(luck < speech.tells, self._worded(state.wish, draw), state.words)
        wrong = (luck >= speech.tells) & (luck < speech.tells + speech.misunderstands)
        told = torch.where(wrong, self._worded(other, draw), told)
        return torch.where(state.wish < many, told, len(self._vectors) - 1)


def _permutation(order: Sequence[int] | Tensor, size: int) -> Tensor:
    found = torch.as_tensor(order, dtype=torch.int64)
    if found.shape != (size,) or not torch.equal(found.sort().values, torch.arange(size)):
        raise UserSimulatorError(f"meaning={found.tolist()}; give each of 0 to {size - 1} once")
    return found
