"""The classifier's two-sample test: can sessions be told to be simulated?

Classifier two-sample test (Lopez-Paz and Oquab 2017) with logistic regression. Differences: it is cross-validated over
users, and since one session with a handful of clicks can hardly tell, the log-odds of several sessions are averaged
before they are ranked: the AUC is that of telling a bag of logged sessions from a bag of simulated ones, of `CLICKS`
clicks each. Only features enter whose means differ beyond chance among the users fitted on (a t test at 1 % after
Bonferroni's correction); where none does, the two sides cannot be told apart and the AUC is one half.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from recloop.envs.evidence.fidelity.lanes import Array
from recloop.envs.logs.sequences import Ints

NAME = "logistic regression on session features"
CLICKS = 300
"""Clicks that sessions judged together hold on average: what it takes to see that positions have no effect."""
FEWEST = 60
"""Sessions a side below which nothing is tested."""
_FOLDS = 5
_BAGS = 400
_BOOTSTRAPS = 100
_LEVEL = 0.01
_LIMIT = 6.0
"""A feature counts at most so many standard deviations."""


@dataclass(frozen=True)
class TwoSample:
    """What the classifier found.

    Args:
        auc: of telling bags of logged from bags of simulated sessions, on users it was not fitted on.
        low, high: 95 % interval over users.
        bag: sessions judged together.
        told_by: the features that differ most, (name, how much more of it simulated sessions have in standard
            deviations of a session), the strongest first.
    """

    auc: float
    low: float
    high: float
    bag: int
    told_by: tuple[tuple[str, float], ...]


def bag_size(clicks: float, sessions: int) -> int:
    """Sessions that hold `CLICKS` clicks, where one holds `clicks` on average; at most an eighth of them all."""
    return max(1, min(math.ceil(CLICKS / max(clicks, 0.1)), sessions // 8))


def two_sample_test(
    logged: Array,
    simulated: Array,
    logged_lane: Ints,
    simulated_lane: Ints,
    names: tuple[str, ...],
    bag: int,
    seed: int,
) -> TwoSample:
    """Tell sessions (M1, F) and (M2, F) apart, `bag` at a time; lanes (M1,), (M2,) say whose they are."""
    rng = np.random.default_rng(seed)
    features = np.concatenate([logged, simulated])
    label = np.repeat([0, 1], [len(logged), len(simulated)])
    lane = np.concatenate([logged_lane, simulated_lane])
    users = int(lane.max()) + 1
    fold = rng.permutation(np.arange(users) % _FOLDS)[lane]
    from sklearn.preprocessing import StandardScaler  # slow to load

    scaled = np.clip(StandardScaler().fit_transform(features), -_LIMIT, _LIMIT)
    score = np.zeros(len(label))
    for held in range(_FOLDS):
        test = fold == held
        score[test] = _scores(scaled[~test], label[~test], scaled[test], label[test])
    auc = _bag_auc(score, label, bag, rng)
    draws = [auc]
    for _ in range(_BOOTSTRAPS if score.any() else 0):
        times = np.bincount(rng.choice(users, users), minlength=users)[lane]
        draws.append(_bag_auc(score, label, bag, rng, times))
    low, high = np.quantile(draws, [0.025, 0.975])
    difference = scaled[label == 1].mean(0) - scaled[label == 0].mean(0)
    order = np.argsort(-np.abs(difference))[:5]
    told_by = tuple((names[i], float(difference[i])) for i in order)
    return TwoSample(auc, float(min(low, auc)), float(max(high, auc)), bag, told_by)


def _scores(train: Array, label: Ints, test: Array, test_label: Ints) -> Array:
    """Log-odds (m,) of sessions to be simulated, 0 where no feature tells the sides apart.

    Those of different folds are put on one scale: each fold's middle is 0, both sides counting alike.
    """
    first, second = train[label == 0], train[label == 1]
    error = np.sqrt(first.var(0) / max(len(first), 1) + second.var(0) / max(len(second), 1))
    z = (second.mean(0) - first.mean(0)) / np.maximum(error, 1e-9)
    telling = np.abs(z) > norm.ppf(1 - _LEVEL / (2 * len(z)))
    if not telling.any():
        return np.zeros(len(test))
    from sklearn.linear_model import LogisticRegression  # slow to load

    model = LogisticRegression(C=0.1, max_iter=200).fit(train[:, telling], label)
    found = model.decision_function(test[:, telling])
    middle = np.mean([found[test_label == side].mean() for side in (0, 1) if (test_label == side).any()])
    scores: Array = found - middle
    return scores


def _bag_auc(score: Array, label: Ints, bag: int, rng: np.random.Generator, times: Ints | None = None) -> float:
    """AUC of mean scores of random bags, every pair of a logged and a simulated bag counting, ties half."""
    means = []
    for side in (0, 1):
        mine = label == side
        chance = None if times is None else times[mine] / times[mine].sum()
        means.append(rng.choice(score[mine], size=(_BAGS, bag), p=chance).mean(1))
    ordered = np.sort(means[0])
    below = np.searchsorted(ordered, means[1], "left") + np.searchsorted(ordered, means[1], "right")
    return float(below.mean() / (2 * _BAGS))
