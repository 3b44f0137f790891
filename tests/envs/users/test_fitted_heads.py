"""Distributions and heads against numbers worked out by hand."""

import math

import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.randomness import Draw
from recloop.envs.logs.schema import Signal
from recloop.envs.users.fitted import distributions
from recloop.envs.users.fitted.fitting.measures import auc, calibration_error, paired_auc
from recloop.envs.users.fitted.heads import Heads, centred, drawing_order, slate_summary, start_heads

CLICK, LIKE = Signal("click"), Signal("like", given_on="click")
STARS = Signal("stars", "ordinal", levels=(1.0, 3.0, 5.0), given_on="click")
SHARE = Signal("share", "continuous", range=(0.0, 10.0))


def test_ordinal_levels_follow_from_thresholds() -> None:
    """Half of all answers at 1, a quarter each at 3 and 5."""
    score, shape = distributions.base_shape(STARS, torch.tensor([1.0, 1.0, 3.0, 5.0] * 500))
    thresholds = distributions.thresholds_of(shape)
    assert thresholds.tolist() == pytest.approx([0.0, math.log(3)], abs=1e-2)
    at = torch.tensor(score)
    assert float(distributions.mean(STARS, at, shape)) == pytest.approx(1 + 2 * 0.5 + 2 * 0.25, abs=1e-2)
    chances = [float(distributions.log_likelihood(STARS, at, shape, torch.tensor(v)).exp()) for v in (1.0, 3.0, 5.0)]
    assert chances == pytest.approx([0.5, 0.25, 0.25], abs=1e-2)
    drawn = distributions.sample(STARS, at.expand(4), shape, torch.tensor([0.9, 0.51, 0.4, 0.1]))
    assert drawn.tolist() == [1.0, 1.0, 3.0, 5.0]


def test_continuous_answers_pile_up_at_the_ends() -> None:
    shape = torch.tensor([math.log(math.expm1(0.2 - distributions.MIN_SPREAD))])  # spread 0.2 of the range
    score = torch.tensor([0.0, 0.5, 1.0])
    drawn = distributions.sample(SHARE, score, shape, torch.tensor([0.4, 0.5, 0.6]))
    assert drawn.tolist() == pytest.approx([0.0, 5.0, 10.0])
    uniform = (torch.arange(20000) + 0.5) / 20000
    for s in score:
        draws = distributions.sample(SHARE, s.expand(20000), shape, uniform)
        assert float(distributions.mean(SHARE, s, shape)) == pytest.approx(float(draws.mean()), abs=1e-2)
    at_zero = distributions.log_likelihood(SHARE, torch.tensor(0.0), shape, torch.tensor(0.0))
    assert float(at_zero.exp()) == pytest.approx(0.5)


@pytest.mark.parametrize("signal", [CLICK, STARS, SHARE], ids=lambda s: s.kind)
def test_means_are_the_means_of_draws(signal: Signal) -> None:
    uniform = (torch.arange(50000) + 0.5) / 50000
    _, shape = distributions.base_shape(signal, torch.tensor(signal.bounds * 10))
    score = torch.tensor(0.3)
    draws = distributions.sample(signal, score.expand(50000), shape, uniform)
    assert float(distributions.mean(signal, score, shape)) == pytest.approx(float(draws.mean()), abs=1e-3)


def test_signals_are_drawn_after_those_they_are_given_on() -> None:
    assert drawing_order((CLICK, Signal("b", given_on="a"), Signal("a", given_on="click"))) == (
        (0, None),
        (2, 0),
        (1, 2),
    )
    with pytest.raises(UserSimulatorError, match="'clik'; did you mean 'click'"):
        drawing_order((CLICK, Signal("like", given_on="clik")))
    with pytest.raises(UserSimulatorError, match="circle"):
        drawing_order((CLICK, Signal("a", given_on="b"), Signal("b", given_on="a")))
    with pytest.raises(UserSimulatorError, match="'stars', which is not binary"):
        drawing_order((CLICK, STARS, Signal("a", given_on="stars")))


def test_missing_feedback_reads_as_the_middle() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 5.0]])
    assert centred((CLICK, STARS), values).tolist() == [[1.0, 0.0], [-1.0, -1.0], [1.0, 1.0]]


@pytest.fixture
def heads() -> Heads:
    made = Heads((CLICK, STARS, SHARE), 6, 4, 5, rank=3, residual=2, positions=3)
    start_heads(made, torch.Generator().manual_seed(0))
    return made.requires_grad_(False)


def test_scores_are_the_sum_of_their_parts(heads: Heads) -> None:
    """The batched scores against a plain loop."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(7, 4, generator=generator)
    heads.item_bias.normal_(generator=generator)
    heads.position.normal_(generator=generator)
    users, slate = torch.randn(2, 5, generator=generator), torch.tensor([[0, 3], [5, 1]])
    table = heads.items(vectors)
    raw = heads.raw(heads.user_parts(users), heads.item_parts(table, slate), torch.arange(2))
    for lane in range(2):
        for place in range(2):
            item = int(slate[lane, place])
            theirs = heads.of_users(users[lane]).view(3, 3)
            its = heads.of_items(table[item]).view(3, 3)
            for s in range(3):
                want = float(theirs[s] @ its[s] + heads.item_bias[item, s] + heads.user_bias(users[lane])[s])
                if place == 1 and s != 1:  # stars exist only where the item was clicked
                    want += float(heads.position[0, s])
                assert float(raw[lane, place, s]) == pytest.approx(want, abs=1e-5)


def test_answers_exist_where_they_can(heads: Heads) -> None:
    lanes = torch.arange(400)
    draw = Draw.at(0, lanes, lanes * 0, lanes * 0)
    slate = torch.tensor([2, 6, 4]).expand(400, -1)
    values, given = heads.sample(torch.zeros(400, 3, 3), slate, draw)
    assert given[:, 0, 0].all()
    assert not given[:, 1].any()
    assert torch.equal(given[..., 1], given[..., 0] & (values[..., 0] > 0.5))
    assert bool((values[~given] == 0).all())
    assert float(values[:, 0, 0].mean()) == pytest.approx(0.5, abs=0.08)
    swapped, _ = heads.sample(torch.zeros(400, 3, 3), slate.flip(1), draw)
    assert torch.equal(swapped.flip(1), values)  # luck belongs to the item, not to its place


def test_a_slate_in_numbers() -> None:
    """Two places, the second empty: one click at appeal 0.4 in the first slate of a session."""
    summary = slate_summary(
        (CLICK, STARS),
        torch.tensor([[1.0, 5.0], [0.0, 0.0]]),
        torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
        torch.tensor([0.4, 0.9]),
        torch.tensor([True, False]),
        torch.tensor(0.0),
    )
    assert summary.tolist() == pytest.approx([1.0, 1.0, 1.0, 0.4, 0.4, 0.0, 1.0])


def test_measures() -> None:
    assert auc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([False, False, True])) == 1.0
    assert auc(torch.zeros(5), torch.tensor([True, False, True, False, False])) == 0.5
    assert math.isnan(auc(torch.zeros(3), torch.ones(3, dtype=torch.bool)))
    held = torch.tensor([[True, True], [True, False]])
    assert paired_auc(torch.tensor([1.0, 1.0]), torch.tensor([[0.0, 2.0], [0.0, 9.0]]), held) == pytest.approx(2 / 3)
    assert calibration_error(torch.tensor([0.5] * 4), torch.tensor([0.0, 1.0] * 2), bins=2) == 0.0
