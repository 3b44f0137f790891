"""Agreement of training users, judges and truth: hand-made values, then a world."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from recloop.agents import make_policy
from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.truth.boredom import RATING, BoredomUsers
from recloop.envs.truth.tastes import CLICK
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import World
from recloop.experiments.commands.agreement import AgreementConfig, agreement_of, main
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.policy_values import PolicyValues, cold_world, simulators_of, value_policies

NAMES = ("random", "popularity", "greedy", "worst-first")


def values(*means: float) -> np.ndarray:
    """(P, U): policies that every user values alike, but for a little noise of their own."""
    noise = np.random.default_rng(0).normal(size=(len(means), 50)) * 0.01
    return np.array(means)[:, None] + noise


@dataclass
class ThreeMembers(UserSimulator):
    """Stands for an ensemble: its members are other simulators."""

    members: tuple[UserSimulator, ...]
    signals = (CLICK, RATING)

    def arrive(self, users: Tensor, draw: Draw) -> Any:
        return self.members[0].arrive(users, draw)

    def respond(self, state: Any, past: Past, slate: Tensor, draw: Draw) -> tuple[Any, Response]:
        return self.members[0].respond(state, past, slate, draw)


def test_taus_ratios_and_claims_of_hand_made_values() -> None:
    truth, judge = values(2, 3, 4, 1), values(2, 3, 5, 1)
    found = agreement_of(PolicyValues(NAMES, np.stack([values(2, 3, 9, 1), judge]), judge[None], truth))
    assert found.taus["judges-truth"].mean == 1.0
    assert found.ratios["greedy"].mean == pytest.approx(1.25, abs=0.01)
    assert found.ratios["greedy"].low < 1.25 < found.ratios["greedy"].high + 0.01
    assert (found.counted.pairs, found.counted.in_world) == (6, 6)  # no gate was run, so nothing reaches further
    assert sorted(found.effects) == pytest.approx(sorted([1, 1, 2, 3 / 2, 4 / 3, 1]), abs=0.02)
    swapped = agreement_of(PolicyValues(NAMES, values(2, 4, 3, 1)[None], values(2, 4, 3, 1)[None], truth))
    assert swapped.taus["judges-truth"].mean == pytest.approx(2 / 3)
    assert swapped.taus["judges-truth-without-extremes"].mean == -1.0  # popularity and greedy alone
    assert swapped.counted.in_world == 6
    assert np.mean(np.array(swapped.effects) > 0) == pytest.approx(5 / 6)  # the direction of one pair is wrong
    gates = tuple(GateOutcome("replay gate", name, Verdict.passed) for name in ("train", "judge", "judge-2"))
    two = np.stack([values(2, 4, 3, 1)] * 2)
    reaching = agreement_of(PolicyValues(NAMES, two, two, truth, gates=gates))
    assert (reaching.counted.made, reaching.counted.right, reaching.counted.opposite) == (6, 5, 1)
    json.dumps(found.as_dict(), allow_nan=False)


def test_values_of_other_shapes_are_refused() -> None:
    with pytest.raises(RecloopError, match=r"judges holds values of shape \(3, 50\)"):
        PolicyValues(NAMES, values(1, 2, 3, 4)[None], values(1, 2, 3)[None])
    with pytest.raises(RecloopError, match="simulators tell of 2 policies, not of 4"):
        PolicyValues(NAMES, values(1, 2, 3, 4)[None], values(1, 2, 3, 4)[None], simulators=np.ones((2, 2, 4)))


def test_what_simulators_leave_open_flags_a_policy_and_forbids_its_claims() -> None:
    inside, outside = [[2.0, 1.9, 2.1, 0.1]] * 2, [[2.0, 1.9, 2.1, 0.1], [2.0, 1.9, 2.1, 0.97]]
    simulators = np.array([inside, outside, inside, inside])  # one simulator says popularity leaves the log
    found = PolicyValues(NAMES, values(2, 3, 4, 1)[None], values(2, 3, 4, 1)[None], simulators=simulators)
    assert found.flags == (False, True, False, False)
    assert found.brackets[0].pessimistic == pytest.approx(1.9 - 0.2)
    agreement = agreement_of(found)
    assert agreement.counted.in_world == 3  # of the pairs without popularity
    planned = replace(found, planning=(False, False, True, False), gates=(GateOutcome("a", "b", Verdict.failed),))
    again = PolicyValues.of(planned.tensors(), json.loads(json.dumps(planned.facts())))
    assert (again.brackets, again.gates) == (planned.brackets, planned.gates)
    assert again.brackets[2].pessimistic == pytest.approx(found.brackets[2].pessimistic - 0.5)
    assert again.brackets[:2] == found.brackets[:2]
    json.dumps(agreement.as_dict(), allow_nan=False)


def test_a_simulator_that_is_the_truth_agrees_with_it_lane_by_lane(judged: World) -> None:
    users = judged.simulators["train"]
    assert isinstance(users, BoredomUsers)
    ensemble = ThreeMembers((users, users, users))
    world = judged.with_simulators(train=ensemble, judge=users, truth=users)
    policies = {name: make_policy(name, world) for name in ("random", "popularity", "content", "worst-first")}
    found = value_policies(world, policies, episodes=24, start="cold")
    assert found.train.shape == (3, 4, len(judged.users.rows("evaluate")))
    assert found.truth is not None
    assert all((member == found.truth).all() for member in found.train)
    agreement = agreement_of(found)
    assert agreement.taus["training-truth"].mean == 1.0
    assert agreement.ratios["popularity"].mean == 1.0
    assert agreement.counted.right == agreement.counted.made


def test_a_world_without_histories_is_a_cold_start(truth: World) -> None:
    assert truth.user_model is not None
    policy = make_policy("popularity", truth)
    world = truth.with_simulators(fitted=truth.user_model)
    cold = Evaluator(world, "fitted", episodes=100, start="cold").run(policy)
    emptied = Evaluator(cold_world(world), "fitted", episodes=100).run(policy)
    assert (cold.value == emptied.value).all()
    assert (cold.length == emptied.length).all()
    assert (cold.value != Evaluator(world, "fitted", episodes=100).run(policy).value).any()


def test_a_world_without_training_users_or_judges_is_refused(truth: World, judged: World) -> None:
    with pytest.raises(RecloopError, match=r"no training users \(truth\)"):
        simulators_of(truth)
    bare = replace(judged, simulators={"train": judged.simulators["train"]})
    with pytest.raises(RecloopError, match="has no judge"):
        simulators_of(bare)


def test_the_command_prints_and_keeps_what_it_found(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = AgreementConfig(
        folder, policies=("random", "popularity", "greedy"), episodes=20, out=tmp_path / "out", progress=False
    )
    main(config)
    said = capsys.readouterr().out
    assert "Kendall's tau, judges and training" in said
    assert "of 3 pairs are claimed" in said
    kept = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert set(kept["judges"]) == {"random", "popularity", "greedy"}
    assert kept["truth"] is None
    with pytest.raises(RecloopError, match="name two or more"):
        AgreementConfig(folder, policies=("random",))
