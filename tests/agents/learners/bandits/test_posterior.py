"""The posterior against closed forms, its groups apart from each other, and regret on linear arms that are known."""

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.bandits.features import Arms
from recloop.agents.learners.bandits.policy import Choice
from recloop.agents.learners.bandits.posterior import RidgePosterior
from recloop.envs.interaction.randomness import Draw


def rows(lanes: int, places: int, size: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(lanes, places, size, generator=generator)
    reward = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(lanes, places, generator=generator)
    return x, reward, torch.ones(lanes, places)


def test_the_mean_is_ridge_regression_and_the_spread_its_doubt() -> None:
    x, reward, weight = rows(4, 5)
    weight[1] = 0  # a lane that does not count
    belief = RidgePosterior.prior(3, 2.0).told(x, reward, weight).belief()
    kept, earned = (part[[0, 2, 3]].flatten(0, 1).double() for part in (x, reward))
    precision = 2.0 * torch.eye(3).double() + kept.T @ kept
    mean = torch.linalg.solve(precision, kept.T @ earned)
    missed = (kept @ mean - earned).square().sum() + 2.0 * mean.square().sum()
    noise = ((1 + missed) / (1 + 15)).sqrt()
    torch.testing.assert_close(belief.mean[0], mean)
    torch.testing.assert_close(belief.noise[0], noise)
    doubt = (x.double() @ torch.linalg.inv(precision) * x).sum(2).sqrt() * noise
    torch.testing.assert_close(belief.spread(x), doubt.float(), rtol=1e-4, atol=1e-6)


def test_told_step_by_step_or_at_once_is_the_same() -> None:
    x, reward, weight = rows(6, 4)
    whole = RidgePosterior.prior(3, 1.0).told(x, reward, weight)
    parts = RidgePosterior.prior(3, 1.0)
    for half in (slice(0, 3), slice(3, 6)):
        parts = parts.told(x[half], reward[half], weight[half])
    torch.testing.assert_close(whole.held(), parts.held())


def test_groups_of_one_lane_each_learn_what_that_lane_alone_would() -> None:
    x, reward, weight = rows(3, 4)
    start = RidgePosterior.prior(3, 1.0).told(*rows(2, 2, seed=7))
    together = start.for_each(3).told(x, reward, weight)
    for lane in range(3):
        alone = start.told(x[lane : lane + 1], reward[lane : lane + 1], weight[lane : lane + 1])
        torch.testing.assert_close(together.rows(torch.tensor([lane])).held(), alone.held())
    normal = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    drawn = together.belief().drawn(normal, 1.0)
    for lane in range(3):
        alone = together.rows(torch.tensor([lane])).belief()
        torch.testing.assert_close(drawn[lane : lane + 1], alone.drawn(normal[lane : lane + 1], 1.0))


def test_drawn_weights_have_the_mean_and_covariance_of_the_posterior() -> None:
    posterior = RidgePosterior.prior(3, 1.0).told(*rows(1, 6))
    belief = posterior.belief()
    normal = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(2))
    drawn = belief.drawn(normal, 2.0).double()
    covariance = 4 * belief.noise.square() * torch.linalg.inv(posterior.precision[0])
    torch.testing.assert_close(drawn.mean(0), belief.mean[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, atol=0.02 * float(covariance.max()), rtol=0)


def test_rewards_that_never_vary_end_all_doubt_and_break_nothing() -> None:
    x, _, weight = rows(50, 40)
    belief = RidgePosterior.prior(3, 1.0).told(x, torch.zeros(50, 40), weight).belief()
    assert float(belief.noise) == pytest.approx(2001**-0.5)
    assert float(belief.spread(x).max()) < 0.01
    assert bool((belief.expected(x) == 0).all())


def test_features_that_never_vary_leave_the_mean_finite() -> None:
    x = torch.ones(20, 5, 3)
    belief = RidgePosterior.prior(3, 1.0).told(x, torch.full((20, 5), 2.0), torch.ones(20, 5)).belief()
    torch.testing.assert_close(belief.expected(x), torch.full((20, 5), 2.0), atol=0.01, rtol=0)
    assert bool(torch.isfinite(belief.spread(x)).all())


def regret(choice: Choice, steps: int = 400, lanes: int = 16) -> Tensor:
    """Mean regret (steps,) of lanes that learn apart: 20 new arms of 5 features, noise of 0.5 around known means."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(lanes, 5, 1, generator=generator)
    posterior = RidgePosterior.prior(5, 1.0).for_each(lanes)
    items, mask = torch.arange(20).expand(lanes, -1), torch.ones(lanes, 20, dtype=torch.bool)
    zero, lost = torch.zeros(lanes, dtype=torch.int64), []
    for step in range(steps):
        x = torch.randn(lanes, 20, 5, generator=generator)
        mean = (x @ weights)[..., 0]
        draw = Draw.at(0, torch.arange(lanes), zero, zero + step)
        place = choice.positions(posterior.belief(), Arms(items, mask, x), 1, draw, explores=True)
        reward = mean.gather(1, place) + 0.5 * torch.randn(lanes, 1, generator=generator)
        posterior = posterior.told(x.gather(1, place.unsqueeze(2).expand(-1, -1, 5)), reward, torch.ones(lanes, 1))
        lost.append(float((mean.amax(1) - mean.gather(1, place)[:, 0]).mean()))
    return torch.tensor(lost)


@pytest.mark.parametrize("rule", ["upper-bound", "thompson"])
def test_regret_grows_no_faster_than_the_square_root_of_time(rule: str) -> None:
    """The second half of it loses less than 41 % of what the first half does."""
    lost = regret(Choice(rule))  # type: ignore[arg-type]
    assert float(lost[200:].sum()) < (2**0.5 - 1) * float(lost[:200].sum())


def test_epsilon_greedy_pays_for_ever() -> None:
    """Its chance of an item at random never falls: both halves lose about as much."""
    lost = regret(Choice("epsilon-greedy", epsilon=0.5))
    assert float(lost[200:].sum()) > 0.7 * float(lost[:200].sum())
