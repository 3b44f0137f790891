"""How every gate ends: passed, failed, or it cannot tell."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a gate, or a line of it, found.

    `passed`: the difference lies inside the tolerance with its whole interval (an equivalence test), not merely that
    none was seen. `failed`: it lies beyond, and chance is no excuse. `cannot_tell`: anything else; a small log can
    neither pass nor fail.
    """

    passed = "passed"
    failed = "failed"
    cannot_tell = "cannot tell"


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several: failed where one failed, passed where all passed and there is one, else it cannot tell.

    >>> str(together([Verdict.passed, Verdict.cannot_tell])), str(together([]))
    ('cannot tell', 'cannot tell')
    """
    found = set(verdicts)
    if Verdict.failed in found:
        return Verdict.failed
    return Verdict.passed if found == {Verdict.passed} else Verdict.cannot_tell


@dataclass(frozen=True)
class GateOutcome:
    """How one gate ended for one kind of users.

    Args:
        gate: such as `replay gate`.
        simulator: the users.
        verdict: passed, failed or cannot tell.
        sentence: what was found, or what is missing.
    """

    gate: str
    simulator: str
    verdict: Verdict
    sentence: str = ""

    @property
    def text(self) -> str:
        """In a few words.

        >>> GateOutcome("replay gate", "judge", Verdict.cannot_tell).text
        'the replay gate cannot tell in judge'
        """
        return f"the {self.gate} {self.verdict} in {self.simulator}"
