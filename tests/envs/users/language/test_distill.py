"""From a language model's answers to fast users: learnable, faithful, resumable, within the budget."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import BudgetError, LanguageModelError
from recloop.envs.users.fitted import FitConfig
from recloop.envs.users.language import AnswerStore, LanguageModelUsers, Prompt
from recloop.envs.users.language.asking import SHOWN_BY, ask_users
from recloop.envs.world.world import World
from recloop.experiments.commands.user_commands.distill import DistillConfig, distill, main, planned

QUICK = FitConfig(epochs=12, hidden=16, rank=8, residual=4, lr=2e-2)
Tiny = Callable[[str], Path]


class Partisan:
    """Takes nine in ten of the first half of the catalogue, one in ten of the rest; rates 5 or 1."""

    name = "partisan"

    def __init__(self, world: World, answers: int = 10**9) -> None:
        self.loved = [f", {title}: " for title in world.catalogue.titles[: len(world.catalogue) // 2]]
        self.left = answers

    def probabilities(self, prompts: Sequence[Prompt], options: Sequence[str]) -> Tensor:
        self.left -= len(prompts)
        if self.left < 0:
            raise BudgetError("10 of 10 calls are spent")
        loved = torch.tensor([any(title in prompt.own for title in self.loved) for prompt in prompts])
        low = torch.tensor([0.9, *[0.0] * (len(options) - 2), 0.1])
        return torch.where(loved.unsqueeze(1), low.flip(0), low)


def settings(out: Path, **changes: Any) -> DistillConfig:
    quick = DistillConfig(
        world=Path("w"), model="m", out=out, budget=2500, slates=6, fit=QUICK, progress=False, batch=64
    )
    return replace(quick, **changes)


def test_answers_become_a_log_behind_the_users_history(world: World) -> None:
    users = world.users.rows("train").numpy()[5:17]
    asked = ask_users(world, LanguageModelUsers(world.signals, Partisan(world)), users, slates=4)
    slates = asked.sequences.slates
    assert slates is not None
    assert np.diff(slates.offsets)[users].tolist() == [4] * 12
    assert asked.slates == 48
    assert set(asked.sequences.policies) <= set(SHOWN_BY)
    assert bool((slates.propensity[slates.items < 24] > 0).all())
    assert (slates.left == -1).all(), "nobody's leaving was asked about"
    for user in users:
        before, _ = world.sequences.of(int(user))
        after, _ = asked.sequences.of(int(user))
        assert after[: len(before)].tolist() == before.tolist()
        shown = slice(slates.offsets[user], slates.offsets[user + 1])
        taken = slates.items[shown][slates.answers[shown][..., 0] == 1]
        assert sorted(after[len(before) :].tolist()) == sorted(taken.tolist())
        assert slates.consumed_before[shown][0] == len(before)
    untouched = np.setdiff1d(np.arange(60), users)
    assert np.diff(slates.offsets)[untouched].sum() == 0


def test_a_spent_budget_keeps_the_users_who_are_done(world: World) -> None:
    users = world.users.rows("all").numpy()[:50]
    asked = ask_users(world, LanguageModelUsers(world.signals, Partisan(world, answers=700)), users, slates=4)
    assert asked.stopped == "10 of 10 calls are spent"
    assert len(asked.users) == 32
    with pytest.raises(BudgetError):
        ask_users(world, LanguageModelUsers(world.signals, Partisan(world, answers=100)), users, slates=4)
    with pytest.raises(LanguageModelError, match="3 users to ask, at least 10 are needed"):
        ask_users(world, LanguageModelUsers(world.signals, Partisan(world)), users[:3], slates=4)


def test_the_plan_stays_within_the_budget(world: World, tmp_path: Path) -> None:
    language = LanguageModelUsers(world.signals, Partisan(world))
    users, lanes = planned(world, language, settings(tmp_path, budget=1000))
    assert len(users) == 700 // 36
    assert lanes == 300 // (36 * 5)
    assert set(users) <= set(world.users.rows("train").tolist())
    with pytest.raises(BudgetError, match=r"--budget 300 asks 5 users about 6 slates; .* give 515 or fewer --slates"):
        planned(world, language, settings(tmp_path, budget=300))


@pytest.mark.slow
def test_what_a_model_likes_is_learned(world: World, tmp_path: Path) -> None:
    store = AnswerStore()
    made = distill(world, Partisan(world), store, settings(tmp_path, budget=4000))
    assert made.fidelity.correlation > 0.85
    assert made.fidelity.auc > 0.75
    assert made.fidelity.gain > 0.5
    assert made.tau is not None
    assert made.tau.mean > 0.2
    assert "distilled" in made.world.simulators


@pytest.mark.slow
def test_a_tiny_model_is_distilled_killed_and_resumed(
    world: World, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.save(tmp_path / "world")
    config = settings(
        tmp_path / "fast",
        world=tmp_path / "world",
        model=str(tiny("gpt2")),
        budget=1500,
        policies=("random", "content"),
    )
    with pytest.raises(BudgetError, match="the answers are kept"):
        distill(world, _limited(config, AnswerStore(tmp_path / "fast.answers.sqlite"), 200), AnswerStore(), config)
    made = main(config)
    said = capsys.readouterr().out
    assert "user-steps a second" in said
    assert made.after > made.before > 0
    again = World.load(tmp_path / "fast")
    assert set(again.simulators) == {*world.simulators, "distilled"}
    assert again.observation_fingerprint == world.observation_fingerprint
    assert any("distilled: probabilities correlate" in line for line in again.card.learned)
    calls = again.card.figures["distillation"]["calls"]
    assert 200 < calls <= 1500
    main(config)
    repeated = World.load(tmp_path / "fast").card.figures["distillation"]
    assert repeated["calls"] == calls, "a second run asks nothing"
    assert repeated["correlation"] == again.card.figures["distillation"]["correlation"]


def _limited(config: DistillConfig, store: AnswerStore, calls: int) -> Any:
    from recloop.experiments.commands.user_commands.distill import answer_model

    return answer_model(replace(config, budget=calls), store)


@pytest.mark.slow
def test_an_endpoint_is_distilled(world: World, server: Any, tmp_path: Path) -> None:
    config = settings(
        tmp_path / "fast", model="tiny-chat", endpoint=server.url, budget=600, slates=3, policies=(), money=1.0,
        price_in=1.0, key_variable="NO_KEY",
    )  # fmt: skip
    world.save(tmp_path / "world")
    server.fail = lambda number: 429 if number % 50 == 3 else None
    server.retry_after = "0"
    made = main(replace(config, world=tmp_path / "world"))
    figures = made.world.card.figures["distillation"]
    assert 0 < figures["calls"] <= 600
    assert figures["money"] == pytest.approx(figures["calls"] * 100e-6)
    assert made.tau is None
