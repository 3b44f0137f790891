"""Rewards as people write them: terms, item columns, dotted paths; refused in one line where the world lacks them."""

import sys
from types import ModuleType

import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.interaction.item_columns import ItemColumns, Labels, ShownItems
from recloop.envs.interaction.response import Response
from recloop.envs.interaction.reward import Outcome, WeightedReward
from recloop.envs.interaction.reward_terms import (
    CodedReward,
    expected_by_place,
    kept_reward,
    parsed_reward,
    reward_of,
)
from recloop.envs.logs.schema import Signal

SIGNALS = (Signal("click"), Signal("purchase", given_on="click"))
COLUMNS = ItemColumns(
    {"margin": torch.tensor([2.0, 0.5, 3.0, 0.0]), "gap": torch.tensor([1.0, torch.nan, 1.0, 0.0])},
    {"brand": Labels(torch.tensor([1, 0, 1, 2]), ("Acme", "Bolt"))},
)


@pytest.fixture
def case() -> Outcome:
    """Three items and an empty place: the first two clicked, the second bought."""
    response = Response(
        signals=torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]),
        given=torch.tensor([[[True, True], [True, True], [True, False], [False, False]]]),
        left=torch.tensor([True]),
    )
    return Outcome(
        torch.tensor([[2, 0, 1, 3]]), response, torch.tensor([1]), torch.zeros(4, 2), SIGNALS, columns=COLUMNS
    )


@pytest.mark.parametrize(
    ("terms", "earned"),
    [
        ("purchase=1 click=0.1 leaving=-0.5", 1 + 0.2 - 0.5),
        ("purchase*margin=1", 2.0),  # item 0 was bought
        ("margin*click=1", 3.0 + 2.0),
        ("margin=-0.1 click=1", 2 - 0.1 * (3 + 2 + 0.5)),  # everything shown
        ("repeats=-1", -1.0),
    ],
)
def test_terms_by_hand(case: Outcome, terms: str, earned: float) -> None:
    reward = parsed_reward(terms, SIGNALS, COLUMNS)
    assert isinstance(reward, WeightedReward)
    assert reward(case).tolist() == pytest.approx([earned])
    assert parsed_reward(reward.in_words(), SIGNALS, COLUMNS) == reward
    assert reward_of(reward.as_dict()) == reward


def test_a_mapping_says_the_same() -> None:
    assert parsed_reward({"click": 0.5}, SIGNALS, COLUMNS) == WeightedReward({"click": 0.5})


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("purchse=1", "unknown reward term 'purchse'; did you mean 'purchase'?"),
        ("leavin=1", "did you mean 'leaving'?"),
        ("click*marign=1", r"did you mean 'click\*margin'?"),
        ("click", "'click' is not understood; write NAME=WEIGHT"),
        ("click=nan", "not understood"),
        ("click=1 click=2", "stands twice, 1 and 2"),
        ("click=0", "is 0 whatever happens"),
        ("gap=1", "'gap' is missing for 1 of 3 items"),
        ("brand=1", "unknown reward term 'brand'"),
        ("no_such_module:reward", "cannot import the reward no_such_module:reward"),
    ],
)
def test_what_the_world_lacks_is_named(terms: str, said: str) -> None:
    with pytest.raises(RecloopError, match=said) as error:
        parsed_reward(terms, SIGNALS, COLUMNS)
    assert len(str(error.value).splitlines()) == 1


def test_outcomes_tell_the_columns_of_what_is_shown(case: Outcome) -> None:
    assert case.items["margin"].tolist() == [[3.0, 2.0, 0.5, 0.0]]
    assert case.items["brand"].tolist() == [[1, 1, 0, 2]]
    with pytest.raises(RecloopError, match="unknown item column 'marg'; did you mean 'margin'"):
        _ = case.items["marg"]


def _module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_rewards")
    module.margin = lambda outcome: (outcome.response.signals[..., 1] * outcome.items["margin"]).sum(1)  # type: ignore[attr-defined]
    module.by_item = lambda outcome: outcome.items["margin"]  # type: ignore[attr-defined]
    module.of_past = lambda outcome: outcome.past.step  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_rewards", module)


def test_a_dotted_path_is_kept_by_name_and_not_imported_by_a_folder(
    case: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    _module(monkeypatch)
    reward = kept_reward("my_rewards:margin", SIGNALS, COLUMNS, items=3)
    assert reward(case).tolist() == [2.0]
    stored = reward_of(reward.as_dict())
    assert stored == reward
    with pytest.raises(RecloopError, match="say so yourself with --reward my_rewards:margin"):
        stored(case)
    assert stored.imported()(case).tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("by_item", r"the reward my_rewards:by_item\(outcome\) returned float32 \(2, 2\)"),
        ("of_past", "fails on a slate of two items .*`past` may be None"),
    ],
)
def test_a_callable_is_tried_first(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _module(monkeypatch)
    with pytest.raises(RecloopError, match=said):
        kept_reward(f"my_rewards:{name}", SIGNALS, COLUMNS, items=3)


def test_a_callable_without_a_path_cannot_be_kept() -> None:
    with pytest.raises(RecloopError, match="cannot be kept; name the reward by a dotted path"):
        kept_reward(lambda outcome: outcome.invalid, SIGNALS, COLUMNS, items=3)


def test_expected_answers_earn_what_the_reward_says() -> None:
    """Two places that earn 0.5 and 0.2 clicks; purchases count on clicks, double, or by margin."""
    slate, mean = torch.tensor([[0, 1]]), torch.tensor([[[0.5, 0.1], [0.2, 0.5]]])
    world = (SIGNALS, COLUMNS, torch.zeros(4, 2))
    doubled = expected_by_place(WeightedReward({"click": 1.0, "purchase": 2.0}), slate, mean, *world)
    assert doubled.tolist() == [pytest.approx([0.5 + 2 * 0.05, 0.2 + 2 * 0.1])]
    priced = WeightedReward(columns={"purchase*margin": 1.0})
    assert expected_by_place(priced, slate, mean, *world).tolist() == [pytest.approx([0.05 * 2, 0.1 * 0.5])]
    coded = CodedReward("x:y", lambda o: (o.response.signals[..., 1] * o.items["margin"]).sum(1))
    assert expected_by_place(coded, slate, mean, *world).tolist() == [pytest.approx([0.05 * 2, 0.1 * 0.5])]


def test_numbers_are_labels_by_value() -> None:
    found = ItemColumns({"year": torch.tensor([1995.0, torch.nan, 1990.0, 1995.0, 0.0])}).labelled("year")
    assert found.names == ("1990", "1995")
    assert found.codes.tolist() == [1, 2, 0, 1, 2]


def test_shown_items_are_a_mapping() -> None:
    assert sorted(ShownItems(torch.tensor([[0]]), COLUMNS)) == ["brand", "gap", "margin"]
    assert ItemColumns.of(COLUMNS.tensors(), COLUMNS.names()).labels["brand"].names == ("Acme", "Bolt")
