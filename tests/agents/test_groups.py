"""A group's name stands for its policies, and what cannot act is left out or named."""

from dataclasses import replace
from typing import ClassVar

import pytest

from recloop.agents import groups
from recloop.agents.baselines.popularity import PopularityPolicy
from recloop.agents.groups import GROUPS, expanded, grouped, missing_extras
from recloop.agents.registry import facts_of, known_policies
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World


class NeedyPolicy(PopularityPolicy):
    """Needs what nobody has."""

    extras: ClassVar[tuple[str, ...]] = ("unheard-of",)


@pytest.fixture
def needy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A registered policy whose extra is not installed."""
    path = f"{__name__}:NeedyPolicy"
    monkeypatch.setattr(groups, "known_policies", lambda: {**known_policies(), "needy": path})
    monkeypatch.setattr(groups, "facts_of", lambda name: NeedyPolicy if name == "needy" else facts_of(name))
    monkeypatch.setattr(groups, "requires", lambda _: ["not-there>=1; extra == 'unheard-of'", "torch>=2"])
    return "needy"


def test_every_known_policy_is_in_one_group() -> None:
    members = grouped()
    assert list(members) == list(GROUPS)
    assert sorted(name for names in members.values() for name in names) == sorted(known_policies())
    assert set(members["bandit"]) == {"epsilon-greedy", "linucb", "linear-thompson", "neural-thompson"}
    assert {"bc", "cql", "iql", "decision-transformer", "reinforce-logged"} == set(members["logged"])
    assert {"dnn", "sasrec"} <= set(members["supervised"])
    assert {"ppo", "recloop-ppo", "hac"} <= set(members["rl"])


def test_what_trains_in_the_loop_is_no_baseline() -> None:
    assert "baseline" not in {facts_of(name).group for name in known_policies() if facts_of(name).trains == "loop"}


def test_a_group_becomes_its_policies_each_once(tiny_world: World) -> None:
    asked = expanded(["popularity", "baseline", "my_module:Mine", "baseline"], tiny_world)
    assert asked.count("popularity") == 1
    assert asked[0] == "popularity"
    assert asked[-1] == "my_module:Mine"
    assert {"random", "content", "encoder"} < set(asked)
    assert "planner" not in asked, "it is privileged"


def test_a_group_leaves_out_what_the_world_cannot_serve(tiny_world: World) -> None:
    blind = replace(tiny_world, user_model=None, instruction=None)
    assert not {"greedy", "instructed"} & set(expanded(["baseline"], blind))
    assert expanded(["greedy"], blind) == ["greedy"], "making it says what is missing"


def test_a_missing_extra_is_named(needy: str, tiny_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert missing_extras(NeedyPolicy) == ["unheard-of"]
    assert needy not in expanded(["baseline"], tiny_world)
    assert "needy is left out of 'baseline'; pip install 'recloop[unheard-of]'" in capsys.readouterr().err
    with pytest.raises(PolicyError, match=r"policy 'needy' needs an extra .* pip install 'recloop\[unheard-of\]'"):
        expanded([needy], tiny_world)


def test_a_group_without_policies_is_refused(tiny_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "known_policies", dict)
    with pytest.raises(PolicyError, match="no policy of group 'lm' can act in world"):
        expanded(["lm"], tiny_world)
