"""Ensembles: one family fitted several times on bootstrapped users, with or without propensity weights."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Ints, Sequences
from recloop.envs.users.fitted.config import Family, FitConfig, FitReport
from recloop.envs.users.fitted.ensemble import EnsembleUsers
from recloop.envs.users.fitted.felt.fit import random_felt_likelihood
from recloop.envs.users.fitted.felt.users import FeltUsers
from recloop.envs.users.fitted.fitting.fit import fit_users
from recloop.envs.users.fitted.fitting.prepared import split_rows
from recloop.envs.users.fitted.fitting.propensities import random_likelihood, randomly_shown


def fit_ensemble(
    family: Family,
    sequences: Sequences,
    rows: Ints,
    item_vectors: Tensor,
    profile: Tensor,
    signals: Sequence[Signal],
    *,
    members: int = 3,
    groups: Tensor | None = None,
    config: FitConfig | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[EnsembleUsers, FitReport]:
    """Fit several users of one family on bootstrapped users of one log; see `fit_users` for the arguments.

    With `propensity='auto'` one member is fitted both ways first, and the ensemble goes the way that is likelier on
    the randomly shown places of the users held out.

    Returns:
        The ensemble, and its first member's report.
    """
    if members < 1:
        raise UserSimulatorError(f"members={members}; an ensemble has one or more")
    config = config or FitConfig()

    def fit(config: FitConfig, member: int | None) -> tuple[EnsembleUsers, FitReport]:
        users, report = fit_users(
            family,
            sequences,
            rows,
            item_vectors,
            profile,
            signals,
            groups=groups,
            config=config,
            member=member,
            device=device,
            progress=progress,
        )
        return EnsembleUsers([users]), report

    said: tuple[str, ...] = ()
    if config.propensity == "auto":
        plain = replace(config, propensity="off")
        config = plain
        if randomly_shown(sequences, rows).any():
            weighted = replace(plain, propensity="clipped")
            _, _, test = split_rows(rows, plain.validation_share, torch.Generator().manual_seed(plain.seed))
            found = []
            for way in (plain, weighted):
                users = fit(way, None)[0].members[0]
                likelihood = random_felt_likelihood if isinstance(users, FeltUsers) else random_likelihood
                found.append(likelihood(users, sequences, test, item_vectors, profile, plain))  # type: ignore[arg-type]
            config = weighted if found[1] > found[0] else plain
            said = (
                f"{family} users: propensity weights are {'on' if config is weighted else 'off'}; on randomly shown "
                f"places held out {found[1]:.4f} nats an answer with them, {found[0]:.4f} without.",
            )
    fits = [fit(config, number if members > 1 else None) for number in range(members)]
    report = fits[0][1]
    if members > 1:
        said = (*said, f"{members} {family} members, each fitted on users drawn again; the figures are the first's.")
    ensemble = EnsembleUsers([users.members[0] for users, _ in fits])
    return ensemble, replace(report, learned=(*report.learned, *said))
