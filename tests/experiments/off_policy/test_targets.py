"""Probabilities of targets against counting, and propensities that are estimated."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.baselines.random_items import RandomPolicy
from recloop.agents.policy import Policy, ScoringPolicy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.experiments.off_policy.choices import LoggedChoices
from recloop.experiments.off_policy.targets import PlaceShares, Softened, target_of, with_estimated

Make = Callable[..., LoggedChoices]


class Fixed(ScoringPolicy):
    """Ranks the later row first."""

    name = "fixed"

    def scores(self, observation: Observation) -> Tensor:
        """Row numbers."""
        return torch.arange(observation["action_mask"].shape[1]).float().expand(len(observation["action_mask"]), -1)


POLICIES = {
    "softened": Softened(Fixed(), 0.3),
    "shares": PlaceShares(torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.4, 0.4]]).double(), "shares"),
}


def seen(lanes: int, mask: list[bool]) -> Observation:
    return {
        "action_mask": torch.tensor(mask).expand(lanes, -1),
        "history": torch.zeros(lanes, 0, dtype=torch.int64),
        "first_place": torch.zeros(lanes, dtype=torch.int64),
    }


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
@pytest.mark.parametrize("mask", [[True] * 4, [True, False, True, True]])
def test_what_is_drawn_has_the_probability_that_is_told(policy: Policy, mask: list[bool]) -> None:
    every = torch.tensor(list(permutations(range(4), 2)))
    told = policy.log_prob(seen(len(every), mask), every).exp()
    assert float(told.sum()) == pytest.approx(1)
    lanes = torch.arange(40_000)
    draw = Draw.at(0, lanes, torch.zeros_like(lanes), torch.zeros_like(lanes))
    drawn, carry = policy.act(seen(len(lanes), mask), None, 2, draw)
    assert carry is None
    shares = (drawn.unsqueeze(1) == every).all(2).double().mean(0)
    np.testing.assert_allclose(shares, told, atol=0.01)


def test_softened_by_hand() -> None:
    slate = torch.tensor([[3, 2], [0, 3], [3, 0]])
    told = POLICIES["softened"].log_prob(seen(3, [True] * 4), slate).exp()
    best, any_of_4, any_of_3 = 0.7, 0.3 / 4, 0.3 / 3
    expected = [(best + any_of_4) * (best + any_of_3), any_of_4 * (best + any_of_3), (best + any_of_4) * any_of_3]
    assert told.tolist() == pytest.approx(expected)


def test_who_cannot_be_weighed_is_refused(bandit: Make) -> None:
    log = bandit(20, 0)
    log.observation["history"] = torch.zeros(20, 0, dtype=torch.int64)
    with pytest.raises(PolicyError, match="'fixed' is a policy without probabilities where weights need them"):
        target_of(Fixed(), log)
    assert target_of(Fixed(), log, epsilon=0.1).name == "fixed, epsilon 0.1"

    class Drawing(RandomPolicy):
        """Draws, and does not say how."""

        log_prob = Policy.log_prob

    with pytest.raises(PolicyError, match="'random' draws its slates or keeps a memory, and has no probabilities"):
        target_of(Drawing(), log, epsilon=0.1)
    with pytest.raises(PolicyError, match="--epsilon 1 is no chance to explore"):
        Softened(Fixed(), 1.0)


def test_shares_are_counted_among_slates_that_could_still_show_the_item(choices: Make) -> None:
    items = np.array([[0, 1], [0, 2], [1, 0], [1, 2]])
    rows = np.arange(4)
    shares = PlaceShares.counted(choices(items, np.zeros((4, 2)), None, rows, rows, 3), "counted").shares
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0.0], [1 / 2, 1 / 2, 2 / 4]])


def test_estimated_propensities_are_near_the_true_ones_and_doubted_where_the_moment_mattered(choices: Make) -> None:
    rng, rows = np.random.default_rng(0), np.arange(4000)
    shares = np.array([0.5, 0.3, 0.2])
    context = rng.integers(0, 2, (4000, 1)).astype(float)
    blind = rng.choice(3, 4000, p=shares)[:, None]
    found = with_estimated(choices(blind, np.zeros((4000, 1)), None, rows, rows, 3, context))
    assert found.propensity is not None
    assert found.doubt == ""
    np.testing.assert_allclose(found.propensity, shares[blind], atol=0.03)
    turned = np.where(context == 1, 2 - blind, blind)
    doubt = with_estimated(choices(turned, np.zeros((4000, 1)), None, rows, rows, 3, context)).doubt
    assert doubt.startswith("estimated propensities (shares by place) are off by ")
    assert "(at most 10%" in doubt
