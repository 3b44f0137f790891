"""Charges for what an ensemble does not know, and a bonus for where the log was varied."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.response import Past, Response
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.penalties import LoggedEntropy, PenalisedReward, PenaltyConfig, training_reward
from recloop.envs.world.world import World

N = 4
EMPTY = N


def log_of(*lists: list[int]) -> Sequences:
    """A log of single consumptions without exposures."""
    items = np.array([item for row in lists for item in row], dtype=np.int64)
    ones = np.ones((len(items), 1))
    return Sequences(N, np.cumsum([0, *map(len, lists)]), items, ones.astype(np.float32), ones.astype(bool))


def lookup(entropy: LoggedEntropy, *history: int) -> float:
    return float(entropy(torch.tensor([history]))[0]) * math.log(N)


def test_entropies_of_one_item_by_hand():
    entropy = LoggedEntropy.counted(log_of([0, 1, 0, 2], [0, 1], [3, 0, 2]), np.arange(3), (1,))
    # after 0 came 1, 2, 1, 2; after 1 came 0; after 3 came 0; after 2 nothing ever came
    assert lookup(entropy, EMPTY, 0) == pytest.approx(math.log(2), abs=1e-6)
    assert lookup(entropy, 0, 1) == lookup(entropy, 0, 3) == lookup(entropy, 0, 2) == 0


def test_uneven_counts_and_users_left_out():
    log = log_of([0, 1, 0, 1, 0, 2], [0, 3])
    wanted = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert lookup(LoggedEntropy.counted(log, np.array([0]), (1,)), 0) == pytest.approx(wanted, abs=1e-6)
    wanted = -(2 / 4 * math.log(2 / 4) + 2 * (1 / 4) * math.log(1 / 4))
    assert lookup(LoggedEntropy.counted(log, np.array([0, 1]), (1,)), 0) == pytest.approx(wanted, abs=1e-6)


def test_two_items_count_in_whatever_order_and_orders_are_summed():
    log = log_of([0, 1, 2], [1, 0, 3])
    pairs = LoggedEntropy.counted(log, np.arange(2), (2,))
    assert lookup(pairs, 0, 1) == lookup(pairs, 1, 0) == pytest.approx(math.log(2), abs=1e-6)
    assert lookup(pairs, EMPTY, 1) == 0, "one item is no state of two"
    singles = LoggedEntropy.counted(log, np.arange(2), (1,))
    both = LoggedEntropy.counted(log, np.arange(2), (1, 2))
    # after 1 came 2 and 0; with the pair that makes two times log 2
    assert lookup(singles, 0, 1) == pytest.approx(math.log(2), abs=1e-6)
    assert lookup(both, 0, 1) == pytest.approx(2 * math.log(2), abs=1e-6)


def test_with_exposures_what_came_next_is_what_was_shown():
    log = log_of([0, 2])
    slates = Slates(
        offsets=np.array([0, 3]),
        items=np.array([[0, 1], [1, EMPTY], [2, 3]]),
        answers=np.zeros((3, 2, 1), dtype=np.float32),
        given=np.ones((3, 2, 1), dtype=bool),
        consumed_before=np.array([0, 1, 1]),
        session=np.zeros(3, dtype=np.int64),
        left=np.zeros(3, dtype=np.int8),
    )
    entropy = LoggedEntropy.counted(replace(log, slates=slates), np.array([0]), (1,))
    assert lookup(entropy, 0) == pytest.approx(math.log(3), abs=1e-6), "1, then 2 and 3; an empty place is nothing"


def test_entropies_against_a_plain_count():
    generator = np.random.default_rng(0)
    lists = [generator.integers(0, N, 30).tolist() for _ in range(5)]
    entropy = LoggedEntropy.counted(log_of(*lists), np.arange(5), (1, 2))
    nexts: dict[tuple[int, ...], list[int]] = {}
    for row in lists:
        for place in range(1, len(row)):
            nexts.setdefault((row[place - 1],), []).append(row[place])
            if place > 1:
                nexts.setdefault(tuple(sorted(row[place - 2 : place])), []).append(row[place])
    for first in range(N):
        for second in range(N):
            wanted = 0.0
            for state in ((second,), tuple(sorted((first, second)))):
                shares = np.unique(nexts.get(state, [0]), return_counts=True)[1] / len(nexts.get(state, [0]))
                wanted -= float((shares * np.log(shares)).sum())
            assert lookup(entropy, first, second) == pytest.approx(wanted, abs=1e-5)


def test_a_log_without_steps_has_no_entropy_to_reward():
    with pytest.raises(RecloopError, match="no train user met anything after 1 consumed items"):
        LoggedEntropy.counted(log_of([0], [1]), np.arange(2))
    with pytest.raises(RecloopError, match=r"orders=\(0,\); give one or more numbers of items"):
        LoggedEntropy.counted(log_of([0, 1]), np.arange(1), (0,))


def outcome(history: list[list[int]]) -> Outcome:
    """Two places of two signals, of which the second is the rating; every item was consumed and rated 1."""
    b = len(history)
    ones = torch.ones(b, 2, 2)
    zeros = torch.zeros(b, dtype=torch.int64)
    none = torch.zeros(b, 0, 2, dtype=torch.int64)
    return Outcome(
        slate=torch.tensor([[0, 1]] * b),
        response=Response(ones, ones.bool(), zeros.bool()),
        invalid=zeros,
        item_vectors=torch.zeros(N + 1, 2),
        signals=(Signal("click"), Signal("rating", "ordinal", levels=(1.0, 2.0), given_on="click")),
        spread=torch.tensor([[[0.1, 0.2], [0.3, 0.4]]] * b),
        farthest=torch.tensor([[[1.0, 2.0], [3.0, 4.0]]] * b),
        past=Past(torch.tensor(history), ones, none, ones, zeros, zeros.float()),
    )


EARNED = WeightedReward({"click": 1.0, "rating": -0.5})


def test_pessimism_charges_for_what_the_ensemble_disagrees_about():
    seen = outcome([[0, 1]])
    spread = PenalisedReward(EARNED, PenaltyConfig(pessimism=2.0))
    assert float(spread(seen)) == pytest.approx(1.0 - 2.0 * (0.1 + 0.3 + 0.5 * (0.2 + 0.4)))
    farthest = PenalisedReward(EARNED, PenaltyConfig(pessimism=2.0, uncertainty="max"))
    assert float(farthest(seen)) == pytest.approx(1.0 - 2.0 * (1.0 + 3.0 + 0.5 * (2.0 + 4.0)))
    half = replace(seen, slate=torch.tensor([[0, EMPTY]]))
    assert float(spread(half)) == pytest.approx(1.0 - 2.0 * (0.1 + 0.5 * 0.2)), "an empty place is charged nothing"
    with pytest.raises(RecloopError, match="pessimism needs users who say how unsure they are"):
        spread(replace(seen, spread=None))


def test_the_bonus_is_the_entropy_where_the_user_stands_after_the_step():
    entropy = LoggedEntropy.counted(log_of([0, 1, 0, 2], [0, 1], [3, 0, 2]), np.arange(3), (1,))
    reward = PenalisedReward(EARNED, PenaltyConfig(entropy_bonus=3.0), entropy)
    found = reward(outcome([[1, 0], [0, 1]]))
    assert found.tolist() == pytest.approx([1.0 + 3.0 * math.log(2) / math.log(N), 1.0], abs=1e-5)
    assert not reward.needs_spread
    with pytest.raises(RecloopError, match="an entropy bonus needs the log's entropies"):
        PenalisedReward(EARNED, PenaltyConfig(entropy_bonus=3.0))
    with pytest.raises(RecloopError, match="an entropy bonus needs the users' past"):
        reward(replace(outcome([[1, 0]]), past=None))


def test_weights_of_zero_are_the_plain_reward(world: World):
    assert training_reward(world, PenaltyConfig()) is None
    plain = PenalisedReward(EARNED, PenaltyConfig())
    assert torch.equal(plain(outcome([[0, 1]])), EARNED(outcome([[0, 1]])))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pessimism": -1.0}, r"pessimism=-1.0; it is a penalty, give 0 or more"),
        ({"entropy_bonus": float("nan")}, r"entropy_bonus=nan; it is a bonus, give 0 or more"),
        ({"uncertainty": "mx"}, r"unknown uncertainty 'mx'; did you mean 'max'"),
    ],
)
def test_bad_weights_are_refused(settings: dict, told: str):
    with pytest.raises(RecloopError, match=told):
        PenaltyConfig(**settings)


def test_in_the_core_a_bonus_follows_the_history(world: World):
    reward = training_reward(world, PenaltyConfig(entropy_bonus=2.0))
    assert isinstance(reward, PenalisedReward)
    plain, paid = Core(world, batch=8, seed=3), Core(world, batch=8, seed=3, reward=reward)
    slate = torch.arange(plain.slate_size).expand(8, -1)
    for _ in range(3):
        before, after = plain.step(slate), paid.step(slate)
        running = ~(after.terminated | after.truncated)
        bonus = 2.0 * reward.entropy(paid.past.history)
        assert torch.allclose((after.reward - before.reward)[running], bonus[running], atol=1e-5)
