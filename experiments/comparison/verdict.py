"""The verdict of a comparison in words: what the claims say of all its policies together."""

from collections.abc import Sequence

from recloop.experiments.comparison.claims import PLANNING, Claim
from recloop.experiments.comparison.results import Comparison


def verdict_of(comparison: Comparison, claims: Sequence[Claim]) -> str:
    """Who is best, as far as that is claimed: the headline of the report and the last line of the terminal.

    Policies that read the users' true state are no competitors. What a budget of time did not reach is said.
    """
    said = verdict([c.label for c in comparison.contenders if not c.privileged], claims)
    return " ".join(part for part in (said, comparison.out_of_time) if part)


def verdict(policies: Sequence[str], claims: Sequence[Claim]) -> str:
    """What the claims about some policies say of who is best.

    >>> verdict(["greedy", "ppo"], [Claim("ppo", "greedy", None, {}, {}, against="it may be chance")])
    'Nobody is claimed to be best: nothing is claimed of greedy and ppo. Between ppo and greedy: it may be chance.'
    """
    within = [claim for claim in claims if claim.better in policies and claim.worse in policies]
    made = [claim for claim in within if claim.made]
    if len(policies) < 2:
        return "A verdict needs two policies, and there are fewer."
    beaten = {claim.worse for claim in made}
    leaders = [policy for policy in policies if policy not in beaten]
    if len(leaders) == 1:
        return _of_one(leaders[0], policies, made, within)
    open_pairs = [claim for claim in within if not claim.made and {claim.better, claim.worse} <= set(leaders)]
    others = len(policies) - len(leaders)
    told = (
        f"{_listed(leaders)} are beaten by none, and nothing is claimed between them"
        if others
        else f"nothing is claimed of {_listed(leaders)}"
    )
    return f"Nobody is claimed to be best: {told}.{_why(open_pairs)}"


def _of_one(leader: str, policies: Sequence[str], made: Sequence[Claim], within: Sequence[Claim]) -> str:
    """One policy that nobody beats: over whom, how far that reaches, and what is open."""
    wins = [claim for claim in made if claim.better == leader]
    beats = {claim.worse for claim in wins}
    level = min((claim.level for claim in wins if claim.level is not None), key=lambda found: found.reach)
    held_back = list(dict.fromkeys(reason for claim in wins for reason in claim.held_back))
    reach = f"{level}{f'; not across judges: {_listed(held_back)}' if held_back else ''}"
    missing = [policy for policy in policies if policy not in beats and policy != leader]
    own = (one.warning for one in wins if leader in one.warning.removesuffix(f" {PLANNING}").split(" and "))
    warned = "".join(f" {warning}." for warning in dict.fromkeys(own))
    if not missing:
        return f"{leader} is best: it beats {_listed(sorted(beats))}. This holds for {reach}.{warned}"
    pairs = [claim for claim in within if not claim.made and leader in (claim.better, claim.worse)]
    return (
        f"{leader} is beaten by none and beats {len(beats)} of the {len(policies) - 1} others ({reach}); nothing is "
        f"claimed of it and {_listed(missing)}.{_why(pairs)}{warned}"
    )


def _why(pairs: Sequence[Claim]) -> str:
    """Why nothing is claimed of one of some pairs (within the log, if there is one), and what would settle it."""
    if not pairs:
        return ""
    first = next((pair for pair in pairs if not pair.against.startswith("flagged")), pairs[0])
    more = f"; {first.settle}" if first.settle else ""
    return f" Between {first.better} and {first.worse}: {first.against}{more}."


def _listed(names: Sequence[str]) -> str:
    """Names as a person lists them.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
