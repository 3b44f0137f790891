"""Pairwise claims in a world: "A beats B" where all simulators agree beyond a margin and nothing is against it.

The simulators are the members of the training ensemble, one by one, and the judges. All value the same users with the
same luck, so that a difference is paired. What a claim is worth is counted where there is a truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from recloop.experiments.comparison.ranking import Floats


@dataclass(frozen=True)
class ClaimRules:
    """When a claim is made.

    The constants were set on the truth worlds that `FIXED_ON` names; the others only test them.

    Args:
        margin: share of the larger of the two values that the difference must exceed, in every simulator.
        errors: standard errors of the paired difference that are asked for on top.
        ties: standard errors within which two policies tie in the truth; such a pair counts for nothing.
    """

    margin: float = 0.05
    errors: float = 1.0
    ties: float = 2.0


FIXED_ON = ("boredom", "clicks", "drift")
"""Truth worlds on which the constants of `ClaimRules` may be tuned; the others test them."""


@dataclass(frozen=True)
class PairClaim:
    """What is claimed of two policies.

    Args:
        better, worse: the two; where nothing is claimed, the one with the higher mean over simulators first.
        made: whether it is claimed.
        against: why it is not claimed; empty where it is.
        truth: 1 where the truth says so too, -1 where it says the opposite, 0 where they tie in the truth; None
            where there is no truth.
    """

    better: str
    worse: str
    made: bool
    against: str = ""
    truth: int | None = None

    @property
    def text(self) -> str:
        """As a sentence."""
        if not self.made:
            return f"Nothing is claimed of {self.better} and {self.worse}: {self.against}."
        borne = {1: " The truth bears it out.", -1: " The truth says the opposite.", 0: " In the truth they tie."}
        return f"{self.better} beats {self.worse}.{borne.get(self.truth, '') if self.truth is not None else ''}"


@dataclass(frozen=True)
class ClaimCount:
    """How many claims were made and how many the truth bears out.

    Args:
        pairs: pairs that do not tie in the truth (all pairs where there is no truth).
        made: claims among them.
        right: those that the truth bears out; 0 where there is no truth.
        on_ties: claims about pairs that tie in the truth; counted nowhere else.
    """

    pairs: int
    made: int
    right: int
    on_ties: int = 0


def pair_claims(
    policies: Sequence[str],
    simulators: Floats,
    flagged: Sequence[bool],
    gates_failed: Sequence[str] = (),
    truth: Floats | None = None,
    rules: ClaimRules | None = None,
) -> tuple[PairClaim, ...]:
    """One `PairClaim` for each pair of policies.

    Args:
        policies: names, P.
        simulators: (V, P, U) value of each policy for each user, by ensemble member and judge.
        flagged: (P,) whether a policy goes beyond what the log supports.
        gates_failed: names of the gates that failed; any of them forbids every claim.
        truth: (P, U), or None.
        rules: when a claim is made; default `ClaimRules()`.
    """
    rules = rules or ClaimRules()
    found = []
    for a, b in combinations(range(len(policies)), 2):
        if simulators[:, a].mean() < simulators[:, b].mean():
            a, b = b, a
        against = _against(policies, simulators, a, b, flagged, gates_failed, rules)
        borne = None if truth is None else _in_truth(truth[a] - truth[b], rules.ties)
        found.append(PairClaim(policies[a], policies[b], not against, against, borne))
    return tuple(found)


def count(claims: Sequence[PairClaim]) -> ClaimCount:
    """Claims made and borne out, over the pairs that do not tie in the truth."""
    open_ = [claim for claim in claims if claim.truth != 0]
    made = [claim for claim in open_ if claim.made]
    return ClaimCount(
        pairs=len(open_),
        made=len(made),
        right=sum(claim.truth == 1 for claim in made),
        on_ties=sum(claim.made for claim in claims) - len(made),
    )


def _against(
    policies: Sequence[str],
    simulators: Floats,
    a: int,
    b: int,
    flagged: Sequence[bool],
    gates_failed: Sequence[str],
    rules: ClaimRules,
) -> str:
    if gates_failed:
        return f"a gate failed ({', '.join(gates_failed)})"
    beyond = [policies[i] for i in (a, b) if flagged[i]]
    if beyond:
        return f"{' and '.join(beyond)} beyond the support of the log"
    difference = simulators[:, a] - simulators[:, b]  # (V, U)
    mean = difference.mean(1)
    if (mean <= 0).any():
        return f"{int((mean <= 0).sum())} of {len(mean)} simulators say the opposite"
    larger = np.maximum(np.abs(simulators[:, a].mean(1)), np.abs(simulators[:, b].mean(1)))
    asked = rules.margin * larger + rules.errors * _errors(difference)
    short = int((mean < asked).sum())
    return f"the difference is within the margin for {short} of {len(mean)} simulators" if short else ""


def _in_truth(difference: Floats, ties: float) -> int:
    mean = float(difference.mean())
    if abs(mean) <= ties * float(_errors(difference[None])[0]):
        return 0
    return int(math.copysign(1, mean))


def _errors(differences: Floats) -> Floats:
    """Standard errors of the means of (V, U) paired differences, (V,)."""
    spread = differences.std(axis=1, ddof=1)
    return np.asarray(spread / math.sqrt(differences.shape[1]), dtype=np.float64)
