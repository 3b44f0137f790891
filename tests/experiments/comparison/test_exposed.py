"""A fault in the training users is exposed by the judges; slates beyond the log are flagged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.agents.policy import Carry, Policy
from recloop.agents.registry import make_policy
from recloop.envs.build.examination import with_support
from recloop.envs.interaction.observation import Observation
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.truth.boredom import BoredomState, BoredomUsers
from recloop.envs.truth.logs import truth_log
from recloop.envs.truth.worlds import truth_world
from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import claims_of
from recloop.experiments.comparison.evaluate import Evaluator, evaluate
from recloop.experiments.comparison.results import Comparison, Entry, bracket_over
from recloop.experiments.report.report import html
from recloop.experiments.report.tables import headline_table

POOR = 1
"""The topic that the faulty training users are made to love."""


class Spread(BoredomUsers):
    """Users of whom an ensemble would be unsure by 0.05 clicks a place."""

    def expected(self, state: BoredomState, past: Past, slate: Tensor) -> Expected:
        known = super().expected(state, past, slate)
        return Expected(known.mean, torch.full_like(known.mean, 0.05), known.leave)


class FromGroup(Policy):
    """Items of one topic by chance; of any where the topic is None."""

    def __init__(self, topic: Tensor, group: int | None) -> None:
        self.forbidden = torch.zeros(len(topic)) if group is None else torch.where(topic == group, 0.0, -1e9)

    def act(self, observation: Observation, carry: Carry, k: int, draw: Draw) -> tuple[Tensor, Carry]:
        items = torch.arange(len(self.forbidden)).expand(len(observation["state"]), -1)
        return (self.forbidden + draw.gumbel("mine", items)).topk(k, dim=1).indices, carry


@pytest.fixture(scope="module")
def world() -> World:
    """Training users who love one poor topic without ever tiring of it; judges who are as the truth."""
    made = truth_world("boredom", users=300, items=120, seed=4, max_steps=10)
    sequences, _, _ = compile_sequences(truth_log(made, "mixed", seed=4))
    truth = made.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    inflated = truth.preference.clone()
    inflated[:, POOR] = 1.0
    faulty = BoredomUsers(inflated, truth.topic, truth.traits, replace(truth.rules, fade=0.97))
    judge = Spread(truth.preference, truth.topic, truth.traits, truth.rules)
    simulators = {"train": faulty, "validation": faulty, "judge": judge}
    return with_support(replace(made, sequences=sequences, simulators=simulators))


@pytest.fixture(scope="module")
def comparison(world: World) -> Comparison:
    """`tuned` shows the topic that earns most in the training users, found by trying them all."""
    truth = world.simulators["judge"]
    assert isinstance(truth, BoredomUsers)
    arenas = {name: Evaluator(world, name, episodes=120, seed=9) for name in ("train", "judge")}
    by_topic = [arenas["train"].run(FromGroup(truth.topic, g)).value.mean() for g in range(truth.topics)]
    assert int(np.argmax(by_topic)) == POOR
    policies = {"any": FromGroup(truth.topic, None), "tuned": FromGroup(truth.topic, POOR)}
    return Comparison(
        world=world,
        contenders=tuple(Entry(name, name) for name in policies),
        seeds=(0,),
        simulators=("train", "judge"),
        reference="any",
        rollouts={
            (name, 0, simulator): arenas[simulator].run(policy)
            for name, policy in policies.items()
            for simulator in arenas
        },
    )


def test_a_policy_that_exploits_a_fault_wins_in_training_users_alone(comparison: Comparison) -> None:
    train, judge = (comparison.headline("tuned", name).difference for name in ("train", "judge"))
    assert train is not None
    assert judge is not None
    assert train.low > 0
    assert judge.high < 0
    (claim,) = claims_of(comparison)
    assert (claim.better, claim.level) == ("any", None)
    assert claim.against.startswith("flagged: ")
    bare = replace(comparison, rollouts={at: replace(r, outside=None) for at, r in comparison.rollouts.items()})
    assert claims_of(bare)[0].against == "train say the opposite"


def test_it_is_flagged_and_random_is_not_outside(comparison: Comparison) -> None:
    tuned, any_ = comparison.bracket("tuned"), comparison.bracket("any")
    assert tuned is not None
    assert any_ is not None
    assert tuned.outside > 0.5
    assert "its value may be" in tuned.flag
    assert any_.outside < 0.25
    judged = comparison.headline("tuned", "judge").value.mean
    assert tuned.pessimistic <= judged <= tuned.optimistic  # what the judges say is within the bracket


def test_table_report_and_rows_carry_bracket_and_flag(comparison: Comparison) -> None:
    assert "may be" in [column.header for column in headline_table(comparison, "train").columns]
    page = html(comparison, claims_of(comparison), {})
    assert "tuned (!)" in page
    assert "Not backed by the log" in page
    rows = {(row["policy"], row["simulator"]): row for row in comparison.rows()}
    row = rows["tuned", "train"]
    assert float(row["pessimistic"]) < float(row["value"]) < float(row["optimistic"])
    assert float(row["outside"]) > 0.5
    assert row["flag"]


def test_a_world_without_support_has_empty_cells(world: World) -> None:
    bare = replace(world, support=None)
    found = evaluate(make_policy("random", bare), bare, "judge", episodes=10)
    assert (found.outside, found.pessimistic) == (None, None)
    comparison = Comparison(
        bare, (Entry("random", "random"),), (0,), ("judge",), "random", {("random", 0, "judge"): found}
    )
    assert not comparison.has_support
    assert comparison.bracket("random") is None
    assert "flag" in comparison.csv().splitlines()[0]
    assert ",,,," in comparison.csv().splitlines()[1]


def test_the_ensembles_disagreement_widens_the_bracket(world: World) -> None:
    found = evaluate(make_policy("random", world), world, "judge", episodes=20, seed=3)
    assert found.expected is not None
    low, high = found.expected.T
    np.testing.assert_allclose(high - low, 0.1 * world.slate_size * found.length, rtol=1e-4)
    narrow = bracket_over([[replace(found, expected=None)]])
    wide = bracket_over([[found]])
    assert narrow is not None
    assert wide is not None
    off = 2 * 0.05 * world.slate_size * found.length.mean()
    assert wide.optimistic - narrow.optimistic == pytest.approx(off, rel=1e-4)
    assert narrow.pessimistic - wide.pessimistic == pytest.approx(off, rel=1e-4)
    assert evaluate(make_policy("random", world), world, "train", episodes=20, seed=3).expected is None


def test_watching_changes_no_value(world: World) -> None:
    watched = evaluate(make_policy("random", world), world, "judge", episodes=20, seed=3)
    bare = evaluate(make_policy("random", world), replace(world, support=None), "judge", episodes=20, seed=3)
    np.testing.assert_array_equal(watched.value, bare.value)
