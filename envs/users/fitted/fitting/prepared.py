"""What every fit begins with: checks, users held out, sizes, and what is assumed where the log is silent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError, unknown_name
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences, Slates, rows_of
from recloop.envs.logs.walk import ConsumedBefore
from recloop.envs.users.fitted.config import AssumedLeaving, FitConfig
from recloop.envs.users.fitted.fitting.calibration import Exposure
from recloop.envs.users.fitted.inputs.groups import group_sizes
from recloop.envs.users.fitted.memory import Sizes

REPEATS = 0.005
"""Share of repeated consumption from which a log is one whose users consume twice."""
FEW_USERS = 4
"""Below so many users nobody is held out: all are fitted on, and the figures are no evidence."""
_MEMBER_STRIDE = 7919
"""Sets the members' seeds apart from those of fits with neighbouring seeds."""


@dataclass(frozen=True)
class Prepared:
    """What a fit reads.

    Args:
        sequences, vectors, profile, signals, groups, config: see `fit_users`.
        users, tune, test: rows to fit on (some twice in a bootstrapped member), to stop and calibrate on, to measure
            on.
        sizes: of the users to be made.
        leaves: whether anybody is known to have left.
        repeat_rate: share of consumption that repeats.
        exposure: what was assumed shown, or None in a log with exposures.
        generator: of starting weights and sampling, seeded by fit and member.
    """

    sequences: Sequences
    vectors: Tensor
    profile: Tensor
    signals: tuple[Signal, ...]
    groups: Tensor
    config: FitConfig
    users: Ints
    tune: Ints
    test: Ints
    sizes: Sizes
    leaves: bool
    repeat_rate: float
    exposure: Exposure | None
    generator: torch.Generator

    @property
    def leaving(self) -> AssumedLeaving | None:
        """The assumed leaving; None where it is learned."""
        return None if self.leaves else self.config.leaving.known(_goes_on(self.sequences.slates))

    @property
    def held_out(self) -> int:
        """How many users the weights never see."""
        return 0 if self.test is self.users else len(self.tune) + len(self.test)

    @property
    def popularity(self) -> Tensor:
        """float32 (N,) how often `users` consumed each item."""
        return torch.from_numpy(self.sequences.popularity(self.users))


def prepared(
    sequences: Sequences,
    rows: Ints,
    vectors: Tensor,
    profile: Tensor,
    signals: tuple[Signal, ...],
    groups: Tensor | None,
    config: FitConfig,
    member: int | None,
) -> Prepared:
    """Users split, drawn again for a member of an ensemble, and all that is counted of them."""
    rows = active(sequences, rows)
    groups = torch.zeros(len(vectors), 0, dtype=torch.int64) if groups is None else groups
    generator = torch.Generator().manual_seed(config.seed)
    users, tune, test = split_rows(rows, config.validation_share, generator)
    if member is not None:
        generator.manual_seed(config.seed + _MEMBER_STRIDE * (member + 1))
        again = torch.randint(len(users), (len(users),), generator=generator).numpy()
        users = np.sort(users[again])
    slates = sequences.slates
    repeat_rate = sequences.repeat_rate(rows)
    sizes = Sizes(
        catalogue_size=int(sequences.catalogue_size),
        item_dim=vectors.shape[1],
        profile_dim=profile.shape[1],
        exposures=slates is not None,
        positions=slates.items.shape[1] if slates is not None else 1,
        repeats=repeat_rate >= REPEATS,
        hidden=config.hidden,
        rank=config.rank,
        residual=config.residual,
        lead=config.lead,
        groups=group_sizes(groups) if slates is not None else (),
        days=slates is not None and slates.days_away is not None and bool(np.isfinite(slates.days_away).any()),
    )
    exposure = None
    if slates is None:
        before = None if sizes.repeats else ConsumedBefore(sequences, rows)
        assumed = (torch.from_numpy(sequences.popularity(users)) + 1) ** config.beta
        exposure = Exposure(assumed / assumed.sum(), config.base_rate, before)
    return Prepared(
        sequences=sequences,
        vectors=vectors,
        profile=profile,
        signals=signals,
        groups=groups,
        config=config,
        users=users,
        tune=tune,
        test=test,
        sizes=sizes,
        leaves=slates is not None and bool((slates.left[rows_of(slates.offsets, users)] == 1).any()),
        repeat_rate=repeat_rate,
        exposure=exposure,
        generator=generator,
    )


def _goes_on(slates: Slates | None) -> bool:
    """True where a session of the log holds two slates or more."""
    if slates is None:
        return False
    owner = np.repeat(np.arange(len(slates.offsets) - 1), np.diff(slates.offsets))
    return bool(((owner[1:] == owner[:-1]) & (slates.session[1:] == slates.session[:-1])).any())


def active(sequences: Sequences, rows: Ints) -> Ints:
    """Those of the users who have a step to score: were shown something, or consumed where the log holds no more."""
    return rows[(np.diff(sequences.step_offsets) > sequences.first_scored)[rows]]


def split_rows(rows: Ints, share: float, generator: torch.Generator) -> tuple[Ints, Ints, Ints]:
    """Users to fit on, to stop and calibrate on, and to measure on; all the same where they are few."""
    if len(rows) < FEW_USERS:
        everyone = np.sort(rows)
        return everyone, everyone, everyone
    order = rows[torch.randperm(len(rows), generator=generator).numpy()]
    each = max(1, round(len(rows) * share / 2))
    return np.sort(order[2 * each :]), np.sort(order[:each]), np.sort(order[each : 2 * each])


def check_fit(
    family: str,
    families: Collection[str],
    sequences: Sequences,
    rows: Ints,
    item_vectors: Tensor,
    profile: Tensor,
    signals: Sequence[Signal],
) -> None:
    """Raises `UserSimulatorError`: an unknown family, too few users, shapes that do not fit."""
    if family not in families:
        raise UserSimulatorError(unknown_name("family of fitted users", family, families))
    if len(rows) and (rows.min() < 0 or rows.max() >= sequences.users):
        raise UserSimulatorError(f"rows name user {rows.max()}; the log has users 0 to {sequences.users - 1}")
    if len(active(sequences, rows)) == 0:
        beyond = "" if sequences.profile_prefix is None else " beyond what their features tell of"
        raise UserSimulatorError(
            f"none of the {len(rows)} users to fit on has any behaviour{beyond}; give users who have"
        )
    wanted = sequences.catalogue_size + 1
    if item_vectors.dim() != 2 or len(item_vectors) != wanted:
        raise UserSimulatorError(
            f"item_vectors are {tuple(item_vectors.shape)}; a catalogue of {sequences.catalogue_size} items needs "
            f"({wanted}, d), the last row zero for the empty place"
        )
    if not bool(torch.isfinite(item_vectors).all()) or not bool(torch.isfinite(profile).all()):
        raise UserSimulatorError("item_vectors or profile hold NaN or infinite numbers; encode them anew")
    if profile.dim() != 2 or len(profile) != sequences.users:
        raise UserSimulatorError(
            f"profile is {tuple(profile.shape)}; {sequences.users} users need ({sequences.users}, p)"
        )
    if sequences.feedback.shape[1] != len(signals):
        raise UserSimulatorError(
            f"{len(signals)} signals are named, the log's answers carry {sequences.feedback.shape[1]}; name them all"
        )
