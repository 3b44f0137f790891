"""Fast users fitted to a language model's answers, and how faithful they are to it on users they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from recloop.envs.logs.sequences import Ints
from recloop.envs.users.fitted import FitConfig, FitReport, fit_users
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.fitting.measures import auc, calibration_error
from recloop.envs.users.language.asking import Asked, AskedStep
from recloop.envs.users.language.users import LanguageModelUsers
from recloop.envs.world.world import Card, World

DISTILLED = "distilled"
"""Name of the fitted users among a world's simulators."""
_TINY = 1e-6


@dataclass(frozen=True)
class Fidelity:
    """Distilled users against the language model, on users held out from the fit, each told the model's own past.

    Args:
        users, answers: how many of the model's answers about consumption it was measured on.
        calibration_error: of the distilled probability against the model's drawn answers.
        base_rate: share of shown items that the model consumed.
        auc: of the distilled probability; `auc_model` of the model's own, which no imitation passes but by luck.
        log_likelihood: nats an answer; beside it that of the fit users' base rate, and of the model's own probability.
        correlation: of the two probabilities over places.
        mean_difference: mean absolute difference of the two probabilities.
        rmse: by further signal, of the distilled mean where the model answered; `rmse_base` of a constant.
    """

    users: int
    answers: int
    calibration_error: float
    base_rate: float
    auc: float
    auc_model: float
    log_likelihood: float
    log_likelihood_base: float
    log_likelihood_model: float
    correlation: float
    mean_difference: float
    rmse: dict[str, float]
    rmse_base: dict[str, float]

    @property
    def gain(self) -> float:
        """Share of the model's own gain in likelihood over the base rate that the distilled users reach."""
        possible = self.log_likelihood_model - self.log_likelihood_base
        return (self.log_likelihood - self.log_likelihood_base) / possible if possible > _TINY else float("nan")

    def lines(self) -> list[str]:
        """For a person."""
        said = [
            f"calibration error {self.calibration_error:.3f} (base rate {self.base_rate:.3f}), AUC {self.auc:.3f} "
            f"(the model itself {self.auc_model:.3f})",
            f"log-likelihood {self.log_likelihood:.4f} (base rate {self.log_likelihood_base:.4f}, the model itself "
            f"{self.log_likelihood_model:.4f}): {self.gain:.0%} of what there is to gain",
            f"probabilities correlate {self.correlation:.3f} and differ by {self.mean_difference:.3f} on average",
        ]
        for name, value in self.rmse.items():
            said.append(f"{name}: RMSE {value:.3f} (a constant {self.rmse_base[name]:.3f})")
        return said


def fit_to_answers(
    world: World,
    asked: Asked,
    language: LanguageModelUsers,
    *,
    family: Literal["recurrent", "attentive", "factor"] = "recurrent",
    held_out: float = 0.2,
    config: FitConfig | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> tuple[FittedUsers, FitReport, Ints]:
    """Fit users to what a language model answered.

    Args:
        family: of the fitted users.
        held_out: share of the asked users that the fit does not see, at least two.
        config: of the fit; history, lead and leaving follow the world and the language model.

    Returns:
        The users on the CPU, the report of their fit, and the rows of the held-out users.
    """
    least = max(2, round(held_out * len(asked.users)))
    rows, kept = np.sort(asked.users[:-least]), np.sort(asked.users[-least:])
    settings = config or FitConfig()
    settings = replace(
        settings,
        history=world.users.history.shape[1],
        lead=world.users.shown.shape[1],
        leaving=language.leaving or settings.leaving,
    )
    users, report = fit_users(
        family,
        asked.sequences,
        rows,
        world.item_vectors,
        world.users.profile,
        world.signals,
        groups=world.catalogue.groups,
        config=settings,
        device=device,
        progress=progress,
    )
    assert isinstance(users, FittedUsers)
    return users, report, kept


@torch.no_grad()
def fidelity_to_model(
    world: World, language: LanguageModelUsers, distilled: FittedUsers, asked: Asked, held_out: Ints
) -> Fidelity:
    """Hold distilled users against the language model, slate by slate; nothing is asked that it has not answered."""
    distilled.prepare(world, "cpu")
    state: Any = None
    mine, model, answers = [], [], []
    further: dict[int, list[Tensor]] = {s: [] for s in range(1, len(world.signals))}
    for step in asked.steps:
        inside = torch.isin(step.users, torch.from_numpy(held_out))
        if step.number == 0:
            state = distilled.infer(step.past, world.users.profile[step.users])  # exact at the start
        expected = distilled.expected(state, step.past, step.slate).mean
        if bool(inside.any()):
            some = _lanes(step, inside.nonzero()[:, 0])
            chance = language.consumption(some.state, some.past, some.slate)
            held = some.response.given[..., 0]
            model.append(chance[held])
            mine.append(expected[inside][..., 0][held])
            answers.append(some.response.signals[..., 0][held])
            for s, found in further.items():
                there = some.response.given[..., s]
                found.append(torch.stack([expected[inside][..., s][there], some.response.signals[..., s][there]]))
        state = distilled.observe(state, step.slate, step.response.signals)
    base = _base_rates(asked, held_out, len(world.signals))
    return _measured(
        torch.cat(mine),
        torch.cat(model),
        torch.cat(answers),
        {world.signals[s].name: torch.cat(found, dim=1) for s, found in further.items()},
        dict(zip([signal.name for signal in world.signals], base, strict=True)),
        len(held_out),
        world.signals[0].name,
    )


def with_distilled(
    world: World,
    users: FittedUsers,
    report: FitReport,
    fidelity: Fidelity,
    said: Sequence[str],
    figures: dict[str, Any],
) -> World:
    """The world with distilled users beside its own simulators, and what they are on its card."""
    card = world.card
    learned = (*card.learned, *said, *(f"{DISTILLED}: {line}." for line in fidelity.lines()))
    assumed = (*card.assumed, *(f"{DISTILLED}: {sentence}" for sentence in report.assumed))
    found = {
        **card.figures,
        f"users_{DISTILLED}": {signal: dict(values) for signal, values in report.figures.items()},
        "distillation": {**asdict(fidelity), "gain": fidelity.gain, **figures},
    }
    not_claimed = (*card.not_claimed, f"That real people would answer as '{DISTILLED}' users do is not claimed.")
    return replace(
        world.with_simulators(**{DISTILLED: users}),
        card=Card(learned, assumed, not_claimed, found, card.cleaning),
    )


def _lanes(step: AskedStep, index: Tensor) -> AskedStep:
    return replace(
        step,
        users=step.users[index],
        state=step.state.rows(index),
        past=step.past.rows(index),
        slate=step.slate[index],
        response=step.response.rows(index),
    )


def _base_rates(asked: Asked, held_out: Ints, signals: int) -> list[float]:
    """Mean of each signal over what the users who were fitted on answered."""
    fitted = [_lanes(m, (~torch.isin(m.users, torch.from_numpy(held_out))).nonzero()[:, 0]) for m in asked.steps]
    means = []
    for s in range(signals):
        values = torch.cat([m.response.signals[..., s][m.response.given[..., s]] for m in fitted])
        means.append(float(values.mean()) if len(values) else 0.0)
    return means


def _measured(
    mine: Tensor,
    model: Tensor,
    answers: Tensor,
    further: dict[str, Tensor],
    base: dict[str, float],
    users: int,
    consumption: str,
) -> Fidelity:
    def likelihood(chance: Tensor) -> float:
        chance = chance.clamp(_TINY, 1 - _TINY)
        return float(torch.where(answers > 0.5, chance, 1 - chance).log().mean())

    rmse = {name: float((pair[0] - pair[1]).square().mean().sqrt()) for name, pair in further.items() if pair.numel()}
    rmse_base = {name: float((base[name] - further[name][1]).square().mean().sqrt()) for name in rmse}
    return Fidelity(
        users=users,
        answers=len(answers),
        calibration_error=calibration_error(mine, answers),
        base_rate=float(answers.mean()),
        auc=auc(mine, answers > 0.5),
        auc_model=auc(model, answers > 0.5),
        log_likelihood=likelihood(mine),
        log_likelihood_base=likelihood(torch.full_like(answers, base[consumption])),
        log_likelihood_model=likelihood(model),
        correlation=float(torch.corrcoef(torch.stack([mine, model]))[0, 1]),
        mean_difference=float((mine - model).abs().mean()),
        rmse=rmse,
        rmse_base=rmse_base,
    )
