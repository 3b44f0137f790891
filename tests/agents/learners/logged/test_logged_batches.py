"""A log as batches: moments as the core would have observed them, and what they brought worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.agents.learners.logged.batches import LoggedBatches, RecordedBatches
from recloop.agents.learners.returns import returns_after
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.trajectories.sources import logged
from recloop.envs.world.world import World

N, K = 10, 3
SHOWN = [[[0, 1, 2], [3, 4, N], [1, 5, 0]], [[7, 8, 9], [2, 0, 1]]]
CLICKED = [[[1, 0, 1], [0, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]]
SESSION = [[0, 0, 1], [0, 0]]
"""Of users 0 and 1; nobody else did anything."""


def log_of() -> Sequences:
    """The log above: a rating of 5 comes with every click, propensities are 0.1 a place but for one nobody knows."""
    slates, answers, before, consumed, lengths, counts = [], [], [], [], [], []
    for shown, clicked in zip(SHOWN, CLICKED, strict=True):
        done = 0
        for items, clicks in zip(shown, clicked, strict=True):
            before.append(done)
            slates.append(items)
            answers.append([[c, 5.0 * c] for c in clicks])
            taken = [i for i, c in zip(items, clicks, strict=True) if c]
            consumed += taken
            done += len(taken)
        lengths.append(done)
        counts.append(len(shown))
    nobody = [0] * 10
    given = np.array(answers)[..., :1].repeat(2, axis=2) > 0
    given[..., 0] = np.array(slates) < N
    propensity = np.full((5, K), 0.1, dtype=np.float32)
    propensity[0, 0] = np.nan
    return Sequences(
        catalogue_size=N,
        offsets=np.cumsum([0, *lengths, *nobody]),
        items=np.array(consumed),
        feedback=np.array([[1.0, 5.0]] * len(consumed), dtype=np.float32),
        given=np.ones((len(consumed), 2), dtype=bool),
        slates=Slates(
            offsets=np.cumsum([0, *counts, *nobody]),
            items=np.array(slates),
            answers=np.array(answers, dtype=np.float32),
            given=given,
            consumed_before=np.array(before),
            session=np.concatenate(SESSION),
            left=np.array([0, 1, 0, 0, -1], dtype=np.int8),
            days_away=np.array([np.nan, 3.0, np.nan, np.nan, np.nan], dtype=np.float32),
            propensity=propensity,
        ),
    )


@pytest.fixture(scope="module")
def world(tiny_world: World) -> World:
    reward = WeightedReward({"click": 1.0, "rating": 0.2}, leaving=-0.5)
    return replace(tiny_world, sequences=log_of(), reward=reward, consumes_twice=True)


def steps_of(world: World, gamma: float = 0.5, candidates: int = N) -> LoggedBatches:
    return LoggedBatches(world, EncoderRetriever(world.state_encoder, candidates), gamma, "cpu")


def test_returns_against_a_plain_loop():
    generator = np.random.default_rng(0)
    lengths = [3, 1, 5, 2]
    reward = generator.normal(size=11)
    number = np.concatenate([np.arange(n) for n in lengths])
    wanted = []
    for start, length in zip(np.cumsum([0, *lengths[:-1]]), lengths, strict=True):
        for step in range(length):
            wanted.append(sum(0.9 ** (t - step) * reward[start + t] for t in range(step + 1, length)))
    assert np.allclose(returns_after(reward, number, 0.9), wanted)
    assert len(returns_after(np.zeros(0), np.zeros(0, dtype=np.int64), 0.9)) == 0


def test_what_places_brought_by_hand(world: World):
    steps = steps_of(world)
    found = steps.batch(steps.rows)
    # a click and its rating make 2; leaving after the second slate takes off 0.5; a session ends what counts
    second = [0.0 - 0.5, 2.0 - 0.5, 0.0 - 0.5]
    later = 0.5 * (2.0 - 0.5)
    wanted = [[2 + later, later, 2 + later], second, [0.0] * 3, [0.5 * 2] * 3, [2.0, 0.0, 0.0]]
    assert torch.allclose(found.worth, torch.tensor(wanted), atol=1e-6)
    assert found.held.tolist()[1] == [True, True, False]


def test_logged_items_are_found_among_the_candidates(world: World):
    steps = steps_of(world)
    found = steps.batch(steps.rows)
    picked = found.observation["candidates"].gather(1, found.positions)
    assert torch.equal(found.counted, found.held), "every item is a candidate here"
    shown = torch.tensor(SHOWN[0] + SHOWN[1])
    assert torch.equal(picked[found.counted], shown[found.counted])
    few = steps_of(world, candidates=4).batch(steps.rows)
    among = (few.observation["candidates"].unsqueeze(1) == shown.unsqueeze(2)).any(2)
    assert torch.equal(few.counted, among)
    assert 0 < int(few.counted.sum()) < int(few.held.sum())


def test_moments_are_what_the_core_would_have_observed(world: World):
    steps = steps_of(world)
    seen = steps.batch(steps.rows).observation
    before = world.sequences.slates.consumed_before
    for row, user in enumerate([0, 0, 0, 1, 1]):
        items, feedback = world.sequences.last(np.array([user]), 6, before[row : row + 1])
        state = world.state_encoder.start(world.users.profile[user : user + 1], items, feedback)
        assert torch.allclose(seen["state"][row], world.state_encoder.vector(state)[0], atol=1e-5)
    assert seen["shown"].tolist()[1] == [[N, N, N], SHOWN[0][0]]
    assert seen["shown"].tolist()[2] == SHOWN[0][:2], "the past goes on when a session ends"
    assert seen["shown"].tolist()[3] == [[N] * 3] * 2, "of this user alone"
    assert seen["answers"][2, 1].tolist() == [[0, 0], [1, 5], [0, 0]]
    assert seen["context"][:, 0].tolist() == [0.0, 0.25, 0.0, 0.0, 0.25], "slates of the session, of four at most"
    assert seen["context"][:, 1].tolist() == pytest.approx([0.0, 0.0, np.log1p(3.0), 0.0, 0.0])
    assert seen["profile"].tolist() == [[0.0]] * 3 + [[1.0]] * 2


def test_propensities_are_the_logs_where_it_has_them(world: World):
    steps = steps_of(world)
    found = steps.batch(steps.rows).log_propensity
    assert torch.isnan(found).sum() == 1
    assert torch.isnan(found[0, 0])
    assert float(found[1, 1]) == pytest.approx(np.log(0.1))


def test_what_was_consumed_is_no_candidate_where_nobody_consumes_twice(world: World):
    steps = steps_of(replace(world, consumes_twice=False))
    found = steps.batch(steps.rows)
    assert set(found.observation["candidates"][1].tolist()) == {1, 3, 4, 5, 6, 7, 8, 9, N}
    assert not bool(found.counted[2, 2]), "item 0 was consumed in the first slate"


def test_without_exposures_every_consumption_is_a_slate_of_one(world: World):
    bare = replace(world, sequences=replace(world.sequences, slates=None))
    found = steps_of(bare).batch(torch.arange(4))
    assert found.worth.shape == (4, 1)
    # user 0 consumed three items worth 2 each, user 1 one
    assert found.worth[:, 0].tolist() == pytest.approx([2 + 1 + 0.5, 2 + 1, 2, 2])
    assert bool((found.observation["shown"] == N).all())


def test_steps_that_features_tell_of_are_not_learned_from(world: World):
    told = np.zeros(12, dtype=np.int64)
    told[0] = 2
    found = steps_of(replace(world, sequences=replace(world.sequences, profile_prefix=told)))
    assert found.rows.tolist() == [2, 3, 4]


def test_a_log_without_steps_is_refused(world: World):
    empty = replace(world, sequences=Sequences.empty(12, N, 2))
    with pytest.raises(PolicyError, match="no train user of world 'tiny' has a logged step"):
        steps_of(empty)


def test_logged_items_are_candidates_where_they_are_added(world: World):
    retriever = EncoderRetriever(world.state_encoder, 4)
    steps = LoggedBatches(world, retriever, 0.5, "cpu", adds_logged=True)
    found = steps.batch(steps.rows)
    candidates = found.observation["candidates"]
    assert candidates.shape[1] == 4 + K
    assert torch.equal(found.counted, found.held)
    assert torch.equal(candidates.gather(1, found.positions)[found.held], torch.tensor(SHOWN[0] + SHOWN[1])[found.held])
    for row in candidates.tolist():
        there = [item for item in row if item < N]
        assert len(there) == len(set(there))


def test_what_follows_a_step_and_what_is_earned_from_it_on(world: World):
    steps = steps_of(world)
    found = steps.batch(steps.rows)
    assert found.goes_on.tolist() == [True, False, False, True, False], "sessions end what goes on"
    assert found.reward.tolist() == pytest.approx([4.0, 2.0 - 0.5, 0.0, 0.0, 2.0])
    assert steps.returns().tolist() == pytest.approx([5.5, 1.5, 0.0, 2.0, 2.0])
    assert steps.after(found).rows.tolist() == [1, 1, 2, 4, 4]
    short = steps_of(replace(world, max_steps=1))
    assert short.returns().tolist() == pytest.approx([4.0, 1.5, 0.0, 0.0, 2.0]), "no further than the time limit"


@pytest.mark.parametrize("exposures", [True, False])
def test_a_log_and_the_trajectories_of_it_make_the_same_batches(world: World, exposures: bool):
    if not exposures:
        world = replace(world, sequences=replace(world.sequences, slates=None))
    retriever = EncoderRetriever(world.state_encoder, N)
    steps = steps_of(world)
    mine = steps.batch(steps.rows)
    recorded = RecordedBatches(logged(world), world, retriever, 0.5, "cpu")
    theirs = recorded.batch(recorded.rows)
    for name, value in vars(mine).items():
        if name != "observation":
            assert torch.allclose(value, getattr(theirs, name), equal_nan=True), name
    assert mine.observation.keys() == theirs.observation.keys()
    for key, value in mine.observation.items():
        assert torch.allclose(value, theirs.observation[key], atol=1e-6), key
    assert torch.equal(steps.returns(), recorded.returns())


def test_trajectories_mask_what_was_consumed(world: World):
    world = replace(world, consumes_twice=False)
    retriever = EncoderRetriever(world.state_encoder, N)
    found = RecordedBatches(logged(world), world, retriever, 0.5, "cpu")
    steps = steps_of(world)
    mine, theirs = (one.batch(steps.rows).observation for one in (steps, found))
    assert torch.equal(mine["action_mask"], theirs["action_mask"])
    with pytest.raises(PolicyError, match="hold no observation shown, answers, context, profile, history"):
        RecordedBatches(logged(world, observation="state"), world, retriever, 0.5, "cpu")
