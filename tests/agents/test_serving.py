"""Serving outside any simulator: external ids in and out, and one-line errors for what cannot be served."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recloop.agents import Observed, Policy, Serving, load_policy, make_policy, save_policy
from recloop.agents.observed import past_of_people
from recloop.encoders.base.errors import PolicyError
from recloop.envs.build.examination import with_patterns
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.simulation.core import Core
from recloop.envs.world.patterns import PatternConfig
from recloop.envs.world.world import World


@pytest.fixture(scope="module")
def popularity(tiny_world: World) -> Policy:
    """The train users' counts: items 0 to 2 by four, 5 by four, 6 by three, 7 by two, the others by nobody."""
    return make_policy("popularity", tiny_world)


def test_the_worked_out_order_comes_back_by_external_id(popularity: Policy) -> None:
    assert popularity.recommend(Observed(), 3) == ["item-100", "item-101", "item-102"]
    assert popularity.recommend(Observed(history=["item-100", "item-102"]), 2) == ["item-101", "item-105"]


def test_candidates_and_exclude(popularity: Policy) -> None:
    person = Observed(history=["item-100"])
    assert popularity.recommend(person, 2, candidates=["item-109", "item-100", "item-107"]) == ["item-107", "item-109"]
    assert popularity.recommend(person, 1, exclude="nothing") == ["item-100"]
    assert popularity.recommend(person, 1, exclude=["item-100", "item-101"]) == ["item-102"]


def test_seen_is_all_of_a_history_and_not_only_its_newest_items(popularity: Policy) -> None:
    history = [f"item-10{i}" for i in range(9)]
    assert popularity.recommend(Observed(history=history), 1) == ["item-109"]


def test_a_random_policy_answers_by_seed(tiny_world: World) -> None:
    policy = make_policy("random", tiny_world)
    answers = {tuple(policy.recommend(Observed(), 3, seed=seed)) for seed in range(10)}
    assert len(answers) > 5
    assert policy.recommend(Observed(), 3, seed=4) == policy.recommend(Observed(), 3, seed=4)


def test_a_policy_takes_no_users_segment_along(tiny_world: World) -> None:
    world = with_patterns(tiny_world, PatternConfig(segments=2, topics=0))
    assert world.patterns is not None
    assert Serving.of(world).world.patterns is None


def test_the_state_knows_more_of_a_history_than_is_shown(tiny_world: World) -> None:
    """An observation holds the newest H items, the state is that of all."""
    world, longest = tiny_world, tiny_world.users.history.shape[1]
    names = [world.catalogue.ids[place % len(world.catalogue)] for place in range(longest + 3)]
    short, long = (Serving.of(world).observe([Observed(history=h)]) for h in (names[3:], names))
    assert torch.equal(short["history"], long["history"])
    encoder = world.state_encoder
    rows = torch.tensor([[world.catalogue.rows[name] for name in names]])
    feedback = torch.zeros(*rows.shape, len(world.signals))
    feedback[..., 0] = 1.0
    state = encoder.start(torch.zeros(1, world.users.profile.shape[1]), rows, feedback)
    torch.testing.assert_close(long["state"], encoder.vector(state))
    assert not torch.allclose(long["state"], short["state"])


def test_an_observation_outside_is_the_one_of_the_loop(tiny_world: World) -> None:
    core = Core(tiny_world, batch=1, users="all", keys=(*DEFAULT_KEYS, "action_mask"))
    core.reset(users=torch.tensor([3]))  # consumed items 0 and 5, each rated 4
    first = core.observe()
    person = Observed(history=["item-100", "item-105"], feedback={"rating": [4, 4]}, profile={"taste": 1.0})
    served = Serving.of(tiny_world).observe([person])
    assert served.keys() == first.keys()
    for key in first:
        torch.testing.assert_close(served[key], first[key])
    core.step(torch.tensor([[5 + 1, 1, 8]]))  # likes 6 and 8, both consumed
    later = Observed(
        history=["item-100", "item-105", "item-106", "item-108"],
        feedback={"rating": [4, 4, 5, 5]},
        shown=[["item-106", "item-101", "item-108"]],
        answers=[{"click": [1, 0, 1], "rating": [5, None, 5]}],
        profile=[1.0],
        step=1,
    )
    served, second = Serving.of(tiny_world).observe([later]), core.observe()
    for key in set(second) - {"state"}:  # the loop reads both items in one step, serving one after the other
        torch.testing.assert_close(served[key], second[key])


def test_a_new_process_gives_the_same_slate(tiny_world: World, tmp_path: Path) -> None:
    policy = make_policy("random", tiny_world)
    save_policy(policy, tmp_path / "policy")
    code = (
        "import sys, json\n"
        "from recloop.agents import Observed, load_policy\n"
        "print(json.dumps(load_policy(sys.argv[1]).recommend(Observed(['item-105']), 5, seed=9)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "policy")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == policy.recommend(Observed(["item-105"]), 5, seed=9)


def test_the_folder_holds_no_user_and_no_behaviour(tiny_world: World, popularity: Policy, tmp_path: Path) -> None:
    save_policy(popularity, tmp_path / "policy")
    world = load_policy(tmp_path / "policy").serving.world  # type: ignore[union-attr]
    assert len(world.users) == 0
    assert len(world.sequences.items) == 0
    assert not world.simulators
    assert world.catalogue.ids == tiny_world.catalogue.ids


def test_slates_longer_than_the_worlds_lose_their_lower_places(tiny_world: World) -> None:
    person = Observed(shown=[["item-101", "item-102", "item-103", "item-104"]])
    past, _ = past_of_people([person], tiny_world)
    assert past.shown.tolist() == [[[10, 10, 10], [1, 2, 3]]]


WRONG: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("unknown id", lambda: {"observed": Observed(["item-105", "item-1055"])}, "item-1055.*near it: item-105.*1 of 2"),
    ("ids as one text", lambda: {"observed": Observed("item-105")}, "give a list"),
    ("too many", lambda: {"observed": Observed(["item-105"]), "k": 10}, "k=10 items asked for, 9 of 10"),
    ("none", lambda: {"observed": Observed(), "k": 0}, "k=0"),
    ("unknown candidate", lambda: {"observed": Observed(), "candidates": ["x"]}, "candidates holds item 'x'"),
    ("unknown exclude", lambda: {"observed": Observed(), "exclude": "sean"}, "did you mean 'seen'"),
    ("unknown signal", lambda: {"observed": Observed(["item-105"], {"ratin": [1]})}, "did you mean 'rating'"),
    ("wrong length", lambda: {"observed": Observed(["item-105"], {"rating": [1, 2]})}, "2 values for 1 items"),
    ("out of range", lambda: {"observed": Observed(["item-105"], {"rating": [6]})}, "rating' is 6.*1.0 to 5.0"),
    ("not a number", lambda: {"observed": Observed(["item-105"], {"rating": [float("nan")]})}, "is nan"),
    ("lost answers", lambda: {"observed": Observed(shown=[["item-105"]], answers=[])}, "0 answers to 1 shown"),
    ("unknown feature", lambda: {"observed": Observed(profile={"tast": 1})}, "did you mean 'taste'"),
    ("short profile", lambda: {"observed": Observed(profile=[1.0, 2.0])}, "2 values.*1 features"),
    ("a step that is none", lambda: {"observed": Observed(step=float("nan"))}, "step is nan"),  # type: ignore[arg-type]
    ("before now", lambda: {"observed": Observed(days_away=-1)}, "days_away is -1"),
]


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_cannot_be_served_is_named_in_one_line(
    popularity: Policy, make: Callable[[], dict[str, Any]], words: str
) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        popularity.recommend(**{"k": 2, **make()})
    assert "\n" not in str(caught.value)
