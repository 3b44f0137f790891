"""The computed optimum, held against every sequence of slates there is."""

import itertools

import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.truth.boredom import BoredomRules, BoredomState, BoredomUsers
from recloop.envs.truth.boredom_optimum import best_slates, boredom_number, solve

RULES = BoredomRules(bored_at=2, levels=3, fade=0.5, examine=0.8, leave=0.1, leave_bored=0.4)
QUALITY = {"quality": torch.tensor([1.0, 0.5, 0.9, 0.6])}
NOTHING = Past(*[torch.zeros(1)] * 6)


def _users() -> BoredomUsers:
    preference = torch.tensor([[0.8, 0.4], [0.3, 0.9]])
    return BoredomUsers(preference, torch.tensor([0, 0, 1, 1]), QUALITY, RULES)


def _value(users: BoredomUsers, state: BoredomState, left: int, reward: WeightedReward) -> float:
    """The best expected return by trying every ordered slate of two items, every step."""
    if left == 0:
        return 0.0
    best = -float("inf")
    for slate in itertools.permutations(range(4), 2):
        shown = torch.tensor([slate])
        expected = users.expected(state, NOTHING, shown)
        click, rating = expected.mean[0, :, 0], expected.mean[0, :, 1]
        assert expected.leave is not None
        leave = expected.leave.item()
        gain = (click * reward.signals.get("click", 0) + click * rating * reward.signals.get("rating", 0)).sum().item()
        after = users.observe(state, shown, expected.mean)
        best = max(best, gain + reward.leaving * leave + (1 - leave) * _value(users, after, left - 1, reward))
    return best


@pytest.mark.parametrize(
    "reward",
    [WeightedReward({"click": 1.0}), WeightedReward({"click": 0.2, "rating": 0.5}, leaving=-1.0)],
    ids=["clicks", "clicks, ratings and leaving"],
)
def test_optimum_equals_brute_force(reward: WeightedReward) -> None:
    users = _users()
    found = solve(users, torch.tensor([1, 0, 1]), 2, 3, reward)
    for lane, row in enumerate([1, 0, 1]):
        start = BoredomState(users.preference[row : row + 1], torch.zeros(1, 2, dtype=torch.int64))
        assert found.value[lane].item() == pytest.approx(_value(users, start, 3, reward), abs=1e-5)


def test_best_slate_is_the_valuable_item_on_top() -> None:
    users = _users()
    state = BoredomState(users.preference, torch.tensor([[2, 0], [0, 0]]))
    slates = best_slates(users, state, torch.tensor([[1, 1], [0, 2]]), {"click": 1.0})
    assert slates.tolist() == [[2, 0], [2, 3]]


def test_boredom_states_are_numbered_in_order() -> None:
    assert boredom_number(_users(), torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])).tolist() == [0, 1, 3, 8]


def test_rewards_without_a_known_optimum_are_refused() -> None:
    with pytest.raises(RecloopError, match="diversity"):
        solve(_users(), torch.tensor([0]), 2, 3, WeightedReward({"click": 1.0}, diversity=0.1))


def test_slate_larger_than_the_catalogue_is_refused() -> None:
    with pytest.raises(RecloopError, match="slate_size=5"):
        solve(_users(), torch.tensor([0]), 5, 3, WeightedReward({"click": 1.0}))
