"""`recloop groups`: figures by hand, and the command from end to end."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.together.forming import grouped, members_of
from recloop.experiments.comparison.evaluate import evaluate
from recloop.experiments.policy_table import COLUMNS
from recloop.experiments.together.command import GroupsConfig, main
from recloop.experiments.together.measures import by_group, items_taken, segment_figures, segments_of


def test_the_command_tells_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "groups.csv"
    config = GroupsConfig(
        "clicks", sizes=(2,), aggregators=("average", "fair"), learners=("a2c",), rewards=("fair",),
        steps=64, seeds=2, users=100, episodes=10, out=out, progress=False,
    )  # fmt: skip
    main(config)
    frame = pd.read_csv(out)
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame.policy) == {
        *("random", "popularity", "content/average", "content/fair"),
        *("true-tastes/average", "true-tastes/fair", "a2c for fair"),
    }
    assert set(frame.world) == {"clicks"}
    assert frame[frame.policy == "a2c for fair"].seeds.eq(2).all()
    known = frame.dropna(subset=["low"])
    assert ((known.low <= known["mean"]) & (known["mean"] <= known.high)).all()
    assert frame.what.str.contains("likes topic").any()
    told = capsys.readouterr().out
    assert "random groups of 2" in told
    assert "by segment" in told


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sizes": (0,)}, "--sizes 0 is too few"),
        ({"sizes": ()}, "name something after --sizes"),
        ({"aggregators": ("bordaa",)}, "unknown aggregator 'bordaa'"),
        ({"rewards": ("meen",)}, "unknown reward of a group 'meen'"),
        ({"seeds": 0}, "--seeds 0 is too few"),
    ],
)
def test_bad_settings_are_refused_in_a_line(asked: dict[str, object], message: str) -> None:
    with pytest.raises(RecloopError, match=message):
        GroupsConfig("clicks", **asked)  # type: ignore[arg-type]


def test_an_unknown_reference_is_refused_before_anything_is_made() -> None:
    with pytest.raises(RecloopError, match="did you mean 'content/average'"):
        main(GroupsConfig("clicks", users=100, reference="content/averge"))


def test_measures_are_the_returns_of_the_rewards() -> None:
    from recloop.agents.registry import make_policy

    single = truth_world("clicks", users=100, items=40)
    found = {}
    for reward in ("mean", "least-misery", "fair"):
        world = grouped(single, 4, reward=reward)
        found[reward] = evaluate(make_policy("popularity", world), world, "truth", episodes=5)
    told = by_group([found["least-misery"]], 4)
    order = np.argsort(found["mean"].users)
    for reward, rollout in found.items():
        assert told[reward] == pytest.approx(rollout.value[order], abs=1e-4)


def test_segments_count_groups_by_their_members_inside() -> None:
    single = truth_world("clicks", users=100, items=40)
    from recloop.agents.registry import make_policy

    world = grouped(single, 4)
    rollout = evaluate(make_policy("popularity", world), world, "truth", episodes=5)
    members = members_of(world)
    took = items_taken(rollout, 4)
    first = np.zeros(100, dtype=bool)
    first[members[torch.from_numpy(rollout.users), 0].numpy()] = True
    (figure,) = segment_figures([rollout], members, {"first members": first})
    assert figure.users == 5
    assert figure.value is None  # too few users for an interval
    assert figure.mean == pytest.approx(took[:, 0].mean())
    segments = segments_of(single)
    assert np.sum(list(segments.values()), axis=0).tolist() == [1] * 100


def test_groups_larger_than_the_users_there_are() -> None:
    with pytest.raises(RecloopError, match=r"--sizes 60: groups are formed of the \d+ evaluate users .* sizes up to"):
        main(GroupsConfig("clicks", sizes=(60,), users=100, progress=False))
