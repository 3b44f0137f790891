"""How users are fitted, what a fit reports, and what is assumed where the log is silent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from recloop.encoders.base.errors import UserSimulatorError, unknown_name

Family = Literal["recurrent", "attentive", "factor", "trees", "network"]
"""The families of fitted users."""


@dataclass(frozen=True)
class AssumedLeaving:
    """When users leave, where no log says so: named as assumed on the world's card.

    Args:
        satisfied: probability in [0, 1] of leaving after a slate of which something was consumed; None: 0 where the
            log shows sessions that go on and nobody who left, 0.05 where it shows no sessions.
        unsatisfied: likewise after a slate of which nothing was consumed; None: 0, or 0.15.
    """

    satisfied: float | None = None
    unsatisfied: float | None = None

    def __post_init__(self) -> None:
        for name in ("satisfied", "unsatisfied"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserSimulatorError(f"{name}={value} is no probability; give 0 to 1")

    def known(self, goes_on: bool) -> "AssumedLeaving":
        """With numbers for what was not given; `goes_on` where the log shows sessions and nobody who left one."""
        satisfied, unsatisfied = (0.0, 0.0) if goes_on else (0.05, 0.15)
        return AssumedLeaving(
            satisfied if self.satisfied is None else self.satisfied,
            unsatisfied if self.unsatisfied is None else self.unsatisfied,
        )

    @property
    def chances(self) -> tuple[float, float]:
        """Satisfied and unsatisfied, once they are known."""
        if self.satisfied is None or self.unsatisfied is None:
            raise UserSimulatorError("what leaving is assumed depends on the log; ask known() first")
        return self.satisfied, self.unsatisfied

    @property
    def sentence(self) -> str:
        """For the card, once the numbers are known."""
        if self.chances == (0, 0):
            return (
                "Nobody is known to have left a session of the log, so users never leave; whether they would beyond "
                "the log's longest session is unknown."
            )
        return (
            f"Leaving is assumed, not learned: {self.satisfied:.0%} after a slate of which something was consumed, "
            f"{self.unsatisfied:.0%} after a slate of which nothing was."
        )


@dataclass(frozen=True)
class FitConfig:
    """Sizes and settings of a fit.

    Args:
        epochs: at most so many passes; stops early by the held-out loss.
        patience: epochs without a better held-out loss before it stops.
        batch: windows a gradient step; fewer in small logs, so that an epoch has 16 steps.
        windows_per_epoch: at most so many windows an epoch, drawn anew each time; bounds the time on big logs.
        history: H, newest consumptions a user is warmed with; the world's own H.
        lead: L, newest slates a user is warmed with; the world's own L (logs with exposures).
        window: T, steps with loss in a window.
        lr: AdamW's first step size; falls to 0 over the epochs.
        decay: AdamW's weight decay.
        item_decay: weight decay of the learned residual and bias of each item.
        hidden: units of the recurrent state, and of the factor family's layer.
        rank: length of the user and item part of each head.
        residual: length of what is learned of each item beside its vector.
        dropout: share of the user vector's entries that are dropped while fitting, in [0, 1).
        negatives: items drawn against each consumption, for all steps of a batch (logs without exposures).
        base_rate: assumed probability that a shown item is consumed (logs without exposures).
        beta: exposure in the log is assumed proportional to popularity^beta (logs without exposures).
        leaving: assumed where the log does not say who left.
        propensity: `off`; `clipped`: every logged place weighs 1 / propensity in the loss, clipped at ten times the
            median; `auto`: whichever has the better held-out likelihood on randomly shown places (`off` where there
            are none).
        validation_share: share of the users held out; half of them for early stopping and calibration, half
            for the reported figures.
        seed: of splits, starting weights and sampling.
    """

    epochs: int = 12
    patience: int = 4
    batch: int = 64
    windows_per_epoch: int = 4096
    history: int = 50
    lead: int = 5
    window: int = 50
    lr: float = 1e-2
    decay: float = 0.01
    item_decay: float = 0.1
    hidden: int = 64
    rank: int = 32
    residual: int = 16
    dropout: float = 0.2
    negatives: int = 256
    base_rate: float = 0.1
    beta: float = 0.5
    leaving: AssumedLeaving = field(default_factory=AssumedLeaving)
    propensity: Literal["off", "clipped", "auto"] = "off"
    validation_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch", "windows_per_epoch", "history", "window", "hidden", "rank"):
            if getattr(self, name) < 1:
                raise UserSimulatorError(f"{name}={getattr(self, name)} of the users' fit must be at least 1")
        for name in ("base_rate", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise UserSimulatorError(f"{name}={getattr(self, name)} of the users' fit must lie inside (0, 1)")
        if self.propensity not in ("off", "clipped", "auto"):
            raise UserSimulatorError(unknown_name("use of propensities", self.propensity, ("off", "clipped", "auto")))
        if not 0 <= self.dropout < 1:
            raise UserSimulatorError(f"dropout={self.dropout} of the users' fit must lie in [0, 1)")


@dataclass(frozen=True)
class FitReport:
    """What a fit of users achieved, on users it held out.

    Args:
        family: `recurrent`, `attentive`, `factor`, `trees` or `network`.
        figures: by signal name (and `leave`), then by figure: `log_likelihood` (nats an answer) beside
            `log_likelihood_base` of a constant, `auc` beside `auc_base`, `rmse` beside `rmse_base`,
            `calibration_error`, `count`.
        learned: sentences for the card.
        assumed: sentences for the card, about what the log does not tell.
        users: users the weights were fitted on; `held_out` those it was stopped, calibrated and measured on.
        epochs: passes until the best held-out loss; of trees, how many.
        inputs: what is lost in nats an answer where a group of inputs is shuffled; empty where nobody measured it.
    """

    family: str
    figures: Mapping[str, Mapping[str, float]]
    learned: tuple[str, ...]
    assumed: tuple[str, ...]
    users: int
    held_out: int
    epochs: int
    inputs: Mapping[str, float] = field(default_factory=dict)
