"""A log in what is learned from and what is held out, and what fitted users predict."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.base.errors import LogError, RecloopError
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.fitting import fit_state_encoder
from recloop.encoders.text.encoder import HashedText, TextEncoder, TextVectors
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.compile import compile_sequences, ordered_rows
from recloop.envs.logs.profiles import profile_features
from recloop.envs.logs.readers import read_coat_log
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.splits import split_per_user_in_time
from recloop.envs.users.fitted import FitConfig, fit_users
from recloop.envs.world.world import Card, Catalogue, UserTable, World
from recloop.experiments.comparison.intervals import Floats, Ints
from recloop.experiments.studies.ratings.matrix_factorisation import Cells

RATING = "rating"
_TUNING = 0.1
"""Share of what is learned from on which settings are chosen."""
_LEAD = 5
"""Slates that an observation holds."""


@dataclass(frozen=True)
class Fitting:
    """How users are fitted for a measurement.

    Args:
        text: model of the items' text: a name, a folder, or `hashed`.
        epochs: most passes of a fit of users.
        state_epochs: most passes of the fit of the item vectors.
        history: newest consumptions that users read.
        seed: of every fit.
        progress: progress bars.
        propensity: use of the log's propensities in the loss, as in `FitConfig`.
    """

    text: str = "hashed"
    epochs: int = 12
    state_epochs: int = 12
    history: int = 50
    seed: int = 0
    progress: bool = False
    propensity: Literal["off", "clipped"] = "off"


@dataclass(frozen=True)
class Parts:
    """A log in what is learned from and what is held out.

    Args:
        log: all of it.
        earlier: what is learned from; its users and items have the rows of `log`.
        learned, held_out: the two parts' ratings as cells, of rows of users and items.
        tuning: int64 places in `learned` on which settings may be chosen: the newest tenth, where there is a newest.
        split: how they were cut, in words.
    """

    log: LoggedBehavior
    earlier: LoggedBehavior
    learned: Cells
    held_out: Cells
    tuning: Ints
    split: str

    @property
    def shape(self) -> tuple[int, int]:
        """(U, N)."""
        return len(self.log.users), len(self.log.items)


def parts_in_time(log: LoggedBehavior, later: float) -> Parts:
    """Every user's rows cut in time (ties by the order of the file): the later share is held out.

    Raises:
        LogError: a log without a signal called rating.
    """
    if RATING not in [signal.name for signal in log.signals]:
        raise LogError(f"{log.name}: it has no signal called rating; there are {[s.name for s in log.signals]}")
    split = split_per_user_in_time(log, {"earlier": 1 - later, "later": later})
    earlier = replace(log, interactions=log.interactions.iloc[split["earlier"]].reset_index(drop=True))
    learned, rows = _cells(log, split["earlier"])
    tuning = np.flatnonzero(np.isin(rows, _newest(earlier)))
    held_out, _ = _cells(log, split["later"])
    return Parts(log, earlier, learned, held_out, tuning, f"per user in time, last {later:.0%} of the rows")


def _newest(log: LoggedBehavior) -> Ints:
    """Positions of every user's newest tenth of rows, one at least where they have two."""
    order, users, _ = ordered_rows(log)
    starts = np.searchsorted(users, users)
    lengths = np.bincount(users)[users]
    kept = np.minimum(np.ceil((1 - _TUNING) * lengths), np.maximum(lengths - 1, 1))
    newest: Ints = order[np.arange(len(order)) - starts >= kept]
    return newest


def coat_parts(folder: Path, seed: int) -> Parts:
    """Coat: learned from self-selected ratings, tested on random ones.

    Raises:
        LogError: parts whose people or coats differ.
    """
    chosen, dealt = clean(read_coat_log(folder))[0], read_coat_log(folder, part="random")
    if not (chosen.users.index.equals(dealt.users.index) and chosen.items.index.equals(dealt.items.index)):
        raise LogError(f"{folder}: a person of the random part has no self-selected rating; both parts need all people")
    learned, _ = _cells(chosen, np.arange(len(chosen.interactions)))
    held_out, _ = _cells(dealt, np.arange(len(dealt.interactions)))
    shuffled = np.random.default_rng(seed).permutation(len(learned.users))
    tuning = np.sort(shuffled[: max(round(_TUNING * len(shuffled)), 1)])
    return Parts(chosen, chosen, learned, held_out, tuning, "learned from self-selected, tested on random")


def fitted_answers(parts: Parts, world: World, family: str, fitting: Fitting) -> tuple[Floats, Floats]:
    """What fitted users, learned from the earlier part, say at its end: ratings (n,) of what is held out, wants (U, N).

    They are inductive: each reads its own earlier part as a history. A want is the logit of consumption given that the
    item is shown, under the exposure that the fit assumes.

    Args:
        parts: the log.
        world: that of the earlier part, from `earlier_world`.
        family: of the users.
        fitting: how they are fitted.

    Raises:
        RecloopError: users that expect nothing or rank nothing.
    """
    sequences = world.sequences
    config = FitConfig(epochs=fitting.epochs, history=fitting.history, seed=fitting.seed, propensity=fitting.propensity)
    simulator, report = fit_users(
        family,  # type: ignore[arg-type]
        sequences,
        np.arange(sequences.users),
        world.item_vectors,
        world.users.profile,
        world.signals,
        config=config,
        progress=fitting.progress,
    )
    print(f"{family}: {report.epochs} epochs")
    simulator.prepare(world, "cpu")
    column = [signal.name for signal in world.signals].index(RATING)
    ratings = np.empty(len(parts.held_out.users))
    for rows in np.array_split(np.arange(len(ratings)), len(ratings) // 4096 + 1):
        users = torch.from_numpy(parts.held_out.users[rows])
        slate = torch.from_numpy(parts.held_out.items[rows]).unsqueeze(1)
        expected = simulator.expected(simulator.arrive(users, _draw(users)), _past(world, users), slate)
        if expected is None:
            raise RecloopError(f"{family} users expect nothing; they cannot be held against ratings")
        ratings[rows] = expected.mean[:, 0, column].numpy()
    wants = []
    for users in torch.split(torch.arange(sequences.users), 128):
        state = simulator.arrive(users, _draw(users))
        want = simulator.utility(state, _past(world, users), torch.arange(sequences.catalogue_size))
        if want is None:
            raise RecloopError(f"{family} users rank nothing; they cannot be held against consumption")
        wants.append(want.numpy())
    return ratings, np.concatenate(wants).astype(np.float64)


def earlier_world(log: LoggedBehavior, fitting: Fitting) -> World:
    """A world at the end of a log, without simulators: item vectors learned from it, and everybody's history."""
    sequences, _, _ = compile_sequences(log)
    everyone = np.arange(sequences.users)
    text: TextVectors = HashedText() if fitting.text == "hashed" else TextEncoder(fitting.text)
    profile, names, _ = profile_features(log.users, everyone)
    encoder = fit_state_encoder(
        {"text": text.encode(list(log.items[Columns.text].fillna("").astype(str)))},
        None,
        sequences.items,
        sequences.offsets,
        sequences.feedback,
        [signal.bounds for signal in log.signals],
        seed=fitting.seed,
        fitting=NextItemConfig(epochs=fitting.state_epochs),
        progress=fitting.progress,
    )
    history, feedback = sequences.last(everyone, fitting.history)
    shown, answers = sequences.last_slates(everyone, _LEAD, 1)
    return World(
        name=log.name,
        signals=log.signals,
        catalogue=Catalogue(
            ids=tuple(map(str, log.items.index)),
            titles=tuple(log.items[Columns.title].astype(str)),
            texts=tuple(log.items[Columns.text].astype(str)),
            popularity=torch.from_numpy(sequences.popularity(everyone)),
        ),
        users=UserTable(
            ids=tuple(map(str, log.users.index)),
            part=torch.zeros(sequences.users, dtype=torch.int64),
            profile=profile,
            profile_names=names,
            history=history,
            feedback=feedback,
            shown=shown,
            answers=answers,
        ),
        sequences=sequences,
        state_encoder=encoder,
        simulators={},
        user_model=None,
        slate_size=1,
        max_steps=1,
        consumes_twice=False,
        reward=WeightedReward({log.consumption.name: 1.0}),
        card=Card(),
    )


def _past(world: World, users: Tensor) -> Past:
    """What is known of users (B,) at the end of the log."""
    table = world.users
    return Past(
        history=table.history[users],
        feedback=table.feedback[users],
        shown=table.shown[users],
        answers=table.answers[users],
        step=torch.zeros(len(users), dtype=torch.int64),
        days_away=torch.zeros(len(users)),
    )


def _draw(users: Tensor) -> Draw:
    """Luck that nobody asks for: expectations are taken, nothing is drawn."""
    zero = torch.zeros_like(users)
    return Draw.at(0, users, zero, zero)


def _cells(log: LoggedBehavior, rows: Ints) -> tuple[Cells, Ints]:
    """The ratings in some rows of a log, in their order, and which of `rows` have one."""
    frame = log.interactions.iloc[rows]
    values = frame[RATING].to_numpy(dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    users = log.users.index.get_indexer(pd.Index(frame[Columns.user])).astype(np.int64)[known]
    items = log.items.index.get_indexer(pd.Index(frame[Columns.item])).astype(np.int64)[known]
    return Cells(users, items, values[known], np.ones(len(known))), known.astype(np.int64)
