"""The ground-truth users, held against laws worked out by hand."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.storage import write_json, write_tensors
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.truth.boredom import BoredomRules, BoredomState, BoredomUsers
from recloop.envs.users.registry import load_simulator

RULES = BoredomRules(bored_at=2, levels=3, fade=0.5, examine=0.8, leave=0.1, leave_bored=0.4)


@pytest.fixture
def users() -> BoredomUsers:
    """One user who likes topic 0 at 0.8 and topic 1 at 0.4; items 0, 1 of topic 0 and 2, 3 of topic 1."""
    traits = {"quality": torch.tensor([1.0, 0.5, 1.0, 0.25])}
    return BoredomUsers(torch.tensor([[0.8, 0.4]]), torch.tensor([0, 0, 1, 1]), traits, RULES)


def draws(lanes: int, step: int = 0) -> Draw:
    lane = torch.arange(lanes)
    return Draw.at(0, lane, torch.zeros_like(lane), torch.full_like(lane, step))


NOTHING = Past(*[torch.zeros(1)] * 6)


def test_expected_answers(users: BoredomUsers) -> None:
    state = BoredomState(users.preference, torch.tensor([[1, 0]]))
    expected = users.expected(state, NOTHING, torch.tensor([[0, 2, 4]]))  # row 4 is the empty place
    assert expected.mean[0, :, 0].tolist() == pytest.approx([0.8 * 0.5, 0.8 * 0.4, 0.0])
    appeal = (0.8 * 0.5 + 0.4 + 0.0) / 3
    assert expected.leave is not None
    assert expected.leave.item() == pytest.approx(0.1 + 0.4 * (1 - appeal) ** 2)


def test_boredom_rises_by_places_and_falls_when_absent(users: BoredomUsers) -> None:
    state = BoredomState(users.preference, torch.tensor([[0, 2]]))
    after, _ = users.respond(state, NOTHING, torch.tensor([[0, 1, 4]]), draws(1))
    assert after.boredom.tolist() == [[1, 1]]
    after, _ = users.respond(after, NOTHING, torch.tensor([[0, 2, 4]]), draws(1))
    assert after.boredom.tolist() == [[1, 1]]
    assert users.resume(after, torch.tensor([3.0]), draws(1)).boredom.tolist() == [[0, 0]]


def test_draws_follow_expectations(users: BoredomUsers) -> None:
    lanes = 20_000
    state = BoredomState(users.preference.expand(lanes, -1), torch.zeros(lanes, 2, dtype=torch.int64))
    slate = torch.tensor([[2, 0, 3]]).expand(lanes, -1)
    _, response = users.respond(state, NOTHING, slate, draws(lanes))
    expected = users.expected(state, NOTHING, slate)
    clicks = response.signals[..., 0].mean(0)
    assert torch.allclose(clicks, expected.mean[0, :, 0], atol=0.012)
    given = response.given[..., 1]
    ratings = (response.signals[..., 1] * given).sum(0) / given.sum(0)
    assert torch.allclose(ratings, expected.mean[0, :, 1], atol=0.05)
    assert expected.leave is not None
    assert response.left.float().mean().item() == pytest.approx(expected.leave[0].item(), abs=0.012)
    assert bool((response.given[..., 1] == (response.signals[..., 0] == 1)).all())


def test_save_and_load(users: BoredomUsers, tmp_path: Path) -> None:
    users.save(tmp_path)
    again = BoredomUsers.load(tmp_path)
    assert again.rules == users.rules
    assert torch.equal(again.preference, users.preference)
    assert torch.equal(again.traits["quality"], users.traits["quality"])


def test_preferences_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(UserSimulatorError, match="preference"):
        BoredomUsers(torch.tensor([[1.5]]), torch.tensor([0]), {"quality": torch.tensor([1.0])}, RULES)


def test_folders_of_the_kind_topics_still_load(users: BoredomUsers, tmp_path: Path) -> None:
    write_json(tmp_path / "kind.json", {"kind": "topics"})
    write_json(tmp_path / "rules.json", asdict(RULES))
    quality = users.traits["quality"]
    old = {"preference": users.preference, "topic": users.topic, "quality": quality}
    write_tensors(tmp_path / "topics.safetensors", old)
    again = load_simulator(tmp_path)
    assert isinstance(again, BoredomUsers)
    assert again.rules == RULES
    assert torch.equal(again.topic, users.topic)
    assert torch.equal(again.traits["quality"], quality)
