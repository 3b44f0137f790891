"""Users played by a language model: the words of a question, draws from answers, the contract, leaving, nonsense."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import LanguageModelError
from recloop.envs.interaction.response import Past
from recloop.envs.logs.schema import Signal
from recloop.envs.simulation.core import Core
from recloop.envs.users.checks import check_users
from recloop.envs.users.language import LanguageModelUsers, LocalConfig, LocalModel, Prompt
from recloop.envs.users.language.prompts import PromptWords, PromptWriter, question
from recloop.envs.world.world import World

CLICK = Signal("click")
RATING = Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0), given_on="click")
WATCHED = Signal("watched", "continuous", range=(0.0, 10.0), given_on="click")


class Scripted:
    """Answers by a rule and remembers the questions."""

    name = "scripted"

    def __init__(self, rule: Callable[[str, Sequence[str]], list[float]]) -> None:
        self.rule = rule
        self.questions: list[str] = []

    def probabilities(self, prompts: Sequence[Prompt], options: Sequence[str]) -> Tensor:
        self.questions += [prompt.text for prompt in prompts]
        return torch.tensor([self.rule(prompt.text, options) for prompt in prompts])


def past(step: int) -> Past:
    """Two items consumed, one rated 3; a slate remembered, in which item 1 was taken; item 4 is the empty place."""
    return Past(
        history=torch.tensor([[4, 0, 1]]),
        feedback=torch.tensor([[[0.0, 0], [1, 3], [1, 0]]]),
        shown=torch.tensor([[[4, 4], [1, 2]]]),
        answers=torch.tensor([[[[0.0, 0], [0, 0]], [[1, 0], [0, 0]]]]),
        step=torch.tensor([step]),
        days_away=torch.tensor([0.0 if step else 2.0]),
    )


def test_a_question_tells_persona_history_session_and_slate() -> None:
    writer = PromptWriter((CLICK, RATING), ["Heat", "Toy\nStory", "Alien", "Big"], ["age", "plan=paid"], PromptWords())
    opening = writer.openings(torch.tensor([[1.0, 1.0]]), past(1), torch.tensor([[3, 4]]))[0]
    asked = writer.about_item(opening, 0, 3, question(CLICK))
    assert asked.text == (
        "Answer as this person would, who uses an app that recommends things.\n"
        "About the person: age above average, plan paid.\n"
        "Chosen before, oldest first: rated 3: Heat; Toy Story.\n"
        "Shown a moment ago: Toy Story (taken), Alien (not taken).\n"
        "Shown now, from the top: 1. Big.\n"
        "About number 1, Big: Would you click on it? Answer yes or no.\nAnswer:"
    )
    fresh = writer.openings(torch.tensor([[1.0, 1.0]]), past(0), torch.tensor([[3, 4]]))[0]
    assert "a moment ago" not in fresh
    assert "The person is back after 2 day(s)." in fresh


def test_what_each_kind_of_signal_is_asked_in() -> None:
    assert question(RATING).options == ("1", "2", "3")
    halves = Signal("stars", "ordinal", levels=(0.5, 1.0, 1.5))
    assert "A = 0.5, B = 1, C = 1.5" in question(halves).text
    assert "A = 0 to 2, B = 2 to 4" in question(WATCHED).text
    with pytest.raises(LanguageModelError, match="'score' has 21 levels; a language model is asked for 20 at most"):
        question(Signal("score", "ordinal", levels=tuple(range(0, 210, 10))))


def test_answers_are_drawn_by_luck_alone() -> None:
    chances = torch.tensor([[0.2, 0.5, 0.3]]).expand(5, -1)
    luck = torch.tensor([0.1, 0.19, 0.21, 0.69, 0.95])
    assert question(RATING).draw(chances, luck).tolist() == [1, 1, 2, 2, 3]
    bands = torch.tensor([[0.5, 0.0, 0.5, 0.0, 0.0]]).expand(2, -1)
    assert question(WATCHED).draw(bands, torch.tensor([0.25, 0.75])).tolist() == pytest.approx([1.0, 5.0])
    assert float(question(WATCHED).mean(bands[0])) == pytest.approx(3.0)


def test_conditional_signals_are_asked_only_where_they_exist(world: World) -> None:
    title = world.catalogue.titles[3]

    def rule(text: str, options: Sequence[str]) -> list[float]:
        if len(options) == 5:
            return [0, 0, 0, 0, 1.0]
        return [0.0, 1.0] if f", {title}: Would" in text else [1.0, 0.0]

    model = Scripted(rule)
    users = LanguageModelUsers(world.signals, model)
    core = Core(world, users, batch=2)
    found = core.step(torch.tensor([[3, 0, 1], [0, 1, 24]])).response
    assert found.signals.tolist() == [[[1, 5], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]]
    assert found.given.tolist() == [[[True, True], [True, False], [True, False]], [[True, False]] * 2 + [[False] * 2]]
    assert len(model.questions) == 5 + 1
    assert users.most_questions(3) == 6


def test_the_model_can_be_asked_whether_to_leave(world: World) -> None:
    model = Scripted(lambda text, options: [0.0, 1.0] if "stop using" in text else [1 / len(options)] * len(options))
    core = Core(world, LanguageModelUsers(world.signals, model, leaving=None), batch=3)
    assert core.step(torch.tensor([[0, 1, 2]] * 3)).response.left.tolist() == [True] * 3
    assert sum("stop using" in question for question in model.questions) == 3


def test_nonsense_is_undecided_until_there_is_too_much_of_it(world: World) -> None:
    def some(text: str, options: Sequence[str]) -> list[float]:
        rest = [1.0] + [0.0] * (len(options) - 1)
        return [float("nan")] * len(options) if "number 1" in text else rest

    users = LanguageModelUsers(world.signals, Scripted(some), nonsense=0.4)
    state = Core(world, users, batch=8)
    chances = users.consumption(state.state, state.past, torch.tensor([[0, 1, 2]] * 8))
    assert chances[0].tolist() == [0.5, 0.0, 0.0]
    assert (users.asked, users.unanswered) == (24, 8)
    strict = LanguageModelUsers(world.signals, Scripted(some), nonsense=0.2)
    with pytest.raises(LanguageModelError, match=r"answers 8 of 24 questions with none of no, yes \(limit 20%\)"):
        Core(world, strict, batch=8).step(torch.tensor([[0, 1, 2]] * 8))


def test_they_keep_the_contract_and_answer_by_persona(world: World, tiny: Callable[[str], Path]) -> None:
    users = LanguageModelUsers(world.signals, LocalModel(str(tiny("gpt2")), LocalConfig(dtype="float32")))
    check_users(users, world, lanes=6, steps=2)
    core = Core(world, users, batch=20, users="all")
    chances = users.consumption(core.state, core.past, torch.tensor([[0, 5, 9]] * 20))
    assert float(chances.std(0).min()) > 0.01, "people differ"
    assert float(chances.std(1).max()) > 0.001, "items differ, if little: the weights are random"
