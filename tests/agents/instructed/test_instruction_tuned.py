"""The instruction-tuned policy: what it hears, what it learns, when it asks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recloop.agents.instructed.asker import information_gain
from recloop.agents.instructed.evidence import evidence
from recloop.agents.instructed.head import WishHead
from recloop.agents.instructed.policy import InstructionTuned
from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.build.speaking import speaking_world
from recloop.envs.truth.worlds import truth_world
from recloop.envs.users.speaking.users import Speech
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.instructions.command import Arena, InstructionsConfig


@pytest.fixture(scope="module")
def world() -> World:
    return speaking_world(truth_world("clicks", users=120, items=80, seed=1), Speech(wishes=1.0))


def made(world: World, **settings: object) -> InstructionTuned:
    policy = make_policy("instruction-tuned", world, FitOptions(settings=settings))
    assert isinstance(policy, InstructionTuned)
    return policy


def earned(world: World, policy: InstructionTuned, episodes: int = 120) -> float:
    arena = Evaluator(world, "truth", episodes=episodes, users=range(120))
    return float(arena.run(policy).value.mean())


def test_words_are_worth_something_and_what_came_of_slates_too(world: World) -> None:
    deaf, feeling = earned(world, made(world, listens=False, feels=False)), earned(world, made(world, listens=False))
    hearing = earned(world, made(world, feels=False))
    assert hearing > 1.5 * deaf
    assert feeling > 1.05 * deaf


def test_words_of_another_user_are_worth_nothing(world: World) -> None:
    """A planted fault: every wish said in another's words."""
    count = len(world.simulators["truth"].wishes.names)  # type: ignore[attr-defined]
    silent = truth_world("clicks", users=120, items=80, seed=1)
    wrong = speaking_world(silent, Speech(wishes=1.0), meaning=torch.arange(count).roll(count // 2))
    assert earned(wrong, made(world, feels=False)) < 0.7 * earned(world, made(world, feels=False))


def test_the_head_learns_what_words_came_to_mean_and_keeps_what_nobody_says() -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(6, 64, generator=generator), dim=1).repeat_interleave(4, 0)
    words = torch.nn.functional.normalize(words + 0.05 * torch.randn(24, 64, generator=generator), dim=1)
    head = WishHead.fitted(words, torch.arange(6).repeat_interleave(4), 6)
    assert float(head.log_chances(words).exp()[torch.arange(24), torch.arange(6).repeat_interleave(4)].min()) > 0.9
    lesson = torch.zeros(8, 6)
    lesson[:4, 1], lesson[4:, 0] = 1, 1  # the words of 0 mean 1, and the other way round
    luck = torch.rand(100, generator=generator)
    kept, tied = head, head
    for _ in range(40):
        kept = kept.tuned(words[:8], lesson, 10.0, "nothing", 1.0, luck)
        tied = tied.tuned(words[:8], lesson, 10.0, "ewc", 1e12, luck)
    chances = kept.log_chances(words).exp()
    assert float(chances[:4, 1].min()) > 0.9
    assert float(chances[4:8, 0].min()) > 0.9
    assert float(chances[8:, 2:].max(1).values.min()) > 0.8
    moved = (tied.phi - head.phi).abs() * (head.fisher > 1e-9)
    assert float(moved.max()) < 1e-2
    assert torch.equal(head.tuned(words, torch.zeros(24, 6), 10.0, "replay", 1.0, luck).phi, head.phi)


def test_replay_overwrites_what_words_meant_and_leaves_other_lessons() -> None:
    words = torch.eye(8)
    head = WishHead.fitted(words, torch.arange(8) // 2, 4)
    lesson = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    tuned = head.tuned(words[[0, 2]], lesson, 1.0, "replay", 2.0, torch.rand(10))
    assert tuned.wish.argmax(1).tolist() == [1, 0, 0, 1, 2, 2, 3, 3]


def test_evidence_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    fits, took = torch.rand(3, 4, 5, generator=generator), torch.rand(3, 4, generator=generator) > 0.5
    held = torch.tensor([True, True, True, False]).expand(3, 4)
    rating, usual = torch.tensor([0.0, 2.0, 5.0]), torch.tensor([30.0, 100.0])
    found = evidence(fits, took, held, rating, usual, 2.0)
    rate = 32.0 / 110.0
    for lane in range(3):
        for wish in range(5):
            total = 0.0
            for place in range(3):
                odds = torch.logit(torch.tensor(rate)) + 2.0 * (fits[lane, place, wish] - 0.5)
                chance = torch.sigmoid(odds)
                total += float(torch.log(chance if took[lane, place] else 1 - chance))
            share = float(fits[lane, :3, wish].mean())
            total -= (rating[lane] > 0) * ((float(rating[lane]) - 1) / 4 - share) ** 2 / (2 * 0.2**2)
            assert float(found[lane, wish]) == pytest.approx(float(total), abs=1e-4)


def test_a_question_tells_most_where_least_is_known() -> None:
    flat, sure = torch.full((1, 10), 0.1), torch.tensor([[1.0, *[0.0] * 9]])
    half = torch.tensor([[0.5, 0.5, *[0.0] * 8]])
    gains = [float(information_gain(one)) for one in (flat, half, sure)]
    assert gains[0] > gains[1] > gains[2] >= 0
    assert gains[2] == pytest.approx(0.0, abs=1e-5)
    assert gains[0] < 2.31


def test_it_asks_within_its_limit_and_never_where_told_not_to(world: World) -> None:
    quiet = speaking_world(
        truth_world("clicks", users=120, items=80, seed=1), Speech(wishes=1.0, spoken=0.0, changes=0.0)
    )
    arena = Evaluator(quiet, "truth", episodes=60, users=range(120))
    asked = {n: arena.run(made(quiet, asks="gain", questions=n)).invalid for n in (0, 1, 3)}
    assert not asked[0].any()
    assert asked[1].max() == 5
    assert 5 < asked[3].max() <= 15
    assert not arena.run(made(quiet)).invalid.any()


def test_the_asker_learns_in_the_loop(world: World) -> None:
    free = Speech(
        wishes=1.0, spoken=0.0, changes=0.0, strength=6.0, patience=20, enough=20, tells=1.0, misunderstands=0
    )
    quiet = speaking_world(truth_world("clicks", users=120, items=80, seed=1), free)
    learned = made(quiet, asks="learned", questions=1, trials=15)
    assert earned(quiet, learned) > 1.2 * earned(quiet, made(quiet))


def test_it_learns_on_while_it_acts_and_stays_as_it_was(world: World) -> None:
    arena = Arena("clicks", InstructionsConfig(worlds=("clicks",), episodes=60, progress=False), 0)
    policy = arena.policy(tunes="head")
    before = policy.head.phi.clone()
    later, returns, _ = arena.live(policy, arena.world, 1)
    assert torch.equal(policy.head.phi, before)
    assert not torch.equal(later.head.phi, before)
    assert len(returns) > 20


def test_it_is_kept_and_serves_people(world: World, tmp_path: Path) -> None:
    from recloop.agents.observed import Observed

    policy = made(world, tunes="head")
    save_policy(policy, tmp_path / "p")
    again = load_policy(tmp_path / "p")
    wish = Observed(history=[], instruction="something about jazz")
    ids = again.recommend(wish, k=5)
    assert ids == policy.recommend(wish, k=5)
    assert all(one.startswith("jazz") for one in ids)


def test_bad_settings_are_refused_in_one_line(world: World) -> None:
    with pytest.raises(PolicyError, match=r"rate=-1.* from 0 on"):
        made(world, rate=-1.0)
    with pytest.raises(PolicyError, match="'random' has no scores of all items"):
        made(world, base="random")
    with pytest.raises(PolicyError, match="needs a world whose users speak"):
        make_policy("instruction-tuned", truth_world("clicks", users=20, items=20), FitOptions())
    assert replace(made(world).settings, questions=0).questions == 0
