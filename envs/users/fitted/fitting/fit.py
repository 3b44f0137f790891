"""Fit simulated users on logged ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.fit import FitLoop, fit
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences, rows_of
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.attentive import AttentiveUsers
from recloop.envs.users.fitted.config import Family, FitConfig, FitReport
from recloop.envs.users.fitted.factor import FactorUsers
from recloop.envs.users.fitted.felt.fit import FELT, fit_felt
from recloop.envs.users.fitted.fitting.calibration import (
    Scored,
    calibrate,
    calibrate_leaving,
    choose,
    score,
    score_slates,
)
from recloop.envs.users.fitted.fitting.losses import (
    answer_losses,
    days_loss,
    follow,
    leave_loss,
    leave_parts,
    sampled_softmax,
    step_scores,
)
from recloop.envs.users.fitted.fitting.prepared import Prepared, check_fit, prepared
from recloop.envs.users.fitted.fitting.propensities import effective_sample_size, propensity_weights
from recloop.envs.users.fitted.fitting.report import Fit, logged_values, report_on
from recloop.envs.users.fitted.fitting.windows import WindowMaker, Windows
from recloop.envs.users.fitted.heads import start_heads
from recloop.envs.users.fitted.layers import start_weights
from recloop.envs.users.fitted.neural import NeuralUsers
from recloop.envs.users.fitted.recurrent import RecurrentUsers

NEURAL: dict[str, type[NeuralUsers]] = {
    "recurrent": RecurrentUsers,
    "attentive": AttentiveUsers,
    "factor": FactorUsers,
}
"""Families by name that gradients fit; they share the heads and nothing of how they remember."""
FAMILIES: dict[str, type[FittedUsers]] = {**NEURAL, **FELT}
"""All families by name."""
_LEAVE_RIDGE = 0.01
"""Weight of the squared weights of the hazard: sessions end far more rarely than items are answered."""
_STEPS = 16
"""Fewest gradient steps an epoch, and fewest windows a step, where the log has as many."""
_TUNE_SEED = 1
"""Seed of the sampled items in the held-out loss, so that epochs are compared on the same ones."""


def fit_users(
    family: Family,
    sequences: Sequences,
    rows: Ints,
    item_vectors: Tensor,
    profile: Tensor,
    signals: Sequence[Signal],
    *,
    groups: Tensor | None = None,
    config: FitConfig | None = None,
    member: int | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[FittedUsers, FitReport]:
    """Fit users of one family on the behaviour of `rows` alone; no other user's behaviour is read.

    Where the log holds what was shown, consumption is learned on it. Elsewhere the score of an item estimates
    log P(item | user) against sampled negatives, and becomes a probability under two assumptions that the report
    states: exposure in the log was proportional to popularity^beta, and a shown item is consumed with `base_rate`.

    Args:
        family: `recurrent`, `attentive`, `factor`, `trees` or `network`.
        sequences: the log.
        rows: rows of the users to fit on; a share of them is held out for stopping, calibration and figures.
        item_vectors: float32 (N+1, d); row N is zero.
        profile: float32 (U, p).
        signals: what an answer carries, consumption first.
        groups: int64 (N+1, G) groupings of the items (`Catalogue.groups`); default none.
        config: sizes and settings.
        member: number in an ensemble: starts from weights of its own, and is fitted on users drawn again with
            replacement; those held out are the same for every member.
        device: where to fit; the users come back on the CPU.
        progress: whether to show a bar.

    Returns:
        Users that answer once `prepare` was called, and the report. Equal arguments give equal bits.

    Raises:
        UserSimulatorError: an unknown family, too few users, shapes that do not fit.
    """
    config = config or FitConfig()
    if config.propensity == "auto":
        raise UserSimulatorError("propensity='auto' chooses between two fits; call fit_ensemble")
    rows = np.asarray(rows, dtype=np.int64)
    check_fit(family, FAMILIES, sequences, rows, item_vectors, profile, signals)
    told = prepared(sequences, rows, item_vectors, profile, tuple(signals), groups, config, member)
    if family in FELT:
        return fit_felt(family, told, member or 0)
    training = _Training(family, told, torch.device(device))
    found = training.run(progress)
    fitted = training.fitted
    report = report_on(fitted, found)
    fitted.parts().to("cpu").requires_grad_(False)
    return fitted, report


class _Training:
    """One fit: what it reads, what it moves, and when it stops."""

    def __init__(self, family: str, found: Prepared, device: torch.device) -> None:
        self.prepared, self.config, self.sequences, self.device = found, found.config, found.sequences, device
        self.vectors, self.profile = found.vectors.to(device), found.profile.to(device)
        self.users, self.tune, self.test = found.users, found.tune, found.test
        self.generator, self.leaves, self.exposure = found.generator, found.leaves, found.exposure
        self.fitted = NEURAL[family](found.signals, found.sizes, found.leaving)
        if found.sizes.exposures:
            self.fitted.groups.fill(found.groups)
        start_weights(self.fitted.memory, self.generator)
        start_heads(self.fitted.heads, self.generator)
        if self.fitted.context is not None:
            start_weights(self.fitted.context, self.generator)
            self.fitted.context.last.weight.data.mul_(0.1)
        self._start_from_base_rates()
        self.fitted.parts().to(device)
        config = self.config
        weight = propensity_weights(self.sequences) if config.propensity == "clipped" else None
        self.maker = WindowMaker(
            self.sequences, config.history, config.lead, config.window, self.fitted.memory.looks_back, weight
        )
        self.choice: tuple[float, float] | None = None
        if self.exposure is not None:
            counts = found.popularity
            self.share = 0.5 * (counts + 1) / (counts + 1).sum() + 0.5 / len(counts)
            self.fitted.heads.offset[:-1] = torch.log(counts + 1).to(device)

    def run(self, progress: bool) -> Fit:
        """Passes until the held-out loss rises, then calibration and figures."""
        parts, config = self.fitted.parts(), self.config
        heads = self.fitted.heads
        tabled = [heads.residual, heads.item_bias]
        rest = [weight for weight in parts.parameters() if all(weight is not t for t in tabled)]
        loop = FitLoop(
            passes=config.epochs,
            learning_rate=config.lr,
            schedule="linear",
            clip=5.0,
            patience=config.patience,
            margin=1e-4,
        )
        history = fit(
            parts,
            loop,
            self._batches,
            lambda batch: (self._loss(self.maker.cut(batch), self.generator, learning=True), len(batch)),
            self._held_out_loss,
            groups=[
                {"params": rest, "weight_decay": config.decay},
                {"params": tabled, "weight_decay": config.item_decay},
            ],
            name=f"fit {self.fitted.kind} users",
            progress=progress,
            error=UserSimulatorError,
        )
        return self._finish(history.best + 1)

    def _batches(self) -> Iterator[Ints]:
        """Some of the users' moments in a new order, batch by batch."""
        moments = self.maker.moments(self.users, self.generator)
        order = torch.randperm(len(moments), generator=self.generator)[: self.config.windows_per_epoch]
        size = min(self.config.batch, max(_STEPS, len(order) // _STEPS))
        for some in torch.split(order, size):
            yield moments[some.numpy()]

    def _finish(self, epochs: int) -> Fit:
        """Calibrate on the tune users, look at the test users once."""
        fitted, config = self.fitted, self.config
        if self.exposure is not None:
            fitted.heads.offset *= 1 - config.beta
        generator = torch.Generator().manual_seed(config.seed + 1)
        with torch.no_grad():
            found = self._score(self.tune, generator)
            calibrate(fitted, found, self.exposure)
            if self.exposure is None:
                self.choice = choose(fitted, self._slates(self.tune))
            if self.leaves:
                calibrate_leaving(fitted, self._score(self.tune, generator, calibrated=True))
            test = self._score(self.test, generator, calibrated=True)
        return Fit(
            config=config,
            sequences=self.sequences,
            users=self.users,
            held_out=self.prepared.held_out,
            exposure=self.exposure,
            popularity=self.prepared.popularity,
            test=test,
            epochs=epochs,
            repeat_rate=self.prepared.repeat_rate,
            choice=self.choice,
            sample=effective_sample_size(self.maker.weight) if self.maker.weight is not None else None,
        )

    def _score(self, users: Ints, generator: torch.Generator, calibrated: bool = False) -> Scored:
        return score(self.fitted, self.maker, users, self.vectors, self.profile, self.exposure, generator, calibrated)

    def _slates(self, users: Ints) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return score_slates(self.fitted, self.maker, users, self.vectors, self.profile)

    def _loss(self, windows: Windows, generator: torch.Generator, learning: bool) -> Tensor:
        windows = windows.to(self.device)
        dropout = self.config.dropout if learning else 0.0
        path = follow(self.fitted, self.vectors, self.profile, windows, dropout, generator)
        raw = step_scores(self.fitted, path, windows, windows.items)
        if self.exposure is None:
            losses = answer_losses(self.fitted, windows, raw, first=0)
        else:
            losses = answer_losses(self.fitted, windows, raw, first=1)
            negatives = torch.multinomial(self.share, self.config.negatives, True, generator=generator)
            consumption = sampled_softmax(
                self.fitted,
                path,
                windows,
                raw[:, :, 0, 0] - path.users.bias[..., 0],  # the same for all items
                negatives.to(self.device),
                self.share.to(self.device),
                self.exposure.before,
            )
            losses.append(consumption[windows.scored].mean())
        if self.leaves:
            logits, left = leave_parts(self.fitted, path, windows, raw, calibrated=False)
            if len(left):
                losses.append(leave_loss(logits, left))
                if learning:
                    heads = self.fitted.heads
                    size = heads.leave.weight.square().sum() + heads.ended.weight.square().sum()
                    losses.append(_LEAVE_RIDGE * size)
        if self.fitted.sizes.days:
            away = days_loss(self.fitted, path, windows, raw)
            losses += [] if away is None else [0.2 * away]
        return torch.stack(losses).sum()

    def _held_out_loss(self) -> float:
        """Mean loss of the tune users' windows, on the same sampled items every time."""
        generator = torch.Generator().manual_seed(_TUNE_SEED)
        moments = self.maker.moments(self.tune)
        pieces = [moments[i : i + 256] for i in range(0, min(len(moments), self.config.windows_per_epoch), 256)]
        losses = [float(self._loss(self.maker.cut(piece), generator, learning=False)) for piece in pieces]
        return float(np.average(losses, weights=[len(piece) for piece in pieces]))

    @torch.no_grad()
    def _start_from_base_rates(self) -> None:
        """Every head starts at the distribution that the fit users' answers have on the whole."""
        heads = self.fitted.heads
        for s, signal in enumerate(self.fitted.signals):
            if s == 0 and self.sequences.slates is None:
                continue
            bias, shape = distributions.base_shape(signal, logged_values(self.sequences, self.users, s))
            heads.user_bias.bias[s] = bias
            heads.shapes[s].copy_(shape)
        if self.leaves and self.sequences.slates is not None:
            left = self.sequences.slates.left[rows_of(self.sequences.slates.offsets, self.users)]
            rate = (left == 1).sum() / max((left >= 0).sum(), 1)
            heads.leave.bias.fill_(float(np.log((rate + 1e-3) / (1 - rate + 1e-3))))
