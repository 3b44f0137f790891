"""Do fitted users predict ratings and consumption as well as a biased matrix factorisation does?

    python -m recloop.experiments.studies.ratings.study ml-100k --data ../shared/data
    python -m recloop.experiments.studies.ratings.study coat --data ../shared/data

`ml-100k` (or any log with ratings): every user's rows are cut in time; all models learn from the earlier part and
predict the later one. `coat`: models learn from self-selected ratings and are tested on randomly dealt ones, with and
without propensity weights. Rows go to `experiments/results/ratings.csv`; those of another log in it stay.

Fitted users are inductive: they read a user's earlier part as a history and know no user by name. They, the
factorisation and popularity see the same rows, and nobody sees an answer of the later part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from rich.table import Table

from recloop.encoders.base.errors import LogError, RecloopError
from recloop.envs.logs.cleaning import clean
from recloop.envs.logs.readers import read_log
from recloop.envs.logs.readers.published.coat import is_coat
from recloop.envs.logs.schema import Columns
from recloop.envs.users.fitted import FitConfig
from recloop.envs.users.fitted.fitting.fit import FAMILIES
from recloop.experiments.comparison.intervals import LEVEL, Floats, Interval, Ints, t_interval
from recloop.experiments.provenance import made_by
from recloop.experiments.report.results_table import keep_rows
from recloop.experiments.report.tables import wide_console
from recloop.experiments.settings import at_least
from recloop.experiments.studies.ratings.matrix_factorisation import Cells, choose_rating_factors, fit_choice_factors
from recloop.experiments.studies.ratings.parts import (
    Fitting,
    Parts,
    coat_parts,
    earlier_world,
    fitted_answers,
    parts_in_time,
)

COLUMNS = ("data", "split", "model", "metric", "value", "low", "high", "command", "commit")
"""Columns of `ratings.csv`."""
RATING = "rating"
FACTORS = "matrix factorisation"
LEAST_PROPENSITY = 0.02
"""Smaller propensities are clipped to this."""
_RANKS, _DECAYS = (0, 4, 8), (4.0, 8.0, 16.0)
_CHOICE_DECAYS = (1e-3, 3e-3, 1e-2)
_SHRINK = 10.0
"""Ratings of the overall mean that an item's own are mixed with."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class RatingsConfig:
    """Hold fitted users against matrix factorisation on a real log."""

    log: tyro.conf.Positional[str]
    """Folder of the log within --data: ml-100k, coat, or another with ratings."""
    data: Path = Path("data")
    """Folder where logs lie."""
    out: Path = Path(__file__).parent / "results" / "ratings.csv"
    """Table to write."""
    families: tuple[str, ...] = ()
    """Families of fitted users; default all."""
    later: float = 0.2
    """Share of every user's rows that is held out."""
    text: str = "hashed"
    """Model of the items' text: a name, a folder, or hashed (words, no model)."""
    epochs: int = 12
    """Most passes of a fit of users."""
    state_epochs: int = 12
    """Most passes of the fit of the item vectors."""
    history: int = 50
    """Newest consumptions that fitted users read."""
    seed: int = 0
    """Of every fit."""
    progress: bool = True
    """Show progress bars."""

    @property
    def fitting(self) -> Fitting:
        """What fits of users read of this."""
        return Fitting(self.text, self.epochs, self.state_epochs, self.history, self.seed, self.progress)

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, state_epochs=self.state_epochs, history=self.history)
        if not 0 < self.later < 1:
            raise RecloopError(f"--later {self.later} must lie inside (0, 1)")
        for family in self.families:
            if family not in FAMILIES:
                raise RecloopError(f"--families {family} is unknown; there are {', '.join(FAMILIES)}")


@dataclass(frozen=True)
class Line:
    """A row of the result: a model's figure with its interval."""

    model: str
    metric: str
    value: Interval


def main(config: RatingsConfig) -> list[Line]:
    """Fit everything, print the table, write the rows."""
    folder = config.data / config.log
    parts = (
        coat_parts(folder, config.seed) if is_coat(folder) else parts_in_time(clean(read_log(folder))[0], config.later)
    )
    lines = list(coat_lines(parts, config) if is_coat(folder) else lines_in_time(parts, config))
    _print(config.log, parts.split, lines)
    write_rows(config.out, config.log, parts.split, lines)
    return lines


def lines_in_time(parts: Parts, config: RatingsConfig) -> Iterator[Line]:
    """Rating RMSE and consumption AUC of every model, and of the fitted users less matrix factorisation."""
    beta, count = FitConfig().beta, parts.shape[1]
    factors, chosen = choose_rating_factors(parts.learned, parts.tuning, parts.shape, ranks=_RANKS, decays=_DECAYS)
    wants, chosen_too = _choice_wants(parts, beta, config.seed)
    print(f"{FACTORS}: ratings {chosen}; consumption {chosen_too}")
    errors = _errors(parts, factors.cells(parts.held_out.users, parts.held_out.items))
    aucs = _aucs(parts, wants, beta)
    popular = np.log(np.bincount(parts.learned.items, minlength=count) + 1.0)
    yield from _rating_lines("mean", _errors(parts, np.full(len(parts.held_out.users), factors.mean)), None)
    yield from _rating_lines(
        "popularity", _errors(parts, _item_means(parts.learned, count)[parts.held_out.items]), None
    )
    yield from _auc_lines("popularity", _aucs(parts, np.tile(popular, (parts.shape[0], 1)), beta), None)
    yield from _rating_lines(FACTORS, errors, None)
    yield from _auc_lines(FACTORS, aucs, None)
    world = earlier_world(parts.earlier, config.fitting)
    for family in config.families or tuple(FAMILIES):
        ratings, wants = fitted_answers(parts, world, family, config.fitting)
        yield from _rating_lines(family, _errors(parts, ratings), errors)
        yield from _auc_lines(family, _aucs(parts, wants, beta), aucs)


def coat_lines(parts: Parts, config: RatingsConfig) -> Iterator[Line]:
    """RMSE on randomly dealt coats, of models learned from self-selected ones with and without propensity weights."""
    rows = parts.log.interactions
    if Columns.propensity not in rows:
        raise LogError(f"{parts.log.source}: no propensities.ascii; the weighted half of this experiment needs it")
    weights = propensity_weights(rows[Columns.propensity].to_numpy(dtype=np.float64), LEAST_PROPENSITY)
    size = effective_sample_size(weights)
    yield Line("weights", "effective_sample_size", Interval(size, size, size))
    reference: Floats | None = None
    for name, weight in (("", np.ones(len(weights))), (", weighted", weights)):
        cells = replace(parts.learned, weights=weight)
        mean = float(np.average(cells.values, weights=weight))
        yield from _rating_lines(f"mean{name}", _errors(parts, np.full(len(parts.held_out.users), mean)), None)
        found = _item_means(cells, parts.shape[1])
        yield from _rating_lines(f"popularity{name}", _errors(parts, found[parts.held_out.items]), None)
        factors, chosen = choose_rating_factors(cells, parts.tuning, parts.shape, ranks=_RANKS, decays=_DECAYS)
        errors = _errors(parts, factors.cells(parts.held_out.users, parts.held_out.items))
        print(f"{FACTORS}{name}: {chosen}")
        yield from _rating_lines(f"{FACTORS}{name}", errors, reference)
        reference = errors if reference is None else reference
    # Every rated coat as a slate of one: a fit weighs what was shown, and ratings are all that is asked of it here.
    shown = replace(parts.earlier, has_exposures=True)
    world = earlier_world(shown, config.fitting)
    for family in config.families or tuple(FAMILIES):
        for name, fitting in (("", config.fitting), (", weighted", replace(config.fitting, propensity="clipped"))):
            ratings, _ = fitted_answers(parts, world, family, fitting)
            yield from _rating_lines(f"{family}{name}", _errors(parts, ratings), reference)


def write_rows(path: Path, data: str, split: str, lines: list[Line]) -> None:
    """Put the rows of one log into the table; the rows of other logs stay."""
    rows = []
    source = made_by()
    for line in lines:
        value = {"value": line.value.mean, "low": line.value.low, "high": line.value.high}
        figures = {name: f"{number:.6f}" for name, number in value.items()}
        rows.append({"split": split, "model": line.model, "metric": line.metric, **figures, **source})
    keep_rows(path, COLUMNS, data, rows)


def _rating_lines(model: str, errors: Floats, reference: Floats | None) -> Iterator[Line]:
    """RMSE, and where there is a reference the difference to it."""
    yield Line(model, "rating_rmse", rmse(errors))
    if reference is not None:
        yield Line(model, f"rating_rmse minus {FACTORS}", rmse_difference(errors, reference))


def _auc_lines(model: str, aucs: dict[str, Floats], reference: dict[str, Floats] | None) -> Iterator[Line]:
    """Mean AUC over users, and where there is a reference the paired difference to it."""
    for metric, values in aucs.items():
        known = np.isfinite(values)
        yield Line(model, metric, t_interval(values[known]))
        if reference is not None:
            yield Line(model, f"{metric} minus {FACTORS}", t_interval((values - reference[metric])[known]))


def _errors(parts: Parts, ratings: Floats) -> Floats:
    return squared_errors(ratings - parts.held_out.values, parts.held_out.users, parts.shape[0])


def _item_means(cells: Cells, count: int) -> Floats:
    """Mean rating of each item (N,), shrunk to the overall mean, weighted."""
    mean = float(np.average(cells.values, weights=cells.weights))
    total = np.bincount(cells.items, weights=cells.values * cells.weights, minlength=count) + _SHRINK * mean
    means: Floats = total / (np.bincount(cells.items, weights=cells.weights, minlength=count) + _SHRINK)
    return means


def _aucs(parts: Parts, wants: Floats, beta: float) -> dict[str, Floats]:
    """AUC of each user against items of the assumed exposure, and against all items alike, by metric.

    `wants` (U, N) are logits of consumption given that an item is shown; to compare all items, the log of the assumed
    exposure is added, which makes them the log of being shown and consumed.
    """
    known, positive = np.zeros(parts.shape, dtype=bool), np.zeros(parts.shape, dtype=bool)
    known[parts.learned.users, parts.learned.items] = True
    positive[parts.held_out.users, parts.held_out.items] = True
    shown = exposure(parts.learned, parts.shape[1], beta)
    both = -np.logaddexp(0, -wants) + np.log(shown)
    return {
        "consumption_auc": user_aucs(wants, positive, known, shown),
        "consumption_auc, all items alike": user_aucs(both, positive, known, np.ones(parts.shape[1])),
    }


def exposure(cells: Cells, count: int, beta: float) -> Floats:
    """Probability of each item (N,) in the exposure that fits without exposures assume: popularity^beta."""
    weight = (np.bincount(cells.items, minlength=count) + 1.0) ** beta
    share: Floats = weight / weight.sum()
    return share


def _choice_wants(parts: Parts, beta: float, seed: int) -> tuple[Floats, str]:
    """Logits (U, N) of the factorisation of consumption, and its decay, chosen on the cells kept for tuning."""
    count = parts.shape[1]
    keep = np.setdiff1d(np.arange(len(parts.learned.users)), parts.tuning)
    tuning = replace(parts, learned=parts.learned.at(keep), held_out=parts.learned.at(parts.tuning))
    found = []
    for decay in _CHOICE_DECAYS:
        cells = tuning.learned
        shown = exposure(cells, count, beta)
        factors = fit_choice_factors(cells.users, cells.items, shown, parts.shape, decay=decay, seed=seed)
        found.append((float(np.nanmean(_aucs(tuning, factors.table(), beta)["consumption_auc"])), decay))
    _, decay = max(found)
    cells, shown = parts.learned, exposure(parts.learned, count, beta)
    factors = fit_choice_factors(cells.users, cells.items, shown, parts.shape, decay=decay, seed=seed)
    return factors.table(), f"decay {decay:g}"


def _print(data: str, split: str, lines: list[Line]) -> None:
    table = Table(title=f"{data}: {split}; 95 % over users", title_justify="left")
    for name in ("model", "metric"):
        table.add_column(name)
    table.add_column("value", justify="right")
    for line in lines:
        table.add_row(line.model, line.metric, str(line.value))
    wide_console().print(table)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(RatingsConfig, main)


def squared_errors(wrong: Floats, users: Ints, count: int) -> Floats:
    """Sum of squared errors and number of ratings of each user: (n,) errors of `users` (n,) -> (count, 2)."""
    return np.stack(
        [np.bincount(users, weights=wrong**2, minlength=count), np.bincount(users, minlength=count)], axis=1
    )


def rmse(errors: Floats, seed: int = 0) -> Interval:
    """Root mean squared error over ratings, its interval by resampling users: `squared_errors` (U, 2).

    >>> print(rmse(np.array([[4.0, 1.0], [4.0, 1.0]])))
    2.000 [2.000, 2.000]
    """
    errors = errors[errors[:, 1] > 0]
    drawn = _resampled(errors, seed)
    return _interval(float(np.sqrt(errors[:, 0].sum() / errors[:, 1].sum())), np.sqrt(drawn[:, 0] / drawn[:, 1]))


def rmse_difference(errors: Floats, reference: Floats, seed: int = 0) -> Interval:
    """RMSE of `errors` less that of `reference`, of the same users, resampled together."""
    known = errors[:, 1] > 0
    both = _resampled(np.concatenate([errors[known], reference[known]], axis=1), seed)
    value = rmse(errors).mean - rmse(reference).mean
    return _interval(value, np.sqrt(both[:, 0] / both[:, 1]) - np.sqrt(both[:, 2] / both[:, 3]))


def user_aucs(scores: Floats, positive: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_], shown: Floats) -> Floats:
    """Chance that an item a user consumed scores above one they did not, drawn by `shown`; ties half.

    Args:
        scores: (U, N).
        positive: bool (U, N) consumed in the part that is held out.
        known: bool (U, N) consumed before: neither positive nor negative.
        shown: (N,) weights of the negatives.

    Returns:
        (U,); NaN where a user has no positive or no negative.

    >>> user_aucs(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, False]]), np.zeros((1, 3), bool), np.ones(3))
    array([0.5])
    """
    found = np.full(len(scores), np.nan)
    for user in range(len(scores)):
        mine = positive[user] & ~known[user]
        others = ~positive[user] & ~known[user]
        if not mine.any() or not others.any():
            continue
        order = np.argsort(scores[user][others])
        ranked, weight = scores[user][others][order], np.concatenate([[0.0], np.cumsum(shown[others][order])])
        below = weight[np.searchsorted(ranked, scores[user][mine], "left")]
        up_to = weight[np.searchsorted(ranked, scores[user][mine], "right")]
        found[user] = float(((below + up_to) / 2).mean() / weight[-1])
    return found


def propensity_weights(propensities: Floats, least: float) -> Floats:
    """Inverse propensities, clipped: 1 / max(p, least), scaled to mean 1, (n,).

    Raises:
        RecloopError: a propensity outside (0, 1].

    >>> propensity_weights(np.array([0.5, 0.5, 0.01]), 0.25).tolist()
    [0.75, 0.75, 1.5]
    """
    wrong = ~((propensities > 0) & (propensities <= 1))
    if wrong.any():
        raise RecloopError(f"propensity {propensities[wrong][0]:g} does not lie in (0, 1]; clean the log first")
    weights = 1 / np.maximum(propensities, least)
    scaled: Floats = weights / weights.mean()
    return scaled


def effective_sample_size(weights: Floats) -> float:
    """How many equally weighted rows tell as much (Kish 1965): (n,).

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def _resampled(rows: Floats, seed: int) -> Floats:
    """Sums over users drawn with replacement, (U, c) -> (resamples, c)."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=_RESAMPLES)
    sums: Floats = counts @ rows
    return sums


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
