"""The support of a log: worked out by hand where one can, and held against policies that leave it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import WorldError
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.storage import read_json, write_json
from recloop.envs.build.examination import with_support
from recloop.envs.evidence.support import BracketRules, SupportModel, bracket_of
from recloop.envs.evidence.support.bracket import BracketTally
from recloop.envs.evidence.support.features import SupportItems, feature_weights, step_features, windows
from recloop.envs.evidence.support.model import RewardRange
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.sequences import Sequences
from recloop.envs.logs.walk import steps_at
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.recording import record
from recloop.envs.simulation.rollout import Picked
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.built_in import BoredomWorldConfig, boredom_world
from recloop.envs.world.world import World

USERS = 250


def at_random(k: int, items: int) -> object:
    def pick(observation: dict[str, Tensor], carry: object, draw: Draw) -> Picked:
        every = torch.arange(items).expand(len(observation["state"]), -1)
        return Picked(draw.gumbel("slate", every).topk(k, dim=1).indices)

    return pick


@pytest.fixture(scope="module")
def world() -> World:
    """Topic users, a log of random slates from cold starts, and its support."""
    config = BoredomWorldConfig(users=USERS, state_epochs=1, user_epochs=1, dim=8, max_steps=10)
    made = boredom_world(config)
    truth = made.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    core = Core(made, "truth", batch=USERS, users="all", seed=1, start="cold")
    core.reset(users=torch.arange(USERS))
    sequences, _, _ = compile_sequences(record(core, at_random(5, 200), "random"))  # type: ignore[arg-type]
    groups = torch.cat([truth.topic, torch.tensor([truth.topics])]).unsqueeze(1)
    catalogue = replace(made.catalogue, groups=groups, group_names=("topic",))
    return with_support(replace(made, sequences=sequences, catalogue=catalogue))


def outside(world: World, slates: Tensor | None, seed: int = 5) -> float:
    """Share of the steps outside the support, of random slates or of those whose items (C,) are drawn from."""
    assert world.support is not None
    core = Core(world, "truth", batch=100, users="all", seed=seed, start="cold", max_steps=10)
    items = torch.arange(200) if slates is None else slates
    shares = []
    alive = torch.ones(100, dtype=torch.bool)
    for _ in range(10):
        every = items.expand(100, -1)
        slate = every.gather(1, core.draw().gumbel("mine", every).topk(5, dim=1).indices)
        shares.append((world.support.distance(core.past, slate) > 1)[alive].float())
        step = core.step(slate)
        alive = alive & ~(step.terminated | step.truncated)
    return float(torch.cat(shares).mean())


def test_random_is_inside_a_random_log_and_one_topic_is_outside(world: World) -> None:
    truth = world.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    assert outside(world, None) < 0.12
    assert outside(world, (truth.topic == 0).nonzero()[:, 0]) > 0.6
    assert outside(world, truth.traits["quality"].topk(8).indices) > 0.6


def steps_of(sequences: Sequences, count: int) -> tuple[Past, Tensor]:
    """The first slates of a log and what had happened before each."""
    steps = steps_at(sequences, np.arange(count))
    return steps.past(50, 5), torch.from_numpy(steps.items)


def test_groups_are_exchangeable(world: World) -> None:
    """Relabelling the topics changes nothing: what counts is how often, not which."""
    assert world.support is not None
    sequences = world.sequences
    past, slate = steps_of(sequences, 40)
    facts = world.support.facts
    relabelled = torch.tensor([2, 0, 3, 1, 4])[facts.groups]
    plain = step_features(past, slate, facts)
    other = step_features(past, slate, replace(facts, groups=relabelled))
    torch.testing.assert_close(plain, other)


def test_features_of_one_step_by_hand() -> None:
    """Items 0, 1 of group 0, item 2 of group 1, row 3 empty; two slates of two before."""
    facts = SupportItems(
        groups=torch.tensor([[0], [0], [1], [2]]),
        vectors=torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        popularity=torch.tensor([1.0, 0.5, 0.0, 0.0]),
        familiar=torch.tensor([1.0, 1.0, 0.5, 0.0]),
    )
    past = Past(
        history=torch.tensor([[3, 3, 0]]),
        feedback=torch.zeros(1, 3, 1),
        shown=torch.tensor([[[0, 2], [0, 1]]]),
        answers=torch.tensor([[[[0.0], [0.0]], [[1.0], [0.0]]]]),
        step=torch.tensor([2]),
        days_away=torch.zeros(1),
    )
    assert windows(2) == (1, 2)
    found = step_features(past, torch.tensor([[1, 2]]), facts)[0].tolist()
    general = found[:12]
    assert general[0] == pytest.approx(0.25)  # mean popularity of items 1 and 2
    assert general[2] == pytest.approx(0.25)  # the first place is more popular than the mean
    assert general[3] == pytest.approx(0.75)  # item 2 is half known
    assert general[4:6] == pytest.approx([0.0, 0.5])  # nearness to each other, to what was consumed
    assert general[6:8] == pytest.approx([1.0, 0.0])  # both shown lately, none consumed
    assert general[8:10] == pytest.approx([0.5, 0.25])  # consumption rates
    grouped = found[12:]
    assert grouped[:2] == pytest.approx([0.5, 1.0])  # largest share, groups a place
    assert grouped[2:4] == pytest.approx([0.5, 1.0])  # last slate: all of group 0
    assert grouped[4:6] == pytest.approx([0.5, 0.75])  # last two: three quarters
    assert grouped[6] == pytest.approx(0.5 / 3)  # group 0: one of three taken; group 1: none of one
    assert grouped[7:] == pytest.approx([0.5, 1.0, 0.5])  # consumption is all of group 0
    assert feature_weights(len(found), 4)[[0, 12]].tolist() == [1.0, 0.5]


def test_chunks_and_single_lanes_agree(world: World) -> None:
    assert world.support is not None
    past, slate = steps_of(world.sequences, 30)
    together = world.support.distance(past, slate)
    for lane in (0, 7, 29):
        row = torch.tensor([lane])
        alone = world.support.distance(past.rows(row), slate[row])
        torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-4)


def test_a_world_keeps_its_support(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "world")
    again = World.load(tmp_path / "world")
    assert world.support is not None
    assert again.support is not None
    past, slate = steps_of(world.sequences, 20)
    first, second = (s.distance(past, slate) for s in (world.support, again.support))
    torch.testing.assert_close(first, second)
    assert again.support.reward_range == world.support.reward_range
    replace(world, support=None).save(tmp_path / "old")
    assert World.load(tmp_path / "old").support is None
    facts = read_json(tmp_path / "world" / "support" / "support.json")
    write_json(tmp_path / "world" / "support" / "support.json", {**facts, "format": 99})
    Manifest.of(tmp_path / "world").write(tmp_path / "world")
    with pytest.raises(WorldError, match="format 99"):
        World.load(tmp_path / "world")


def test_a_log_without_exposures_has_an_empty_support(world: World) -> None:
    unseen = with_support(replace(world, sequences=replace(world.sequences, slates=None)))
    bare = unseen.support
    assert "Support: empty" in unseen.card.not_claimed[-1]
    assert bare is not None
    assert bare.is_empty
    assert "no exposures" in bare.sentence
    core = Core(world, "truth", batch=3, users="all", seed=0)
    assert bare.distance(core.past, torch.zeros(3, 5, dtype=torch.int64)).isinf().all()
    assert (bare.reward_range.reward_low, bare.reward_range.reward_high) == (0.0, 5.0)


def test_few_slates_are_no_support(world: World) -> None:
    few = SupportModel.fit(
        world.sequences,
        np.arange(4),
        world.catalogue.groups,
        world.item_vectors,
        signals=world.signals,
        reward=world.reward,
        slate_size=5,
    )
    assert few.is_empty
    assert "fewer than 100" in few.reason


def tallied(world: World, distances: list[float], left: bool = False) -> BracketTally:
    """Two lanes that earn 1 a step at the same distances; the second is over after the first step."""
    assert world.support is not None
    support = SupportModel(
        world.support.facts, world.support.reference, world.support.centre, world.support.scale,
        1.0, RewardRange(0.2, 3.0, leave_low=0.0, leave_mean=0.1, leave_high=0.3), 1,
    )  # fmt: skip
    tally = BracketTally(support, BracketRules(full_at=2.0), 2, 4, torch.device("cpu"))
    alive = torch.tensor([True, True])
    for step, distance in enumerate(distances):
        gone = torch.tensor([left and step == len(distances) - 1] * 2)
        tally.add(torch.full((2,), distance), torch.ones(2), gone, alive, step)
        alive = torch.tensor([True, False])
    return tally


def test_inside_the_log_nothing_is_open_but_what_the_ensemble_says(world: World) -> None:
    tally = tallied(world, [0.5, 1.0])
    assert tally.outside.tolist() == [0, 0]
    assert tally.low.tolist() == tally.high.tolist() == [2.0, 1.0]
    rules = BracketRules(spread=2.0, model_error=0.0)
    unsure = bracket_of([2.0], [2.0], [2.0], [0.0], rules, spreads=[0.3])
    assert (unsure.pessimistic, unsure.optimistic) == (1.4, 2.6)


def test_beyond_the_log_a_step_may_be_worth_what_logged_ones_were(world: World) -> None:
    tally = tallied(world, [2.0, 1.5])
    assert tally.outside.tolist() == [2, 1]
    # the first step wholly unknown; then 20 % more may have left, and half of the second step is unknown
    assert tally.low.tolist() == pytest.approx([0.2 + 0.8 * (0.5 + 0.1), 0.2])
    assert tally.high.tolist() == pytest.approx([3.0 + 0.5 + 1.5, 3.0])


def test_who_left_beyond_the_log_may_have_stayed(world: World) -> None:
    tally = tallied(world, [3.0], left=True)
    assert tally.high.tolist() == pytest.approx([3.0 + 3 * 3.0] * 2)  # three more steps, nobody leaving


def test_flags_say_why() -> None:
    rules = BracketRules(model_error=0.1, outside_limit=0.25, width_limit=0.25)
    fine = bracket_of([10.0], [9.5], [10.5], [0.1], rules)
    assert (fine.pessimistic, fine.optimistic, fine.flag) == (8.5, 11.5, "")
    assert "60% of its steps lie outside" in bracket_of([10.0], [9.5], [10.5], [0.6], rules).flag
    wide = bracket_of([10.0, 4.0], [9.5, 3.5], [10.5, 4.5], [0.1, 0.1], rules)
    assert wide.pessimistic == pytest.approx(3.1)
    assert "may be 3.10 to 11.50" in wide.flag
    assert bracket_of([0.0], [0.0], [0.0], [0.0], rules).half_width == 0.0
