"""What a policy's value may be, given how much of it lies beyond the log: a pessimistic and an optimistic value."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recloop.envs.evidence.support.model import SupportModel


@dataclass(frozen=True)
class BracketRules:
    """The constants of brackets and flags, in one place.

    The two limits were set on the truth worlds of `experiments.comparison.claims.FIXED_ON`: a distance from every
    logged step is common there in policies whose value is right, so that only those are flagged that hardly ever meet
    the log, or whose value may be half as large again.

    Args:
        spread: standard deviations over the ensemble's members that a policy's value may be off by.
        full_at: distance, in multiples of the threshold, from which on a step's worth is wholly unknown; between 1 and
            this it is so in part.
        model_error: share of any value that may be wrong although every step lies inside the log: what the replay
            gates let pass.
        planning: further share of its value by which a policy may be worth less that plans on the training users' own
            model, whose errors it finds and takes for taste: a value that is half as high again stays in the bracket.
        outside_limit: a policy with a larger share of steps outside the support is flagged.
        width_limit: so is one whose bracket's half width is a larger share of its value.
    """

    spread: float = 2.0
    full_at: float = 2.0
    model_error: float = 0.1
    planning: float = 0.25
    outside_limit: float = 0.95
    width_limit: float = 0.5


class BracketTally:
    """Adds up what B lanes earn at worst and at best, step by step, each lane's first episode.

    A step at distance x from the log (1 is the threshold) is unknown in the share u = (x - 1) / (full_at - 1), within
    [0, 1]. Its reward r is worth at worst (1 - u) r + u x low and at best (1 - u) r + u x high, where low and high are
    what logged steps were worth. Leaving is as unknown:
    at worst a further u x (leave_high - leave_mean) of the lanes leave after it; at best a lane that left after it
    stays in the share u, and earns `high` a step for as long as lanes stay that leave with probability leave_low.

    Args:
        support: fitted; on the lanes' device.
        rules: the constants.
        batch: B.
        max_steps: time limit of an episode.
        device: of the lanes.
    """

    def __init__(
        self, support: SupportModel, rules: BracketRules, batch: int, max_steps: int, device: torch.device
    ) -> None:
        self.support, self.rules, self.max_steps = support, rules, max_steps
        zeros = torch.zeros(batch, dtype=torch.float64, device=device)
        self.outside, self.low, self.high = zeros, zeros, zeros
        self.staying = torch.ones_like(zeros)

    def add(self, distance: Tensor, reward: Tensor, left: Tensor, alive: Tensor, step: int) -> None:
        """One step of lanes that are `alive`, all (B,); `step` counts from 0.

        Args:
            distance: in multiples of the threshold.
            reward: what the lane earned.
            left: the user left after it.
        """
        rules, logged = self.rules, self.support.reward_range
        unknown = ((distance.double() - 1) / (rules.full_at - 1)).clamp(0, 1)
        earned = reward.double()
        low = (1 - unknown) * earned + unknown * logged.reward_low
        high = (1 - unknown) * earned + unknown * logged.reward_high
        more = unknown * left * max(logged.reward_high, 0.0) * self._more_steps(step)
        self.outside = self.outside + (distance > 1).double() * alive
        self.low = self.low + self.staying * low * alive
        self.high = self.high + (high + more) * alive
        further = max(logged.leave_high - logged.leave_mean, 0.0)
        self.staying = torch.where(alive, self.staying * (1 - unknown * further), self.staying)

    def _more_steps(self, step: int) -> float:
        """Expected steps after `step` of lanes that leave as seldom as any in the log."""
        hazard, left = self.support.reward_range.leave_low, self.max_steps - step - 1
        return float(left) if hazard <= 0 else (1 - (1 - hazard) ** left) * (1 - hazard) / hazard


@dataclass(frozen=True)
class Bracket:
    """A policy's value and what is not known of it.

    Args:
        value: mean return.
        pessimistic, optimistic: where the value may lie; `value` is between them.
        outside: share of steps outside the support.
        flag: why the value is not to be relied on; "" where nothing speaks against it.
    """

    value: float
    pessimistic: float
    optimistic: float
    outside: float
    flag: str

    @property
    def half_width(self) -> float:
        """Half the bracket's width as a share of the value; inf where the value is 0 and the bracket is not."""
        half = (self.optimistic - self.pessimistic) / 2
        return half / abs(self.value) if self.value else (float("inf") if half else 0.0)


def bracket_of(
    values: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    outside: Sequence[float],
    rules: BracketRules | None = None,
    *,
    spreads: Sequence[float] = (),
    planning: bool = False,
) -> Bracket:
    """The bracket of one policy from its means in one or several simulators: it spans what all of them leave open.

    Args:
        values: mean return in each simulator; the first is the one reported.
        lows, highs: mean of the lanes' worst and best in each.
        outside: share of steps outside the support in each; the largest counts.
        spreads: standard deviation of the value over an ensemble's members in each; none where nobody says.
        planning: whether the policy plans on a model of the training users.
    """
    rules = rules or BracketRules()
    spreads = spreads or [0.0] * len(values)
    wrong = [rules.model_error * abs(v) + rules.spread * s for v, s in zip(values, spreads, strict=True)]
    less = rules.planning if planning else 0.0
    pessimistic = min(min(v, low) - w - less * abs(v) for v, low, w in zip(values, lows, wrong, strict=True))
    optimistic = max(max(v, high) + w for v, high, w in zip(values, highs, wrong, strict=True))
    bracket = Bracket(values[0], pessimistic, optimistic, max(outside), "")
    reasons = []
    if bracket.outside > rules.outside_limit:
        reasons.append(f"{bracket.outside:.0%} of its steps lie outside the log's support")
    if bracket.half_width > rules.width_limit:
        reasons.append(f"its value may be {bracket.pessimistic:.2f} to {bracket.optimistic:.2f}")
    return Bracket(values[0], pessimistic, optimistic, bracket.outside, "; ".join(reasons))
