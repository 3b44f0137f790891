"""Rollouts: one episode a lane, the same lanes for all, against a loop that one can read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.policy import Carry, Policy
from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import EVALUATION_KEYS, Evaluator, Rollout, evaluate


class Fixed(Policy):
    """Always shows the same items, and remembers what it was given."""

    def __init__(self, items: list[int]) -> None:
        self.items = items
        self.keys: set[str] = set()
        self.carries: list[Carry] = []

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        self.keys |= set(observation)
        self.carries.append(carry)
        return torch.tensor(self.items).expand(len(observation["state"]), -1), len(self.carries)


def test_totals_equal_a_plain_loop_over_one_lane(truth: World) -> None:
    found = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=5, seed=3)
    for lane in range(5):
        core = Core(truth, "truth", batch=1, seed=3)
        core.reset(lanes=torch.tensor([lane]), users=torch.tensor([int(found.users[lane])]))
        value, clicks, steps = 0.0, 0.0, 0
        while True:
            step = core.step(torch.tensor([[0, 1, 2]]))
            value += float(step.reward)
            clicks += float(step.response.signals[..., 0].sum())
            steps += 1
            if len(step.finished):
                break
        assert found.value[lane] == pytest.approx(value)
        assert found.signals[lane, 0] == pytest.approx(clicks)
        assert found.length[lane] == steps
        assert found.left[lane] == bool(step.terminated)


def test_every_policy_meets_the_same_users_of_the_evaluate_part(judged: World) -> None:
    lanes = [
        evaluate(Fixed(items), judged, simulator, episodes=30, seed=1).users
        for items in ([0, 1, 2], [9, 8, 7])
        for simulator in ("train", "judge")
    ]
    assert all((users == lanes[0]).all() for users in lanes)
    pool = set(judged.users.rows("evaluate").tolist())
    assert set(lanes[0].tolist()) == pool, "30 lanes go round all of the evaluation users"
    counts = np.unique(lanes[0], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_a_lane_does_not_depend_on_how_many_there_are(truth: World) -> None:
    few = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=4, seed=2)
    many = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=40, seed=2)
    assert (few.users == many.users[:4]).all()
    np.testing.assert_allclose(few.value, many.value[:4])


def test_a_policy_sees_the_evaluation_keys_and_starts_without_carry(truth: World) -> None:
    policy = Fixed([0, 1, 2])
    evaluate(policy, truth, "truth", episodes=3, seed=0)
    assert policy.keys == set(EVALUATION_KEYS)
    assert policy.carries[0] is None
    assert policy.carries[1:] == list(range(1, len(policy.carries)))


def test_what_is_shown_is_counted_and_struck_places_are_not(truth: World) -> None:
    found = evaluate(Fixed([4, 4, 5]), truth, "truth", episodes=6, seed=0)
    slates = int(found.length.sum())
    assert found.shown[4] == found.shown[5] == slates
    assert found.shown.sum() == 2 * slates
    assert (found.invalid == found.length).all()
    assert found.coverage == pytest.approx(2 / len(truth.catalogue))
    items = len(truth.catalogue)
    assert found.gini == pytest.approx(1 - 2 / items), "two items alike, and nothing else"
    popular = torch.zeros(items)
    popular[found.shown.argmax()] = 5.0
    head = items // 5
    assert found.tail(popular) == pytest.approx(
        1 - found.shown[popular.argsort(descending=True, stable=True)[:head]].sum() / found.shown.sum()
    )
    assert found.tail(torch.from_numpy(found.shown).double()) == 0
    popularity = truth.catalogue.popularity.double()
    expected = float(popularity[[4, 5]].mean() / popularity.mean())
    np.testing.assert_allclose(found.popularity, expected, rtol=1e-6)


def test_the_trace_is_the_first_lane(truth: World) -> None:
    found = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=4, seed=5)
    assert found.trace_slate.tolist() == [[0, 1, 2]] * int(found.length[0])
    total = (found.trace_signals * found.trace_given).sum((0, 1))
    np.testing.assert_allclose(total, found.signals[0], rtol=1e-6)
    assert found.trace_history.tolist() == truth.users.history[int(found.users[0])].tolist()


def test_a_policys_draws_are_its_own(truth: World) -> None:
    policy = make_policy("random", truth)
    arena = Evaluator(truth, "truth", episodes=8, seed=0)
    first, again, other = arena.run(policy, 0), arena.run(policy, 0), arena.run(policy, 1)
    assert (first.trace_slate == again.trace_slate).all()
    assert first.trace_slate[0].tolist() != other.trace_slate[0].tolist()

    seen: list[Draw] = []

    class Nosy(Fixed):
        def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
            seen.append(draw)
            assert not bool((draw.key == arena.core.draw().key).any()), "nobody sees the users' dice"
            return super().act(observation, carry, k, draw)

    arena.run(Nosy([0, 1, 2]))
    assert seen


def test_a_planner_reads_the_state_and_nobody_beats_it(truth: World) -> None:
    arena = Evaluator(truth, "truth", episodes=60, seed=0)
    planner = arena.run(make_policy("planner", truth))
    popular = arena.run(make_policy("popularity", truth))
    assert planner.value.mean() > popular.value.mean()


def test_a_rollout_survives_the_disk(truth: World) -> None:
    found = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=4, seed=5)
    back = Rollout.of(found.tensors())
    for name, tensor in found.tensors().items():
        assert (getattr(back, name) == tensor.numpy()).all()


ROWS = torch.zeros(4, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("slate", "what"),
    [
        (ROWS[:, :2], r"int64 \(4, 2\)"),
        (ROWS.float(), r"float32 \(4, 3\)"),
        (ROWS.bool(), r"bool \(4, 3\)"),
        (ROWS.to(torch.uint16), r"uint16 \(4, 3\)"),
        (ROWS.to(torch.uint32), r"uint32 \(4, 3\)"),
        (ROWS.to(torch.uint64), r"uint64 \(4, 3\)"),
        (np.array([["1", "2", "3"]] * 4), r"<U1 \(4, 3\)"),
        ([["1", "2", "3"]] * 4, "a list of 4"),
        (None, "None"),
    ],
)
def test_a_slate_of_another_kind_names_the_policy(truth: World, slate: object, what: str) -> None:
    class Wrong(Fixed):
        def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
            return slate, None  # type: ignore[return-value]

    message = (
        rf"Wrong\.act\(observation of 4 lanes, carry, k=3, draw\) returned {what}; a slate is an int64 tensor \(4, 3\)"
    )
    with pytest.raises(PolicyError, match=message):
        evaluate(Wrong([]), truth, "truth", episodes=4)


def test_slates_without_a_carry_name_the_policy(truth: World) -> None:
    class Alone(Fixed):
        def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
            return ROWS  # type: ignore[return-value]

    with pytest.raises(PolicyError, match=r"Alone\.act\(.* returned int64 \(4, 3\); return the slates and"):
        evaluate(Alone([]), truth, "truth", episodes=4)


def test_one_lane_or_one_user_is_too_few(truth: World) -> None:
    with pytest.raises(RecloopError, match="episodes=1; an interval needs at least 2"):
        evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=1)
    lonely = replace(truth, users=replace(truth.users, part=torch.zeros(60, dtype=torch.int64)))
    lonely.users.part[0] = 3
    with pytest.raises(RecloopError, match=r"1 user\(s\) to evaluate on"):
        evaluate(Fixed([0, 1, 2]), lonely, "truth", episodes=4)


def test_a_cold_start_shows_no_history_and_meets_the_same_users(truth: World) -> None:
    warm = evaluate(Fixed([0, 1, 2]), truth, "truth", episodes=8, seed=3)
    cold = Evaluator(truth, "truth", episodes=8, seed=3, start="cold").run(Fixed([0, 1, 2]))
    assert (warm.users == cold.users).all()
    assert (warm.trace_history < len(truth.catalogue)).any()
    assert (cold.trace_history == len(truth.catalogue)).all()
