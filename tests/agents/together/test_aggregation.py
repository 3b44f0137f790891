"""Aggregators against plain loops, and single-user policies before groups."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloop.agents.baselines.content import ContentPolicy
from recloop.agents.policy import FitOptions
from recloop.agents.registry import make_policy
from recloop.agents.together.aggregation import AGGREGATORS, APPROVED, Ballot, between_0_and_1, fair_weights
from recloop.agents.together.policy import AggregatedPolicy, TrueTastesPolicy, for_groups
from recloop.encoders.base.errors import PolicyError
from recloop.envs.simulation.core import Core
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.together.forming import grouped
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import evaluate

K = 2


@pytest.fixture(scope="module")
def single() -> World:
    return truth_world("clicks", users=80, items=40)


@pytest.fixture(scope="module")
def groups(single: World) -> World:
    return grouped(single, 3, reward="least-misery")


def _by_hand(how: str, liking: list[list[float]], shown: list[bool], got: list[float]) -> list[float]:
    """The score of every item that may be shown, ties left as they are."""
    items = [i for i, may in enumerate(shown) if may]
    weights = [1 / (1 + x) for x in got]
    found = []
    for item in items:
        said = [member[item] for member in liking]
        match how:
            case "average":
                found.append(sum(said) / len(said))
            case "least-misery":
                found.append(min(said))
            case "most-pleasure":
                found.append(max(said))
            case "fair":
                found.append(sum(s * w for s, w in zip(said, weights, strict=True)) / sum(weights))
            case "borda":
                points = 0.0
                for member in liking:
                    others = [member[other] for other in items if other != item]
                    points += sum((o < member[item]) + 0.5 * (o == member[item]) for o in others)
                found.append(points)
            case "approval":
                best = [sorted(items, key=lambda i, m=member: -m[i])[: APPROVED * K] for member in liking]
                found.append(float(sum(item in list_ for list_ in best)))
    return found


@pytest.mark.parametrize("how", AGGREGATORS)
def test_aggregators_against_a_plain_loop(how: str) -> None:
    generator = torch.Generator().manual_seed(0)
    liking = torch.rand(5, 3, 9, generator=generator)
    liking[0] = (liking[0] * 3).round() / 3 if how == "borda" else liking[0]  # ties
    mask = torch.rand(5, 9, generator=generator) < 0.8
    got = torch.randint(0, 6, (5, 3), generator=generator).float()
    scores = AGGREGATORS[how](Ballot(liking, mask, got, K))
    tolerance = 1e-5 if how in ("average", "fair", "borda") else 1e-3
    for lane in range(5):
        want = _by_hand(how, liking[lane].tolist(), mask[lane].tolist(), got[lane].tolist())
        offset = scores[lane][mask[lane]] - torch.tensor(want)
        if how == "borda":  # items that may not be shown lie below all others
            offset = offset - offset[0]
        assert offset.abs().max() <= tolerance + 1e-5


def test_aggregators_choose_otherwise_where_they_must() -> None:
    """Item 0 splits the members, item 1 is all right for both, item 2 is liked a little more by the one who lost."""
    liking = torch.tensor([[[1.0, 0.45, 0.0], [0.1, 0.45, 0.9]]])
    ballot = Ballot(liking, torch.ones(1, 3, dtype=torch.bool), torch.tensor([[9.0, 0.0]]), 1)
    best = {how: int(score(ballot).argmax()) for how, score in AGGREGATORS.items()}
    assert best["average"] == 0
    assert best["least-misery"] == 1
    assert best["most-pleasure"] == 0
    assert best["fair"] == 2


def test_fair_weights_add_up_and_favour_who_lost() -> None:
    weights = fair_weights(torch.tensor([[0.0, 1.0, 4.0], [2.0, 2.0, 2.0]]))
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert weights[0, 0] > weights[0, 1] > weights[0, 2]
    assert torch.allclose(weights[1], torch.full((3,), 1 / 3))


def test_scores_are_stretched_by_what_may_be_shown() -> None:
    scores = torch.tensor([[[-100.0, 2.0, 4.0, 3.0], [0.0, 7.0, 7.0, 7.0]]])
    mask = torch.tensor([[False, True, True, True]])
    assert between_0_and_1(scores, mask)[..., 1:].tolist() == [[[0.0, 1.0, 0.5], [0.5, 0.5, 0.5]]]


def test_a_group_of_one_is_shown_what_the_user_alone_is(single: World) -> None:
    alone = make_policy("content", single)
    one = grouped(single, 1)
    rows = one.simulator("truth").members.flatten()  # type: ignore[attr-defined]
    users = torch.arange(16)
    together = for_groups(one, "content", "average")
    cores = Core(one, batch=16, users="all", seed=2), Core(single, batch=16, users="all", seed=2)
    cores[0].reset(users=users)
    cores[1].reset(users=rows[users])
    carry, going = None, torch.ones(16, dtype=torch.bool)
    for _ in range(5):
        mine, carry = together.act(cores[0].observe(), carry, 5, cores[0].draw())
        theirs, _ = alone.act(cores[1].observe(), None, 5, cores[1].draw())
        assert torch.equal(mine[going], theirs[going])
        step, _ = cores[0].step(mine), cores[1].step(theirs)
        going &= ~(step.terminated | step.truncated)


def test_the_policy_sees_each_members_own_past(groups: World, single: World) -> None:
    """What it reads out of observations is what the simulator keeps of the members."""
    policy = for_groups(groups, "content", "average")
    core = Core(groups, batch=10, users="all", seed=4)
    carry, going = None, torch.ones(10, dtype=torch.bool)
    for _ in range(8):
        slate, carry = policy.act(core.observe(), carry, 5, core.draw())
        own = going.repeat_interleave(3)
        assert torch.equal(carry.past.history[own], core.state.history[own])
        assert torch.equal(carry.past.feedback[own], core.state.feedback[own])
        assert torch.equal(carry.got[going], core.state.got[going])
        step = core.step(slate)
        going &= ~(step.terminated | step.truncated)


def test_nobody_cares_for_what_they_consumed_where_nobody_consumes_twice(single: World) -> None:
    once = grouped(replace(single, consumes_twice=False), 3)
    policy = for_groups(once, "popularity", "average")
    core = Core(once, batch=10, users="all", seed=4)
    slate, _ = policy.act(core.observe(), None, 5, core.draw())
    core.step(slate)
    _, known = policy.act(core.observe(), policy._met(core.observe()), 5, core.draw())
    liking = policy.liking(known, torch.rand(10, 3, 40), torch.ones(10, 40, dtype=torch.bool))
    took = known.past.history[known.past.history < 40]
    assert len(took)
    lanes = (known.past.history < 40).nonzero()[:, 0]
    assert not liking.flatten(0, 1)[lanes, took].any()
    assert (liking == 0).sum() <= len(took) + 30  # and, by the stretching, the least liked item of each


def test_true_tastes_serve_what_they_are_put_together_for(groups: World) -> None:
    found = {how: evaluate(TrueTastesPolicy(how), groups, "truth", episodes=60, users="all") for how in AGGREGATORS}

    def members(how: str) -> Tensor:
        return torch.from_numpy(found[how].signals[:, 1:])

    assert members("average").mean() > members("least-misery").mean()
    assert members("fair").amin(1).mean() > members("average").amin(1).mean()
    assert members("least-misery").amin(1).mean() > members("most-pleasure").amin(1).mean()


def test_by_name_and_what_does_not_fit(groups: World, single: World) -> None:
    named = make_policy("recloop.agents.together.policy:content/borda", groups)
    assert isinstance(named, AggregatedPolicy)
    assert isinstance(named.scorer, ContentPolicy)
    assert named.name == "content/borda"
    with pytest.raises(PolicyError, match="did you mean 'borda'"):
        for_groups(groups, "content", "bordaa")
    with pytest.raises(PolicyError, match="does not score every item"):
        for_groups(groups, "random", "average")
    with pytest.raises(PolicyError, match="no user model that tells chances"):
        for_groups(groups, "user-model", "average")
    with pytest.raises(PolicyError, match="is not kept"):
        named.save("nowhere")
    with pytest.raises(PolicyError, match="is for groups"):
        TrueTastesPolicy("average").act_on_state(Core(single, batch=2), 5)


def test_ppo_learns_in_a_world_of_groups(groups: World) -> None:
    policy = make_policy(
        "recloop-ppo",
        groups,
        FitOptions(steps=256, settings={"num_envs": 16, "validations": 1, "validation_episodes": 4}),
    )
    assert evaluate(policy, groups, "truth", episodes=4).length.min() >= 1
