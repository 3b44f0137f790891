"""Groups of users: each member answers as they would alone, and the group goes by its stated laws."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.agents.registry import make_policy
from recloop.encoders.base.errors import RecloopError, UserSimulatorError
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome
from recloop.envs.simulation.core import Core
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.checks import check_users
from recloop.envs.users.together.forming import form_groups, grouped, members_of, single_world
from recloop.envs.users.together.members import each_alone, group_size, of_group, of_members, own_histories
from recloop.envs.users.together.rewards import fair, group_reward, least_misery, mean, most_pleasure
from recloop.envs.users.together.users import GroupResponse, GroupUsers, at_least
from recloop.envs.world.world import World


@pytest.fixture(scope="module", params=["clicks", "boredom", "retention"])
def truth(request: pytest.FixtureRequest) -> World:
    return truth_world(request.param, users=60, items=40)


def _slates(lanes: int, items: int, k: int, steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.stack([torch.randperm(items, generator=generator)[:k] for _ in range(lanes)]) for _ in range(steps)]


def _side_by_side(world: World, steps: int = 4) -> None:
    """A group of one and the same user alone, with the same luck."""
    groups = grouped(world, 1)
    rows = torch.arange(20)
    together, alone = (Core(w, batch=20, users="all", seed=3) for w in (groups, world))
    together.reset(users=rows)
    alone.reset(users=members_of(groups)[rows].flatten())
    going = torch.ones(20, dtype=torch.bool)
    for slate in _slates(20, len(world.catalogue), world.slate_size, steps):
        mine, theirs = together.observe(), alone.observe()
        for key in ("state", "history", "shown", "context", "profile"):
            assert torch.allclose(mine[key][going].float(), theirs[key][going].float(), atol=1e-5), key
        for key in ("feedback", "answers"):
            assert torch.equal(of_members(mine[key], 1)[going].squeeze(-2), theirs[key][going])
        one, two = together.step(slate), alone.step(slate)
        assert torch.equal(of_members(one.response.signals, 1)[going].squeeze(2), two.response.signals[going])
        assert torch.equal(one.response.signals[..., 0][going], two.response.signals[..., 0][going])
        assert torch.equal(one.terminated[going], two.terminated[going])
        assert torch.equal(one.slate[going], two.slate[going])
        going &= ~(two.terminated | two.truncated)
        assert going.any()


def test_a_group_of_one_is_the_user_alone(truth: World) -> None:
    _side_by_side(truth)


def test_also_warm_from_a_log_and_where_nobody_consumes_twice(world: World, once_world: World) -> None:
    _side_by_side(world, 2)
    _side_by_side(once_world, 2)


@pytest.mark.parametrize("formation", ["random", "similar", "family"])
def test_groups_keep_the_contract_of_users(truth: World, formation: str) -> None:
    groups = grouped(truth, 3, formation)
    check_users(groups.simulator("truth"), groups)


def test_the_group_answers_by_its_laws(truth: World) -> None:
    """Batched answers against a plain loop over members."""
    groups = grouped(truth, 3)
    core = Core(groups, batch=12, users="all", seed=1)
    enough = torch.zeros(12, 3, dtype=torch.bool)
    got = torch.zeros(12, 3)
    fresh = torch.ones(12, dtype=torch.bool)
    for slate in _slates(12, 40, groups.slate_size, 6):
        assert torch.equal(core.state.got[fresh], got[fresh])
        step = core.step(slate)
        response = step.response
        assert isinstance(response, GroupResponse)
        own = of_members(response.signals, 3)[..., 0]  # (B, K, g)
        for lane in range(12):
            for place in range(groups.slate_size):
                votes = sum(float(own[lane, place, j]) for j in range(3))
                assert float(response.signals[lane, place, 0]) == float(votes >= 1.5)
        got += own.sum(1)
        enough |= core.state.enough
        stays = fresh & ~response.left
        assert ((core.state.enough.sum(1) * 2 <= 3) | ~stays).all()
        fresh = stays & ~step.terminated & ~step.truncated
    assert enough.any()


def test_members_pass_over_what_they_consumed(once_world: World) -> None:
    groups = grouped(once_world, 2)
    core = Core(groups, batch=8, users="all", seed=0, max_steps=4)
    slate = torch.arange(20, 24).expand(8, -1).contiguous()
    before = own_histories(core.past.history, core.past.feedback, 2, len(once_world.catalogue))[0]
    given = core.step(slate).response.given
    own = of_members(given, 2)[..., 0].transpose(1, 2).flatten(0, 1)  # (B g, K)
    had = (each_alone(slate, 2).unsqueeze(2) == before.unsqueeze(1)).any(2)
    assert not (own & had).any()
    core.reset(users=torch.arange(8))
    for group, rows in enumerate(members_of(groups)[:8].tolist()):
        consumed = {int(item) for row in rows for item in once_world.sequences.of(row)[0]}
        assert set((~core.action_mask()[group]).nonzero()[:, 0].tolist()) == consumed


def test_members_histories_come_back_out_of_the_groups(world: World) -> None:
    groups = grouped(world, 3)
    members = members_of(groups)
    history, feedback = own_histories(groups.users.history, groups.users.feedback, 3, len(world.catalogue))
    assert torch.equal(history, world.users.history[members].flatten(0, 1))
    assert torch.equal(feedback, world.users.feedback[members].flatten(0, 1))
    log = groups.sequences
    for group, rows in enumerate(members.tolist()):
        items, _ = log.of(group)
        assert sorted(items) == sorted(item for row in rows for item in world.sequences.of(row)[0])
    assert group_size(groups.signals) == 3
    assert single_world(groups) is world


def test_groups_stay_within_a_part_and_nobody_sits_twice(truth: World) -> None:
    for formation in ("random", "similar", "family"):
        members = form_groups(truth, 4, formation, seed=1)
        assert len(members.unique()) == members.numel()
        parts = truth.users.part[members]
        assert bool((parts == parts[:, :1]).all())
        assert torch.equal(members, form_groups(truth, 4, formation, seed=1))
        assert not torch.equal(members, form_groups(truth, 4, formation, seed=2))


def test_similar_members_are_alike() -> None:
    truth = truth_world("clicks", users=120, items=40)
    tastes = torch.nn.functional.normalize(truth.simulator("truth").preference, dim=1)  # type: ignore[attr-defined]

    def alikeness(formation: str) -> float:
        own = tastes[form_groups(truth, 4, formation, 0)]
        return float((own @ own.transpose(1, 2)).mean())

    assert alikeness("similar") > alikeness("family") > alikeness("random")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": 0}, "size=0; a group has at least 1 member"),
        ({"size": 61}, "groups of 61 do not fit world .* has .* of 60 users .* choose a size from 1 to"),
        ({"size": 2, "formation": "freinds"}, "unknown formation of groups 'freinds'"),
        ({"size": 2, "reward": "least-mysery"}, "did you mean 'least-misery'"),
    ],
)
def test_bad_groups_are_refused_in_a_line(asked: dict[str, int | str], message: str) -> None:
    with pytest.raises(RecloopError, match=message) as told:
        grouped(truth_world("clicks", users=60, items=40), **asked)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_worlds_that_do_not_fit_are_refused(truth: World, world_maker: Callable[..., World]) -> None:
    with pytest.raises(RecloopError, match="is a world of groups already"):
        grouped(grouped(truth, 2), 2)
    with pytest.raises(RecloopError, match="is no world of groups; make one"):
        single_world(truth)
    with pytest.raises(RecloopError, match="no group answers with the signals"):
        group_size(truth.signals)
    with pytest.raises(UserSimulatorError, match="members are"):
        GroupUsers(truth, "truth", torch.zeros(0))


def _outcome(took: Tensor, before: Tensor | None) -> Outcome:
    """One group's answers (K, g), and what members had got before."""
    groups = grouped(truth_world("clicks", users=60, items=40), took.shape[1])
    signals = of_group(torch.zeros(1, len(took)), took.unsqueeze(0).unsqueeze(-1))
    given, left = torch.ones_like(signals, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    slate = torch.arange(len(took)).unsqueeze(0)
    response: Response = Response(signals, given, left)
    if before is not None:
        response = GroupResponse(signals, given, left, before=before)
    return Outcome(slate, response, left.long(), torch.zeros(41, 2), groups.signals)


def test_rewards_differ_where_they_must() -> None:
    took = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])  # members take 3, 2 and 0
    outcome = _outcome(took, torch.zeros(1, 3))
    assert mean(outcome).tolist() == pytest.approx([5 / 3])
    assert least_misery(outcome).tolist() == [0.0]
    assert most_pleasure(outcome).tolist() == [3.0]
    assert fair(outcome).tolist() == pytest.approx([torch.tensor([4.0, 3.0, 1.0]).log().mean().item()])
    assert torch.equal(fair(_outcome(took, None)), fair(outcome))


def test_whoever_lost_before_counts_more() -> None:
    before = torch.tensor([[0.0, 5.0]])
    first, second = (fair(_outcome(torch.tensor([take]), before)).item() for take in ([1.0, 0.0], [0.0, 1.0]))
    assert first == pytest.approx(0.5 * 0.6931, abs=1e-4)
    assert second == pytest.approx(0.5 * 0.1542, abs=1e-4)
    assert mean(_outcome(torch.tensor([[1.0, 0.0]]), before)) == mean(_outcome(torch.tensor([[0.0, 1.0]]), before))


def test_a_world_of_groups_comes_back_from_disk(tmp_path: Path) -> None:
    groups = grouped(truth_world("boredom", users=60, items=40), 3, reward="fair")
    groups.save(tmp_path / "groups")
    back = World.load(tmp_path / "groups")
    assert back.fingerprint == groups.fingerprint
    assert back.reward == group_reward("fair")
    slate = _slates(6, 40, groups.slate_size, 1)[0]
    mine, theirs = (Core(w, batch=6, users="all").step(slate) for w in (groups, back))
    assert torch.equal(mine.response.signals, theirs.response.signals)
    assert torch.equal(mine.reward, theirs.reward)
    make_policy("popularity", back)


def test_the_chance_of_at_least_so_many() -> None:
    chance = torch.tensor([0.2, 0.5, 0.9])
    want = 0.2 * 0.5 * 0.9 + 0.2 * 0.5 * 0.1 + 0.2 * 0.5 * 0.9 + 0.8 * 0.5 * 0.9
    assert float(at_least(chance, 2)) == pytest.approx(want)
