"""Claims as data: which of two policies is better, how far that reaches, and what would settle the rest."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from recloop.experiments.comparison.intervals import Interval

PLANNING = (
    "plans on a model of the training users, whose errors it finds and takes for taste: its value is an upper end, "
    "and its bracket is wider"
)
"""Said of every policy that chooses by users fitted on the people that agents train with."""


class Level(StrEnum):
    """How far a claim reaches, the least first."""

    this_policy = "this trained policy in this world"
    this_method = "this method in this world"
    across_judges = "across judges"
    outside = "outside"

    @property
    def reach(self) -> int:
        """1 to 4."""
        return list(Level).index(self) + 1


@dataclass(frozen=True)
class Claim:
    """What is known about the order of two policies.

    Args:
        better, worse: the two; where nothing is claimed, as those say who tell them apart, the judges first.
        level: how far the claim reaches; None where nothing is claimed.
        differences: paired difference of returns, better minus worse, by simulator.
        p: corrected p-values, by simulator.
        against: why nothing is claimed; empty where something is.
        of_training: why a claim is of these trained policies alone and not of what trains them.
        held_back: why a claim does not reach across judges.
        settle: what would settle what is not known; empty where nothing is open.
        warning: what to bear in mind of one of the two.
        seeds: trainings it rests on.
        truth: 1 where the truth says so too, -1 where it says the opposite, 0 where they tie in it; None without one.
        waits: nothing is claimed yet, and more seeds may still bring it.
    """

    better: str
    worse: str
    level: Level | None
    differences: dict[str, Interval]
    p: dict[str, float]
    against: str = ""
    of_training: str = ""
    held_back: tuple[str, ...] = ()
    settle: str = ""
    warning: str = ""
    seeds: int = 1
    truth: int | None = None
    waits: bool = False

    @property
    def made(self) -> bool:
        """Whether anything is claimed."""
        return self.level is not None

    @property
    def reaches_judges(self) -> bool:
        """Whether it holds across judges, or outside: what is claimed of more than these simulated users."""
        return self.level in (Level.across_judges, Level.outside)

    @property
    def text(self) -> str:
        """The claim as a sentence, its level named."""
        if self.level is None:
            return f"Nothing is claimed of {self.better} and {self.worse}: {self.against}."
        seeds = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        said = f"{self.better} beats {self.worse}: {self.level}, {seeds}"
        if self.of_training:
            said += f"; not of the method: {self.of_training}"
        if self.held_back:
            said += f"; not across judges: {', '.join(self.held_back)}"
        borne = {1: " The truth bears it out.", -1: " The truth says the opposite.", 0: " In the truth they tie."}
        return f"{said}.{'' if self.truth is None else borne[self.truth]}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: intervals as lists of ends, the sentence beside them."""
        return {**asdict(self), "text": self.text}


@dataclass(frozen=True)
class ClaimCount:
    """How many pairs are claimed across judges and how many of the claims the truth bears out.

    A claim in this world alone is about simulated users, and no truth can contradict it.

    Args:
        pairs: all pairs, those that tie in the truth too.
        made: claims among them that reach across judges.
        right: those that the truth bears out; 0 without one.
        opposite: those of which it says the opposite; the others are of pairs that tie in it.
        in_world: claims that hold in this world alone.
    """

    pairs: int
    made: int
    right: int
    opposite: int = 0
    in_world: int = 0


def count(claims: Sequence[Claim]) -> ClaimCount:
    """Claims made and borne out, over all pairs: one about a pair that ties in the truth is not borne out."""
    made = [claim for claim in claims if claim.reaches_judges]
    return ClaimCount(
        pairs=len(claims),
        made=len(made),
        right=sum(claim.truth == 1 for claim in made),
        opposite=sum(claim.truth == -1 for claim in made),
        in_world=sum(claim.made for claim in claims) - len(made),
    )
