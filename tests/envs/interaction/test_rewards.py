"""Rewards: worked out by hand, linear in their weights, finite, and refused where they are not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome, WeightedReward, checked_reward, slate_diversity
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.deferred_checks import DeferredChecks
from recloop.envs.world.world import World

SIGNALS = (Signal("watch"), Signal("rating", "ordinal", levels=(1.0, 5.0), given_on="watch"))

weights = st.floats(-100, 100, allow_nan=False, width=32)


def outcome(seed: int, lanes: int = 5, k: int = 3, items: int = 6) -> Outcome:
    """Random answers to random slates, some places empty."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items + 1, 4, generator=generator)
    vectors[-1] = 0
    slate = torch.randint(0, items + 1, (lanes, k), generator=generator)
    given = torch.rand(lanes, k, 2, generator=generator) < 0.6
    response = Response(
        signals=torch.rand(lanes, k, 2, generator=generator) * 5 * given,
        given=given,
        left=torch.rand(lanes, generator=generator) < 0.3,
    )
    return Outcome(slate, response, (slate == items).sum(1), vectors, SIGNALS)


def test_the_weighted_sum_by_hand() -> None:
    """One lane, two places: watched and rated 4, not watched; one struck place; the user leaves."""
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    response = Response(
        signals=torch.tensor([[[1.0, 4.0], [0.0, 0.0], [0.0, 0.0]]]),
        given=torch.tensor([[[True, True], [True, False], [False, False]]]),
        left=torch.tensor([True]),
    )
    case = Outcome(torch.tensor([[0, 1, 2]]), response, torch.tensor([1]), vectors, SIGNALS)
    reward = WeightedReward({"watch": 1.0, "rating": 0.5}, leaving=-2.0, diversity=0.25, repeats=-0.125)
    # 1 + 0.5 * 4 - 2 + 0.25 * (1 - cosine 0) - 0.125
    assert reward(case).tolist() == [1.125]


@given(seed=st.integers(0, 1000), a=weights, b=weights, leaving=weights, diversity=weights, repeats=weights)
@settings(deadline=None, max_examples=60)
def test_finite_and_linear(seed: int, a: float, b: float, leaving: float, diversity: float, repeats: float) -> None:
    """A reward is the sum of its parts, and finite."""
    case = outcome(seed)
    whole = WeightedReward({"watch": a, "rating": b}, leaving, diversity, repeats)(case)
    parts = [
        WeightedReward({"watch": a})(case),
        WeightedReward({"rating": b})(case),
        WeightedReward(leaving=leaving)(case),
        WeightedReward(diversity=diversity)(case),
        WeightedReward(repeats=repeats)(case),
    ]
    assert bool(torch.isfinite(whole).all())
    torch.testing.assert_close(whole, torch.stack(parts).sum(0), rtol=1e-4, atol=1e-2)


@given(seed=st.integers(0, 1000), factor=st.floats(-8, 8, width=32))
@settings(deadline=None, max_examples=40)
def test_twice_the_weight_is_twice_the_reward(seed: int, factor: float) -> None:
    case = outcome(seed)
    one = WeightedReward({"watch": 1.0, "rating": 0.5})(case)
    scaled = WeightedReward({"watch": factor, "rating": 0.5 * factor})(case)
    torch.testing.assert_close(scaled, factor * one, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), items=st.integers(1, 6))
@settings(deadline=None, max_examples=100)
def test_diversity_lies_between_0_and_2(seed: int, k: int, items: int) -> None:
    case = outcome(seed, k=k, items=items)
    diversity = slate_diversity(case.slate, case.item_vectors)
    assert bool(((diversity >= 0) & (diversity <= 2)).all())


def test_diversity_is_one_minus_the_mean_cosine_of_pairs() -> None:
    case = outcome(1, lanes=8, k=4)
    for lane, slate in enumerate(case.slate):
        shown = [case.item_vectors[int(i)] for i in slate if int(i) < 6]
        pairs = [torch.cosine_similarity(x, y, dim=0) for i, x in enumerate(shown) for y in shown[i + 1 :]]
        expected = 1 - torch.stack(pairs).mean() if pairs else torch.tensor(0.0)
        torch.testing.assert_close(slate_diversity(case.slate, case.item_vectors)[lane], expected)


def test_opposite_and_equal_items_are_the_extremes() -> None:
    vectors = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    assert slate_diversity(torch.tensor([[0, 1], [0, 2], [0, 3]]), vectors).tolist() == [2.0, 0.0, 0.0]


def test_an_unknown_signal_is_named() -> None:
    with pytest.raises(RecloopError, match="unknown signal 'ratng'; did you mean 'rating'"):
        WeightedReward({"ratng": 1.0})(outcome(0))


def test_a_reward_that_is_not_finite_is_refused(world: World) -> None:
    def broken(case: Outcome) -> torch.Tensor:
        return torch.where(torch.arange(len(case.slate)) == 2, torch.nan, 1.0)

    core = Core(world, batch=4, reward=broken)
    with pytest.raises(RecloopError, match=r"the reward of lane 2 is NaN; rewards must be finite"):
        core.step(torch.tensor([[0, 1, 2, 3]] * 4))


def test_a_reward_of_another_shape_is_refused() -> None:
    lanes, faults = torch.arange(4), DeferredChecks(torch.device("cpu"))
    with pytest.raises(
        RecloopError,
        match=r"returned float32 \(4, 3\); return a torch tensor with one number a lane, \(4,\)",
    ):
        checked_reward(torch.zeros(4, 3), lanes, faults)
    with pytest.raises(RecloopError, match="returned a float"):
        checked_reward(1.0, lanes, faults)


def test_a_callable_is_a_reward(world: World) -> None:
    core = Core(world, batch=2, reward=lambda case: case.invalid)
    assert core.step(torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]])).reward.tolist() == [2.0, 0.0]


def test_the_core_asks_for_the_spread_only_where_the_reward_does(world: World) -> None:
    asked = []

    def reward(seen: Outcome) -> torch.Tensor:
        asked.append(seen.spread)
        return torch.zeros(len(seen.slate))

    core = Core(world, batch=2, reward=reward)
    slate = torch.arange(core.slate_size).expand(2, -1)
    core.step(slate)
    reward.needs_spread = True  # type: ignore[attr-defined]
    core.step(slate)
    assert asked[0] is None
    expected = core.simulator.expected(core.state, core.past, slate)
    assert (asked[1] is None) == (expected is None or expected.spread is None)
