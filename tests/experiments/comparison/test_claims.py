"""Claims worked out by hand: four users, or many, whose returns are written down."""

import numpy as np
import pytest

from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import Claim, Level, claims_of
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.results import Comparison, Entry


def made_up(values: list[float]) -> Rollout:
    """A rollout in which only users and returns matter."""
    b = len(values)
    zeros = np.zeros(b)
    none = np.zeros((1, 1), dtype=np.int64)
    return Rollout(
        users=np.arange(b),
        value=np.array(values, dtype=np.float64),
        length=np.ones(b, dtype=np.int64),
        left=np.zeros(b, dtype=bool),
        signals=np.zeros((b, 2)),
        invalid=np.zeros(b, dtype=np.int64),
        popularity=zeros,
        diversity=zeros,
        shown=np.ones(40, dtype=np.int64),
        trace_history=none[0],
        trace_slate=none,
        trace_signals=np.zeros((1, 1, 2)),
        trace_given=np.zeros((1, 1, 2), dtype=bool),
    )


def comparison_of(
    world: World, values: dict[str, dict[str, list[list[float]]]], retrained: tuple[str, ...] = ()
) -> Comparison:
    """values: policy -> simulator -> one list of returns a seed."""
    first = next(iter(values.values()))
    simulators = tuple(first)
    seeds = tuple(range(len(first[simulators[0]])))
    return Comparison(
        world=world,
        contenders=tuple(Entry(name, name, name in retrained) for name in values),
        seeds=seeds,
        simulators=simulators,
        reference=next(iter(values)),
        rollouts={
            (name, seed, simulator): made_up(by_seed[seed])
            for name, by_simulator in values.items()
            for simulator, by_seed in by_simulator.items()
            for seed in seeds
        },
    )


GOOD, BAD, SAME = [5.0, 6.0, 7.0, 6.5], [1.0, 2.1, 3.0, 2.4], [1.1, 2.0, 2.9, 2.6]


def only(claims: tuple[Claim, ...]) -> Claim:
    assert len(claims) == 1
    return claims[0]


def test_across_judges_where_all_agree(judged: World) -> None:
    claim = only(
        claims_of(
            comparison_of(judged, {"a": {"train": [BAD], "judge": [BAD]}, "b": {"train": [GOOD], "judge": [GOOD]}})
        )
    )
    assert (claim.better, claim.worse, claim.level, claim.settle) == ("b", "a", Level.across_judges, "")
    assert claim.differences["judge"].mean == pytest.approx(np.mean(GOOD) - np.mean(BAD))
    assert claim.text == "b is better than a across judges."


def test_in_this_world_only_where_the_judge_is_silent_or_contrary(judged: World) -> None:
    silent = only(
        claims_of(
            comparison_of(judged, {"a": {"train": [GOOD], "judge": [BAD]}, "b": {"train": [BAD], "judge": [SAME]}})
        )
    )
    assert (silent.better, silent.level) == ("a", Level.in_this_world)
    assert "not confirmed in judge" in silent.settle
    contrary = only(
        claims_of(
            comparison_of(judged, {"a": {"train": [GOOD], "judge": [BAD]}, "b": {"train": [BAD], "judge": [GOOD]}})
        )
    )
    assert (contrary.better, contrary.level) == ("a", Level.in_this_world)
    assert "judge say the opposite" in contrary.settle


def test_a_truth_world_claims_in_this_world(truth: World) -> None:
    claim = only(claims_of(comparison_of(truth, {"a": {"truth": [GOOD]}, "b": {"truth": [BAD]}})))
    assert (claim.better, claim.level) == ("a", Level.in_this_world)


def test_no_order_is_claimed_where_none_is_known(truth: World) -> None:
    claim = only(claims_of(comparison_of(truth, {"a": {"truth": [BAD]}, "b": {"truth": [SAME]}})))
    assert claim.level is None
    assert claim.text == "The order of a and b is not known."
    assert "evaluation users instead of 4" in claim.settle
    equal = only(claims_of(comparison_of(truth, {"a": {"truth": [BAD]}, "b": {"truth": [BAD]}})))
    assert equal.level is None
    assert "nothing to settle" in equal.settle


def test_seeds_that_disagree_settle_nothing_for_a_retrained_policy(truth: World) -> None:
    low, high = [1.0, 1.1, 0.9, 1.0], [9.0, 9.1, 9.2, 8.9]
    middle = [4.0, 4.1, 3.9, 4.0]
    values = {"base": {"truth": [middle, middle]}, "agent": {"truth": [low, high]}}
    assert only(claims_of(comparison_of(truth, values, ("agent",)))).level is None
    assert "training seed" in only(claims_of(comparison_of(truth, values, ("agent",)))).settle
    assert only(claims_of(comparison_of(truth, values))).level is Level.in_this_world


def test_many_pairs_need_stronger_evidence(truth: World) -> None:
    """A difference that one pair alone would claim (p = 0.03) is not claimed among many."""
    rng = np.random.default_rng(0)
    noise = {f"n{i}": {"truth": [list(rng.normal(0, 1, 12))]} for i in range(6)}
    a = rng.normal(0, 1, 12)
    step = np.array([0.5, 1.5, -0.4, 1.2, 0.1, 0.9, -0.6, 0.8, 1.0, -0.2, 0.7, 0.2])
    pair = {"a": {"truth": [list(a)]}, "b": {"truth": [list(a + step)]}}
    assert only(claims_of(comparison_of(truth, pair))).level is Level.in_this_world
    among = [c for c in claims_of(comparison_of(truth, {**pair, **noise})) if {c.better, c.worse} == {"a", "b"}]
    assert among[0].level is None


def test_what_reaches_furthest_comes_first(judged: World) -> None:
    values = {
        "a": {"train": [GOOD], "judge": [GOOD]},
        "b": {"train": [BAD], "judge": [BAD]},
        "c": {"train": [SAME], "judge": [BAD]},
    }
    levels = [c.level for c in claims_of(comparison_of(judged, values))]
    assert levels[0] is Level.across_judges
    assert levels[-1] is None
