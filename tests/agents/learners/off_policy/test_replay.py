"""The replay: what is written comes back, windows stop where episodes end, and nothing else is drawn."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.contract import ActionSample, Step, Task
from recloop.agents.learners.off_policy.replay import Replay
from recloop.agents.networks.features import ItemTables
from recloop.agents.serving import Serving
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.response import Response
from recloop.envs.simulation.core import Core
from recloop.envs.world.world import World

KEYS = ("state", "shown", "answers", "context", "profile", "action_mask")


@pytest.fixture(scope="module")
def task(tiny_world: World) -> Task:
    tables = ItemTables.of(tiny_world.state_encoder, tiny_world.catalogue.popularity)
    return Task(Serving.of(tiny_world), tables, tiny_world.spec(), 2, 5, torch.device("cpu"))


def observation(task: Task, mark: float) -> Observation:
    """One whose every entry tells of `mark`, a whole number below 5."""
    spec, lanes = task.spec, task.lanes
    shown = torch.full((lanes, spec.shown_length, spec.slate_size), int(mark))
    answers = torch.zeros(*shown.shape, len(spec.signals))
    answers[..., 0], answers[..., 1] = float(mark % 2), mark
    return {
        "state": torch.full((lanes, spec.state_dim), mark / 10),
        "shown": shown,
        "answers": answers,
        "context": torch.full((lanes, 2), float(mark)),
        "profile": torch.full((lanes, spec.profile_dim), float(mark)),
        "action_mask": torch.arange(spec.catalogue_size).expand(lanes, -1) != mark,
    }


def step(task: Task, mark: int, reward: Sequence[float], ends: str = "..") -> Step:
    """Lane by lane: `t` ends it by leaving, `c` by the time limit."""
    slate = torch.full((2, task.spec.slate_size), mark)
    empty = torch.zeros(2, task.spec.slate_size, 2)
    return Step(
        observation(task, mark),
        ActionSample(slate, {"tag": torch.full((2,), float(mark))}),
        Response(empty, empty.bool(), torch.zeros(2).bool()),
        torch.tensor(reward),
        torch.tensor([end == "t" for end in ends]),
        torch.tensor([end == "c" for end in ends]),
        observation(task, mark + 1),
    )


def replay_of(task: Task, steps: Sequence[Step], capacity: int, n: int, gamma: float = 0.5) -> Replay:
    replay = Replay(task, capacity, KEYS, extra={"tag": ((), torch.float32)}, steps=n, gamma=gamma)
    for one in steps:
        replay.keep(one)
    return replay


def test_what_is_written_comes_back_in_the_dtypes_of_an_observation(task: Task) -> None:
    replay = replay_of(task, [step(task, 2, [1.0, 1.0]), step(task, 3, [1.0, 1.0])], 8, 1)
    drawn = replay.sample(4)
    for key, value in observation(task, 2).items():
        expected = value[:1].expand(4, *value.shape[1:])
        assert drawn.seen[key].dtype == expected.dtype
        assert torch.equal(drawn.seen[key], expected)
    assert torch.equal(drawn.next_observation["state"], observation(task, 3)["state"][:1].expand(4, -1))
    assert drawn.slate.unique().tolist() == [2]
    assert drawn.slate.dtype == torch.int64
    assert drawn.next_slate.unique().tolist() == [3]
    assert drawn.extra["tag"].unique().tolist() == [2.0]
    assert drawn.next_extra["tag"].unique().tolist() == [3.0]


def test_returns_stop_at_the_end_of_an_episode_and_owe_a_value_only_where_the_user_stayed(task: Task) -> None:
    """Lane 0 leaves at step 1, lane 1 runs into the time limit at step 2; windows of three steps from step 0."""
    ends = ["..", "t.", ".c", "..", ".."]
    steps = [step(task, i, [1.0, 10.0], ends[i]) for i in range(4)]
    drawn = replay_of(task, steps, 20, 3).sample(64)
    assert drawn.extra["tag"].unique().tolist() == [0.0], "only one window is whole"
    left = drawn.discount == 0
    assert 0 < int(left.sum()) < 64
    assert drawn.reward[left].unique().tolist() == [1.5]  # 1 + 1/2
    assert drawn.next_observation["context"][left].unique().tolist() == [2.0]
    assert drawn.reward[~left].unique().tolist() == [17.5]  # 10 + 5 + 2.5
    assert drawn.discount[~left].unique().tolist() == [0.125]
    assert drawn.next_observation["context"][~left].unique().tolist() == [3.0]
    assert torch.equal(drawn.last_extra["tag"] + 1, drawn.next_observation["context"][:, 0])
    assert not bool(drawn.follows.any())


def test_every_whole_window_of_the_newest_steps_is_drawn_and_no_other(task: Task) -> None:
    steps = [step(task, i % 5, [float(i), 100.0 + i]) for i in range(7)]
    replay = replay_of(task, steps, 8, 2, gamma=0.0)  # four rows: steps 3 to 6 are held
    assert len(replay) == 8
    drawn = replay.sample(200)
    assert sorted(drawn.reward.unique().tolist()) == [3.0, 4.0, 103.0, 104.0]
    assert bool(drawn.follows.all())
    assert torch.equal(drawn.next_slate[:, 0], ((drawn.reward % 100).long() + 2) % 5)


def test_it_is_ready_when_one_window_and_what_followed_are_there(task: Task) -> None:
    replay = replay_of(task, [step(task, 0, [0.0, 0.0])] * 2, 20, 2)
    assert not replay.ready
    replay.keep(step(task, 0, [0.0, 0.0]))
    assert replay.ready


def test_it_holds_what_is_asked_for_or_all_there_is_room_for(task: Task) -> None:
    replay = replay_of(task, [step(task, 0, [0.0, 0.0])] * 3, 9, 1)  # two lanes: room for eight
    assert replay.holds(6)
    assert not replay.holds(7)
    replay.keep(step(task, 0, [0.0, 0.0]))
    assert replay.holds(9)


def test_a_restored_replay_draws_the_same(task: Task) -> None:
    steps = [step(task, i % 5, [float(i), -float(i)]) for i in range(6)]
    replay = replay_of(task, steps, 8, 1)
    replay.sample(3)
    state = {name: value.clone() for name, value in replay.state().items()}
    wanted = replay.sample(16)
    other = replay_of(task, [], 8, 1)
    other.restore(state)
    again = other.sample(16)
    assert torch.equal(wanted.reward, again.reward)
    assert all(torch.equal(wanted.seen[key], again.seen[key]) for key in KEYS)
    with pytest.raises(PolicyError, match=r"is \(8, 2.*the checkpoint has \(4, 2"):
        replay_of(task, [], 16, 1).restore(state)


def test_it_says_how_large_it_is_and_what_would_fit(task: Task) -> None:
    replay = replay_of(task, [], 8, 1)
    stored = sum(t.numel() * t.element_size() for name, t in replay.state().items() if name.startswith("table."))
    assert replay.bytes == stored
    with pytest.raises(PolicyError, match=r"a replay of 10+ transitions takes [\d.]+ GiB.*lower the capacity to \d+"):
        Replay(task, 10**13, KEYS)
    with pytest.raises(PolicyError, match=r"holds 1 steps of 2 lanes; 3-step returns need 5.*capacity to 10"):
        Replay(task, 2, KEYS, steps=3)


def test_large_catalogues_take_wider_item_rows(task: Task) -> None:
    large = replace(task, spec=replace(task.spec, catalogue_size=40_000))
    assert Replay(large, 8, ("shown",)).state()["table.seen.shown"].dtype == torch.int32
    assert Replay(task, 8, ("shown",)).state()["table.seen.shown"].dtype == torch.int16


def test_steps_of_a_core_chain_up(tiny_world: World, task: Task) -> None:
    """Where an episode goes on, what was seen after a step is what the next one was chosen on."""
    core = Core(tiny_world, batch=2, keys=KEYS)
    replay = Replay(task, 60, KEYS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        seen: dict[str, Tensor] = core.observe()
        slate = torch.stack([torch.randperm(10, generator=generator)[:3] for _ in range(2)])
        moved = core.step(slate)
        acted = ActionSample(moved.slate)
        replay.keep(
            Step(seen, acted, moved.response, moved.reward, moved.terminated, moved.truncated, moved.next_observation)
        )
    drawn = replay.sample(200)
    newest = drawn.next_observation["shown"][:, -1]
    assert torch.equal(newest, drawn.slate)
    assert 0 < int(drawn.follows.sum()) < 200
