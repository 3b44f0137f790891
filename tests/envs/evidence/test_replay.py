"""The replay gate: truth passes against its own log in every mode, users who are not the log's do not."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.envs.evidence.replay import GateReport, GateRules, replay_gate
from recloop.envs.evidence.replay.episodes import LoggedEpisodes, choose_episodes, in_both, measures, world_before
from recloop.envs.evidence.replay.gate import _line, held_out
from recloop.envs.evidence.replay.policies import EstimatedPolicies
from recloop.envs.evidence.replay.strata import next_answers
from recloop.envs.evidence.replay.unexplained import sentence, unexplained
from recloop.envs.evidence.verdict import Verdict
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.simulation.core import Core
from recloop.envs.truth.boredom import BoredomState, BoredomUsers
from recloop.envs.truth.logs import logging_policy, truth_log
from recloop.envs.truth.worlds import TRUTHS, truth_world
from recloop.envs.users.fitted import FitConfig, fit_ensemble
from recloop.envs.world.world import World
from recloop.experiments.studies.gates.planted_faults import FAULTS

USERS = 300
RULES = GateRules(resamples=100, replays=1)


@pytest.fixture(scope="module")
def world() -> World:
    """Users who tire, and their mixed log: each under one of four policies."""
    made = truth_world("boredom", users=USERS, items=80, seed=2)
    sequences, _, _ = compile_sequences(truth_log(made, "mixed", seed=2))
    return replace(made, sequences=sequences)


def modes(world: World) -> dict[str, tuple[Sequences, object]]:
    log = world.sequences
    assert log.slates is not None
    unnamed = replace(log, slates=replace(log.slates, policy=None), policies=())
    return {
        "closed loop": (log, logging_policy(world, "mixed", 2)),
        "estimated": (log, None),
        "open loop": (unnamed, None),
    }


@pytest.mark.parametrize("mode", ["closed loop", "estimated", "open loop"])
def test_the_truth_passes_and_users_who_never_tire_fail(world: World, mode: str) -> None:
    log, pick = modes(world)[mode]
    truth = world.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    rows = np.arange(USERS)
    honest = replay_gate(world, "truth", log, rows, pick, rules=RULES)  # type: ignore[arg-type]
    assert honest.mode == mode
    assert honest.failed == (), honest.sentence
    lively = BoredomUsers(truth.preference, truth.topic, truth.traits, replace(truth.rules, fade=0.95))
    wrong = replay_gate(world, lively, log, rows, pick, rules=RULES)  # type: ignore[arg-type]
    assert wrong.verdict is Verdict.failed
    assert "FAILED" in wrong.sentence
    name = "next click, slate 1 of the session"
    first = next(line for line in wrong.lines if line.measure == name)
    assert first not in wrong.failed  # nobody is tired yet: the gate shows where the fault lies
    assert "next click, slates 8 to 15 of the session" in {line.measure for line in wrong.failed}
    assert "how they tire of what is shown often" in wrong.sentence


@pytest.mark.slow
def test_what_failed_users_do_not_know_is_named(world: World) -> None:
    """Users who never tire do not expect what was shown of an item's group to matter; the truth lacks nothing."""
    truth, rows = world.simulators["truth"], np.arange(USERS // 2)
    assert isinstance(truth, BoredomUsers)
    lively = BoredomUsers(truth.preference, truth.topic, truth.traits, replace(truth.rules, fade=0.95))
    of = (world.sequences, rows, world.item_vectors, world.users.profile, world.signals)
    config = FitConfig(history=world.users.history.shape[1], lead=world.users.shown.shape[1])
    reader, _ = fit_ensemble("trees", *of, members=1, groups=world.catalogue.groups, config=config)
    known = replace(world, simulators={**world.simulators, "judge": reader})
    for users in (truth, lively, reader):
        users.prepare(known, "cpu")
    missing = unexplained(known, lively, rows)
    assert (first := next(iter(missing))) in (
        "own groups",
        "similar items",
        "peaks over groups",
        "likeness to the diet",
    )
    assert first in sentence("judge", missing)
    assert max(unexplained(known, truth, rows).values(), default=0) < 0.2 * max(missing.values())
    assert unexplained(world, lively, rows) == {}  # nobody there can be read


def test_nobody_leaving_fails_where_the_log_knows_who_left(world: World) -> None:
    class Stayers(BoredomUsers):
        def respond(
            self, state: BoredomState, past: Past, slate: torch.Tensor, draw: object
        ) -> tuple[BoredomState, Response]:
            after, response = super().respond(state, past, slate, draw)  # type: ignore[arg-type]
            return after, replace(response, left=torch.zeros_like(response.left))

    truth = world.simulators["truth"]
    assert isinstance(truth, BoredomUsers)
    stayers = Stayers(truth.preference, truth.topic, truth.traits, truth.rules)
    pick = logging_policy(world, "mixed", 2)
    report = replay_gate(world, stayers, rows=np.arange(USERS), pick=pick, rules=RULES)
    assert {"chance to leave after a slate", "slates an episode"} <= {line.measure for line in report.failed}
    assert "when they leave" in report.sentence


def test_a_handful_of_clicks_cannot_tell(world: World) -> None:
    """Eight users pass nothing, however right they are, and are not failed for it."""
    report = replay_gate(world, "truth", rows=np.arange(8), pick=logging_policy(world, "mixed", 2), rules=RULES)
    assert report.verdict is Verdict.cannot_tell
    assert "CANNOT TELL" in report.sentence
    assert "the log is too small" in report.sentence


def test_a_line_passes_with_its_whole_interval_alone() -> None:
    """Error 4 %: known to 1 % it passes, known to 8 % it cannot tell; 20 % fails but where chance may have done it."""
    for simulated, spread, verdict in (
        (1.04, 0.01, Verdict.passed),
        (1.04, 0.08, Verdict.cannot_tell),
        (1.20, 0.01, Verdict.failed),
        (1.20, 0.10, Verdict.cannot_tell),
    ):
        draws = simulated + spread * np.array([0.0, -1.0, 1.0])
        line = _line("reward a slate", "", np.ones(3), draws, 3.0, GateRules(), "closed loop")
        assert line.verdict is verdict, line.reason
    small = _line("next click, position 3", "", np.ones(3), np.array([1.0, 0.9, 1.1]), 3.0, GateRules(), "closed loop")
    assert (small.verdict, small.decides) == (Verdict.cannot_tell, False)


@pytest.fixture(scope="module")
def returning() -> World:
    """Users who leave and come back within a fixed stretch of slates: those with long sessions have few of them."""
    made = truth_world("retention", users=400, items=60, seed=1)
    sequences, _, _ = compile_sequences(truth_log(made, "mixed", seed=1))
    return replace(made, sequences=sequences, sessions=1)


def test_sessions_drawn_by_user_count_as_the_logs_do() -> None:
    """Over 20 slates one user has two sessions of ten, another ten of two; then the log is cut.

    Drawn one a user and each counting once, a session has six slates on average; in the log it has 40 / 12.
    """
    ends = [9, 19, *range(21, 40, 2)]
    left = np.zeros(40, dtype=np.int8)
    left[[end for end in ends if end not in (19, 39)]] = 1
    session = np.concatenate([np.arange(20) // 10, np.arange(20) // 2])
    none = np.zeros((40, 1, 1), dtype=np.float32)
    slates = Slates(np.array([0, 20, 40]), np.zeros((40, 1), int), none, none > 0, np.zeros(40, int), session, left)
    for seed in range(5):
        starts = choose_episodes(slates, np.arange(2), 2, 15, False, seed)
        assert starts.lengths.tolist() == [10, 2]
        assert (starts.weight * starts.lengths).sum() / starts.weight.sum() == pytest.approx(40 / 12)
        remaining = np.array([20, 40]) - starts.first
        assert starts.limits.tolist() == np.minimum(remaining, 15).tolist()  # who left might have stayed until then


def test_the_truth_passes_where_users_come_back(returning: World) -> None:
    pick = logging_policy(returning, "mixed", 1)
    report = replay_gate(returning, "truth", rows=np.arange(400), pick=pick, rules=RULES)
    assert report.failed == (), report.sentence
    leaving = next(line for line in report.lines if line.measure == "chance to leave after a slate")
    assert abs(leaving.error) < 0.1


def test_next_answers_by_hand(world: World) -> None:
    """Positions, policies and slates each split the log: their sums are the whole's."""
    truth = world.simulators["truth"]
    truth.prepare(world, "cpu")
    sums = next_answers(world, truth, world.sequences, np.arange(60), 20, 0)
    slates = world.sequences.slates
    assert slates is not None
    mine = slice(0, slates.offsets[60])
    happened, _, number = sums["next click", ""]
    assert happened.sum() == slates.answers[mine, :, 0].sum()
    assert number.sum() == slates.given[mine, :, 0].sum()
    for sign in (", position", "of the session", "consumed before", "group shown", "group taken"):
        parts = [pair for (name, _), pair in sums.items() if name.startswith("next click") and sign in name]
        for place in range(3):
            assert sum(part[place].sum() for part in parts) == pytest.approx(sums["next click", ""][place].sum())
    by_policy = [pair for (name, policy), pair in sums.items() if name == "next leaving" and policy]
    assert len(by_policy) == 4
    assert sum(part[0].sum() for part in by_policy) == (slates.left[mine] == 1).sum()
    again = sums["next click, item shown before", ""][2].sum()
    pairs = {(u, i) for u in range(60) for i in slates.items[slates.offsets[u] : slates.offsets[u + 1]].ravel()}
    assert again == number.sum() - len(pairs)


def test_a_simulator_is_replayed_on_users_it_was_not_fitted_on(world: World) -> None:
    rows = {part: set(world.users.rows(part).tolist()) for part in ("train", "judge", "evaluate")}
    judged = world.with_simulators(judge=world.simulators["truth"])
    assert set(held_out(judged, "train")) == rows["judge"] | rows["evaluate"]
    assert set(held_out(judged, "judge")) == rows["train"] | rows["evaluate"]
    assert set(held_out(judged, "truth")) == rows["evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUTHS)
def test_every_truth_passes_on_its_own_log_and_a_faulty_one_fails(name: str) -> None:
    made = truth_world(name, users=2000, items=200, seed=7)
    sequences, _, _ = compile_sequences(truth_log(made, "mixed", seed=7))
    made, rows = replace(made, sequences=sequences), np.arange(2000)
    for pick in (logging_policy(made, "mixed", 7), None):
        report = replay_gate(made, "truth", rows=rows, pick=pick)
        assert report.passed, report.sentence
        faulty = FAULTS["base rate + 50 %"](made.simulators["truth"])
        assert replay_gate(made, faulty, rows=rows, pick=pick).verdict is Verdict.failed


def test_a_report_survives_json(world: World) -> None:
    report = replay_gate(world, "truth", rows=np.arange(100), rules=RULES)
    assert GateReport.of(json.loads(json.dumps(report.as_dict()))) == report
    unknown = replace(report, lines=(replace(report.lines[0], margin=math.nan),))
    facts = json.loads(json.dumps(unknown.as_dict(), allow_nan=False))
    assert facts == unknown.as_dict()
    assert math.isnan(GateReport.of(facts).lines[0].margin)


def test_without_exposures_there_is_no_gate(world: World) -> None:
    bare = replace(world.sequences, slates=None)
    report = replay_gate(world, "truth", bare, np.arange(50))
    assert not report.passed
    assert report.lines == ()
    assert "no exposures" in report.sentence
    with pytest.raises(RecloopError, match="none of the 0 users"):
        replay_gate(world, "truth", rows=np.zeros(0, dtype=np.int64))


def test_measures_by_hand() -> None:
    """Two users, three steps: the first leaves after two, the second is cut after two."""
    alive = np.array([[1, 1, 0], [1, 1, 0]], dtype=bool)
    episodes = LoggedEpisodes(
        reward=np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0]]),
        alive=alive,
        known=np.array([[1, 1, 0], [1, 0, 0]], dtype=bool),
        left=np.array([[0, 1, 0], [0, 0, 0]], dtype=bool),
        policy=np.array([[0, 1, -1], [0, 0, -1]]),
    )
    found = {key: float(v[0]) for key, v in measures(episodes, np.ones((1, 2)), ("a", "b"), 1, single=True).items()}
    assert found["reward a slate", ""] == pytest.approx(6 / 4)
    assert found["reward, slate 1", ""] == pytest.approx(1.5)
    assert found["reward, slates 2 to 3", ""] == pytest.approx(1.5)
    assert found["reward a slate", "a"] == pytest.approx(1.0)
    assert found["reward a slate", "b"] == pytest.approx(3.0)
    assert found["chance to leave after a slate", ""] == pytest.approx(1 / 3)
    assert found["slates an episode", ""] == pytest.approx(2.0)  # nobody leaves after one, all known after two
    assert found["return an episode", ""] == pytest.approx(1.5 + 1.5)


def test_open_loop_counts_what_both_have() -> None:
    ones = np.ones((1, 3), dtype=bool)
    left = np.array([[0, 0, 1]], dtype=bool)
    one = LoggedEpisodes(np.array([[1.0, 1.0, 1.0]]), ones, ones, left, np.zeros((1, 3), int))
    short = replace(one, alive=np.array([[1, 1, 0]], dtype=bool), reward=np.array([[2.0, 2.0, 0.0]]))
    first, second = in_both(one, short)
    assert first.reward.tolist() == [[1, 1, 0]]
    assert second.reward.tolist() == [[2, 2, 0]]
    assert not first.left.any()


def test_users_stand_as_they_stood_before_the_episode(world: World) -> None:
    """One user: consumed items 0 in the first session, 1 and 2 in the second; the second is replayed."""
    slates = Slates(
        offsets=np.concatenate([[0], np.full(USERS, 3)]).astype(np.int64),
        items=np.array([[0, 5], [1, 6], [2, 7]]),
        answers=np.array([[[1, 4], [0, 0]], [[1, 3], [0, 0]], [[1, 2], [0, 0]]], dtype=np.float32),
        given=np.ones((3, 2, 2), dtype=bool),
        consumed_before=np.array([0, 1, 2]),
        session=np.array([0, 1, 1]),
        left=np.array([1, 0, 1], dtype=np.int8),
    )
    feedback = np.array([[1, 4], [1, 3], [1, 2]], dtype=np.float32)
    offsets = np.concatenate([[0], np.full(USERS, 3)]).astype(np.int64)
    log = Sequences(80, offsets, np.array([0, 1, 2]), feedback, feedback > 0, slates)
    drawn = {int(choose_episodes(slates, np.array([0]), 5, 20, False, seed).first[0]) for seed in range(20)}
    assert drawn == {0, 1}
    seed = next(s for s in range(20) if choose_episodes(slates, np.array([0]), 5, 20, False, s).first[0] == 1)
    starts = choose_episodes(slates, np.array([0]), 5, 20, False, seed)
    assert starts.lengths.tolist() == [2]
    then = world_before(replace(world, consumes_twice=False), log, starts)
    assert then.users.history[0, -2:].tolist() == [80, 0]
    assert then.users.shown[0, -2:].tolist() == [[80, 80], [0, 5]]
    assert then.users.answers[0, -1, :, 1].tolist() == [4, 0]
    core = Core(then, "truth", batch=1, users=[0], slate_size=2)
    assert core.past.seen is not None
    assert set(core.past.seen.listed()[0].tolist()) == {0}  # what comes later may still be shown


def test_an_estimated_policy_shows_what_it_showed_in_like_situations() -> None:
    """Policy `echo` shows the item just consumed again, `fixed` always item 2; 40 users each, two slates of one."""
    users, n = 80, 3
    echo = np.arange(users) < 40
    first = np.where(echo, np.arange(users) % 2, 2)
    items = np.stack([first, first], axis=1).reshape(-1, 1)
    slates = Slates(
        offsets=np.arange(0, 2 * users + 1, 2),
        items=items,
        answers=np.ones((2 * users, 1, 1), dtype=np.float32),
        given=np.ones((2 * users, 1, 1), dtype=bool),
        consumed_before=np.tile([0, 1], users),
        session=np.zeros(2 * users, dtype=np.int64),
        left=np.zeros(2 * users, dtype=np.int8),
        policy=np.repeat(np.where(echo, 0, 1), 2),
    )
    ones = np.ones((2 * users, 1), dtype=np.float32)
    log = Sequences(n, slates.offsets, items[:, 0], ones, ones > 0, slates, ("echo", "fixed"))
    vectors = torch.cat([torch.eye(n), torch.zeros(1, n)])
    kinds = np.array([[0], [0], [1]])
    policy = EstimatedPolicies(log, np.arange(users), vectors, kinds, shown=1, seed=0)
    consumed = torch.tensor([[0], [1], [0]])
    history = torch.cat([torch.full((3, 9), n), consumed], dim=1)
    lane = torch.arange(3)
    picked = policy({"history": history, "shown": consumed.unsqueeze(1)}, None, Draw.at(0, lane, lane, lane))
    assert picked.slate.tolist() == [[0], [1], [2]]
    assert picked.policy is not None
    assert picked.policy.tolist() == ["echo", "echo", "fixed"]
    with pytest.raises(RecloopError, match="does not name them"):
        EstimatedPolicies(replace(log, slates=None), np.arange(users), vectors, kinds, shown=1, seed=0)
