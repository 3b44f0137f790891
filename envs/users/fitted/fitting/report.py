"""What a fit is told to the world's card: figures on users it never saw, what was learned, what was assumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.config import FitConfig, FitReport
from recloop.envs.users.fitted.fitting.calibration import Exposure, Scored, assumed_answers
from recloop.envs.users.fitted.fitting.measures import auc, calibration_error, paired_auc

LEAVE = "leave"
"""Name of the hazard among the figures."""
_ALWAYS = 0.99
"""Share of possible places from which a signal counts as always given."""


@dataclass(frozen=True)
class Fit:
    """What a report is made of.

    Args:
        config: of the fit.
        sequences: the log.
        users: rows the weights were fitted on; `held_out` counts the others.
        exposure: what was assumed shown, or None in a log with exposures.
        popularity: float32 (N,) how often `users` consumed each item.
        test: raw scores of the users to measure on.
        epochs: until the best held-out loss.
        repeat_rate: share of consumption that repeats.
        choice: nats a held-out slate as one choice a place, and as one of all places; None where not compared.
        sample: effective sample size of the propensity weights; None without.
    """

    config: FitConfig
    sequences: Sequences
    users: Ints
    held_out: int
    exposure: Exposure | None
    popularity: Tensor
    test: Scored
    epochs: int
    repeat_rate: float
    choice: tuple[float, float] | None = None
    sample: float | None = None


@torch.no_grad()
def report_on(fitted: FittedUsers, fit: Fit) -> FitReport:
    """The report of a finished fit."""
    figures: dict[str, dict[str, float]] = {}
    for s, signal in enumerate(fitted.signals):
        if s == 0 and fit.exposure is not None:
            figures[signal.name] = _assumed_consumption(fitted, fit, fit.exposure)
        else:
            figures[signal.name] = _figures(fitted, fit, s)
    if fitted.leaving is None:
        figures[LEAVE] = _leaving(fitted, fit)
    return FitReport(
        family=fitted.kind,
        figures={name: {key: round(float(value), 6) for key, value in row.items()} for name, row in figures.items()},
        learned=_learned(fitted, fit, figures),
        assumed=_assumed(fitted, fit),
        users=len(fit.users),
        held_out=fit.held_out,
        epochs=fit.epochs,
    )


def logged_values(sequences: Sequences, users: Ints, signal: int) -> Tensor:
    """The values of a signal that users gave, (n,)."""
    slates = sequences.slates
    if slates is None:
        rows = rows_of(sequences.offsets, users)
        return torch.from_numpy(sequences.feedback[rows, signal][sequences.given[rows, signal]])
    rows = rows_of(slates.offsets, users)
    return torch.from_numpy(slates.answers[rows][..., signal][slates.given[rows][..., signal]])


def _calibrated(fitted: FittedUsers, s: int, raw: Tensor) -> Tensor:
    return raw * fitted.heads.scale[s] + fitted.heads.shift[s]


def _assumed_consumption(fitted: FittedUsers, fit: Fit, exposure: Exposure) -> dict[str, float]:
    """Held-out consumptions against items drawn from the assumed exposure."""
    scores, values, weights = assumed_answers(fit.test, exposure.base_rate)
    logits = _calibrated(fitted, 0, scores)
    likelihood = distributions.log_likelihood(fitted.signals[0], logits, fitted.heads.shapes[0], values)
    popularity = torch.cat([fit.popularity, fit.popularity.new_zeros(1)])
    rate = exposure.base_rate
    return {
        "auc": paired_auc(fit.test.scores[0], fit.test.against, fit.test.against_held),
        "auc_base": paired_auc(
            popularity[fit.test.items[0].cpu()],
            popularity[fit.test.against_items.cpu()],
            fit.test.against_held.cpu(),
        ),
        "log_likelihood": float((likelihood * weights).sum()),
        "log_likelihood_base": rate * float(np.log(rate)) + (1 - rate) * float(np.log(1 - rate)),
        "calibration_error": calibration_error(torch.sigmoid(logits), values, weights),
        "count": len(fit.test.scores[0]),
    }


def _figures(fitted: FittedUsers, fit: Fit, s: int) -> dict[str, float]:
    """A signal where it was given, beside the distribution that the fit users' answers have on the whole."""
    signal, shape = fitted.signals[s], fitted.heads.shapes[s]
    score, value = _calibrated(fitted, s, fit.test.scores[s]), fit.test.values[s]
    if len(value) == 0:
        return {"count": 0.0}
    logged = logged_values(fit.sequences, fit.users, s)
    bias, base = distributions.base_shape(signal, logged)
    constant = torch.full_like(value, bias)
    mean = distributions.mean(signal, score, shape)
    low, high = signal.bounds
    figures = {
        "log_likelihood": float(distributions.log_likelihood(signal, score, shape, value).mean()),
        "log_likelihood_base": float(
            distributions.log_likelihood(signal, constant, base.to(value.device), value).mean()
        ),
        "calibration_error": calibration_error((mean - low) / (high - low), (value - low) / (high - low)),
        "count": len(value),
    }
    if signal.kind == "binary":
        figures["auc"] = auc(score, value > 0.5)
        figures["auc_base"] = auc(_item_rates(fit, s)[fit.test.items[s].cpu()], value.cpu() > 0.5)
    else:
        figures["rmse"] = float(((mean - value) ** 2).mean().sqrt())
        figures["rmse_base"] = float(((logged.mean() - value.cpu()) ** 2).mean().sqrt())
    return figures


def _item_rates(fit: Fit, s: int) -> Tensor:
    """How often each item's answers were positive, shrunk to the mean, (N+1,)."""
    slates, n = fit.sequences.slates, fit.sequences.catalogue_size
    if slates is None:
        rows = rows_of(fit.sequences.offsets, fit.users)
        given = fit.sequences.given[rows, s]
        items, values = fit.sequences.items[rows][given], fit.sequences.feedback[rows, s][given]
    else:
        rows = rows_of(slates.offsets, fit.users)
        given = slates.given[rows][..., s]
        items, values = slates.items[rows][given], slates.answers[rows][..., s][given]
    mean = float(values.mean()) if len(values) else 0.0
    hits = np.bincount(items, weights=values, minlength=n + 1)
    return torch.from_numpy((hits + 5 * mean) / (np.bincount(items, minlength=n + 1) + 5))


def _leaving(fitted: FittedUsers, fit: Fit) -> dict[str, float]:
    left, heads = fit.test.left, fitted.heads
    if len(left) == 0 or fit.sequences.slates is None:
        return {"count": 0.0}
    logged = fit.sequences.slates.left[rows_of(fit.sequences.slates.offsets, fit.users)]
    rate = float(((logged == 1).sum() + 0.5) / ((logged >= 0).sum() + 1))
    logits = fit.test.leave * heads.leave_scale + heads.leave_shift
    chance = torch.sigmoid(logits)
    happened = torch.where(left > 0.5, chance, 1 - chance).clamp_min(1e-9)
    return {
        "auc": auc(logits, left > 0.5),
        "auc_base": 0.5,
        "log_likelihood": float(torch.log(happened).mean()),
        "log_likelihood_base": float((left * np.log(rate) + (1 - left) * np.log(1 - rate)).mean()),
        "calibration_error": calibration_error(chance, left),
        "count": len(left),
    }


def _learned(fitted: FittedUsers, fit: Fit, figures: dict[str, dict[str, float]]) -> tuple[str, ...]:
    sentences = []
    on = "held-out users" if fit.held_out else "the same users (too few to hold any out, so no evidence)"
    for name, row in figures.items():
        if row["count"] == 0:
            continue
        if "rmse" in row:
            figure = f"RMSE {row['rmse']:.3f} (always the mean: {row['rmse_base']:.3f})"
        else:
            other = {LEAVE: "chance", fitted.signals[0].name: "popularity"}.get(name, "the item's rate")
            figure = f"AUC {row['auc']:.3f} ({other}: {row['auc_base']:.3f})"
        sentences.append(
            f"{fitted.kind} users, {name}: fitted on {len(fit.users)} users; on {on} {figure}, "
            f"calibration error {row['calibration_error']:.3f}, {row['count']:.0f} answers."
        )
    if fit.choice is not None:
        apart, together = fit.choice
        way = "one of its places or none" if together > apart else "a choice at every place"
        sentences.append(
            f"{fitted.kind} users take a slate as {way}: {together:.4f} nats a held-out slate as one choice, "
            f"{apart:.4f} as one a place."
        )
    if fit.sample is not None:
        sentences.append(
            f"{fitted.kind} users: logged places weigh inverse propensities, clipped; they are worth {fit.sample:.0f} "
            "equal ones."
        )
    return tuple(sentences)


def _assumed(fitted: FittedUsers, fit: Fit) -> tuple[str, ...]:
    sentences = []
    if fit.exposure is not None:
        sentences += [
            "The log does not say what was shown. Exposure is assumed proportional to popularity to the power of "
            f"{fit.config.beta:g}, and consumption given exposure follows from that.",
            f"An item shown by that exposure is assumed to be consumed with probability {fit.exposure.base_rate:g}.",
            "The place in the slate is assumed to have no effect, and nobody tires of what is shown to them.",
        ]
    elif fitted.sizes.positions == 1:
        sentences.append("The place in the slate is assumed to have no effect: the log shows one item at a time.")
    if fitted.leaving is not None:
        sentences.append(fitted.leaving.sentence)
    for s, signal in enumerate(fitted.signals[1:], start=1):
        share = _given_share(fitted, fit, s)
        if share < _ALWAYS:
            sentences.append(
                f"The log holds '{signal.name}' at {share:.0%} of the places where it can exist; simulated users "
                "give it at all of them."
            )
        if fit.exposure is not None and signal.given_on is None:
            sentences.append(
                f"'{signal.name}' was logged with consumption only; what it is elsewhere is assumed to be alike."
            )
    return tuple(sentences)


def _given_share(fitted: FittedUsers, fit: Fit, s: int) -> float:
    """Share of the places where a signal can exist at which the fit users gave it."""
    slates = fit.sequences.slates
    names = [signal.name for signal in fitted.signals]
    parent = fitted.signals[s].given_on
    if slates is None:
        rows = rows_of(fit.sequences.offsets, fit.users)
        given, values = fit.sequences.given[rows], fit.sequences.feedback[rows]
        possible = np.ones(len(rows), dtype=bool)
    else:
        rows = rows_of(slates.offsets, fit.users)
        given, values = slates.given[rows], slates.answers[rows]
        possible = slates.items[rows] < fit.sequences.catalogue_size
    if parent is not None:
        possible = possible & (values[..., names.index(parent)] > 0.5)
    return float(given[..., s][possible].mean()) if possible.any() else 1.0
