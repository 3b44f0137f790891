"""The one rule for claims, on comparisons and evidence written down by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from recloop.envs.evidence.gates import GATES, gate_outcomes
from recloop.envs.evidence.replay import GateLine, GateReport
from recloop.envs.evidence.support.bracket import Bracket, bracket_of
from recloop.envs.evidence.verdict import GateOutcome, Verdict
from recloop.envs.world.world import World
from recloop.experiments.comparison.claims import (
    Claim,
    ClaimCount,
    ClaimRules,
    Evidence,
    Level,
    Witness,
    claims_from,
    claims_of,
    claims_over,
    count,
)
from recloop.experiments.comparison.evaluate import Rollout
from recloop.experiments.comparison.results import Comparison, Entry


def made_up(values: list[float], member: list[int] | None = None) -> Rollout:
    """A rollout in which only users and returns matter."""
    b = len(values)
    zeros = np.zeros(b)
    none = np.zeros((1, 1), dtype=np.int64)
    return Rollout(
        users=np.arange(b),
        value=np.array(values, dtype=np.float64),
        length=np.ones(b, dtype=np.int64),
        left=np.zeros(b, dtype=bool),
        signals=np.zeros((b, 2)),
        invalid=np.zeros(b, dtype=np.int64),
        popularity=zeros,
        diversity=zeros,
        shown=np.ones(40, dtype=np.int64),
        trace_history=none[0],
        trace_slate=none,
        trace_signals=np.zeros((1, 1, 2)),
        trace_given=np.zeros((1, 1, 2), dtype=bool),
        trace_state=np.zeros((1, 1), dtype=np.float32),
        member=None if member is None else np.array(member),
    )


def comparison_of(
    world: World, values: dict[str, dict[str, list[list[float]]]], retrained: tuple[str, ...] = ()
) -> Comparison:
    """values: policy -> simulator -> one list of returns a seed."""
    first = next(iter(values.values()))
    simulators = tuple(first)
    seeds = tuple(range(len(first[simulators[0]])))
    return Comparison(
        world=world,
        contenders=tuple(Entry(name, name, name in retrained) for name in values),
        seeds=seeds,
        simulators=simulators,
        reference=next(iter(values)),
        rollouts={
            (name, seed, simulator): made_up(by_seed[seed])
            for name, by_simulator in values.items()
            for simulator, by_seed in by_simulator.items()
            for seed in seeds
        },
    )


GOOD, BAD, SAME = [5.0, 6.0, 7.0, 6.5], [1.0, 2.1, 3.0, 2.4], [1.1, 2.0, 2.9, 2.6]
USERS = 400


def only(claims: tuple[Claim, ...]) -> Claim:
    assert len(claims) == 1
    return claims[0]


def with_gates(world: World, **verdicts: str) -> World:
    """The world with the replay gates of these simulators on its card, judge_2 for judge-2."""
    figures = {}
    for name, verdict in verdicts.items():
        line = GateLine("reward a slate", "", 1.0, 1.0, 0.0, 0.1, Verdict(verdict), "")
        report = GateReport(name.replace("_", "-"), "closed loop", 100, (line,), "")
        figures[report.simulator] = json.loads(json.dumps(report.as_dict()))
    return replace(world, card=replace(world.card, figures={GATES: figures}))


def pair(world: World, a: list[float], b: list[float], seeds: int = 1, judges: int = 2) -> Comparison:
    """Policies a and b, of the same worth to everybody."""
    simulators = ("train", "judge", "judge-2")[: 1 + judges]
    return comparison_of(world, {"a": {s: [a] * seeds for s in simulators}, "b": {s: [b] * seeds for s in simulators}})


def passed(world: World) -> World:
    return with_gates(world, train="passed", judge="passed", judge_2="passed")


def test_across_judges_where_all_agree_and_every_gate_passed(judged: World) -> None:
    claim = only(claims_of(pair(passed(judged), BAD, GOOD)))
    assert (claim.better, claim.worse, claim.level, claim.settle) == ("b", "a", Level.across_judges, "")
    assert claim.differences["judge"].mean == pytest.approx(np.mean(GOOD) - np.mean(BAD))
    assert claim.text == "b beats a: across judges, 1 seed."


@pytest.mark.parametrize("verdict", ["failed", "cannot tell"])
@pytest.mark.parametrize("simulator", ["train", "judge", "judge_2"])
def test_a_gate_that_did_not_pass_takes_the_level_away_and_is_named(
    judged: World, simulator: str, verdict: str
) -> None:
    verdicts = {**dict.fromkeys(("train", "judge", "judge_2"), "passed"), simulator: verdict}
    claim = only(claims_of(pair(with_gates(judged, **verdicts), BAD, GOOD)))
    assert claim.level is Level.this_policy
    said = f"the replay gate {verdict} in {simulator.replace('_', '-')}"
    assert claim.text == f"b beats a: this trained policy in this world, 1 seed; not across judges: {said}."


def test_gates_that_nobody_ran_and_a_single_judge_are_named_too(judged: World) -> None:
    claim = only(claims_of(pair(judged, BAD, GOOD)))
    assert claim.level is Level.this_policy
    assert len(claim.held_back) == 3
    alone = only(claims_of(pair(passed(judged), BAD, GOOD, judges=1)))
    assert alone.level is Level.this_policy
    assert alone.held_back == ("1 of the 2 judges it takes",)


def test_a_gate_from_before_there_were_three_outcomes_cannot_tell(judged: World) -> None:
    line = {"measure": "reward a slate", "policy": "", "logged": 1, "simulated": 1, "error": 0, "margin": 9}
    facts = {"simulator": "train", "mode": "closed loop", "users": 9, "sentence": "", "passed": True}
    for was, is_ in ((True, Verdict.cannot_tell), (False, Verdict.failed)):
        figures = {GATES: {"train": {**facts, "lines": [{**line, "passed": was, "reason": ""}]}}}
        card = replace(judged.card, figures=figures)
        assert [gate.verdict for gate in gate_outcomes(card, ("train", "judge"))] == [is_, Verdict.cannot_tell]


@pytest.mark.parametrize(("seeds", "level"), [(1, Level.this_policy), (2, Level.this_policy), (3, Level.this_method)])
def test_seeds_tell_a_trained_policy_from_its_method(judged: World, seeds: int, level: Level) -> None:
    claim = only(claims_of(pair(judged, BAD, GOOD, seeds)))
    assert (claim.level, claim.seeds) == (level, seeds)
    assert f"{level}, {seeds} seed" in claim.text


def test_nothing_is_claimed_where_a_judge_is_silent_or_contrary(judged: World) -> None:
    world = passed(judged)
    silent = {"a": {"train": [GOOD], "judge": [BAD]}, "b": {"train": [BAD], "judge": [SAME]}}
    claim = only(claims_of(comparison_of(world, silent)))
    assert (claim.level, claim.against) == (None, "the difference may be chance in judge")
    assert "evaluation users instead of 4" in claim.settle
    contrary = {"a": {"train": [GOOD], "judge": [BAD]}, "b": {"train": [BAD], "judge": [GOOD]}}
    claim = only(claims_of(comparison_of(world, contrary)))
    assert (claim.better, claim.level) == ("b", None)  # as the judges have it
    assert claim.text == "Nothing is claimed of b and a: train say the opposite."


def test_a_truth_world_has_no_judges_to_reach_across(truth: World) -> None:
    claim = only(claims_of(comparison_of(truth, {"a": {"truth": [GOOD]}, "b": {"truth": [BAD]}})))
    assert (claim.better, claim.level, claim.held_back) == ("a", Level.this_policy, ())


def test_no_order_is_claimed_where_none_is_known(truth: World) -> None:
    claim = only(claims_of(comparison_of(truth, {"a": {"truth": [BAD]}, "b": {"truth": [SAME]}})))
    assert claim.level is None
    assert claim.text == "Nothing is claimed of b and a: the difference may be chance in truth."
    assert "evaluation users instead of 4" in claim.settle
    equal = only(claims_of(comparison_of(truth, {"a": {"truth": [BAD]}, "b": {"truth": [BAD]}})))
    assert equal.level is None
    assert "nothing to settle" in equal.settle


def test_seeds_that_disagree_settle_nothing_for_a_retrained_policy(truth: World) -> None:
    low, high = [1.0, 1.1, 0.9, 1.0], [9.0, 9.1, 9.2, 8.9]
    middle = [4.0, 4.1, 3.9, 4.0]
    values = {"base": {"truth": [middle, middle]}, "agent": {"truth": [low, high]}}
    turning = only(claims_of(comparison_of(truth, values, ("agent",))))
    assert turning.level is None
    assert "training seed" in turning.settle
    assert only(claims_of(comparison_of(truth, values))).level is Level.this_policy


def trained(means: list[float], spread: float, seeds: int = 10, seed: int = 0) -> Evidence:
    """Ten trainings of each policy before 60 users, looked at after 3, 5, 8 and 10."""
    rng = np.random.default_rng(seed)
    quality = np.array(means) + spread * rng.normal(size=(seeds, len(means)))
    values = quality[..., None] + rng.normal(size=60) + 0.5 * rng.normal(size=(seeds, len(means), 60))
    return Evidence(
        ("good", "fair", "poor")[: len(means)],
        Witness("truth", values),
        retrained=(True,) * len(means),
        written_down=True,
        looks=(3, 5, 8, 10),
    )


def first(evidence: Evidence, seeds: int) -> Evidence:
    return replace(evidence, training=Witness("truth", evidence.training.values[:seeds]))


def test_the_error_is_spent_over_the_looks_and_between_them_nothing_is() -> None:
    whole = trained([10.0, 5.0], 0.1)
    shares = [first(whole, n).spent for n in (3, 5, 8, 10)]
    assert shares == pytest.approx([0.3, 0.2, 0.3, 0.2])
    assert first(whole, 4).spent == 0
    between = only(claims_from(first(whole, 4)))
    assert between.against == "claims are looked at after 3, 5, 8, 10 seeds, and there are 4"
    once = replace(first(whole, 3), looks=())
    at_look, fixed = (only(claims_from(e)) for e in (first(whole, 3), once))
    assert (at_look.level, fixed.level) == (Level.this_method, Level.this_method)
    assert at_look.p["truth"] > fixed.p["truth"], "the test asks the seeds too, and spends a share"


def test_trainings_of_one_sign_by_luck_bring_no_claim_of_the_method() -> None:
    """Of three fixed seeds it is claimed that these trained policies differ, as they do; at a look nothing is."""
    lucky = next(e for e in (trained([10.0, 10.0], 1.0, seed=s) for s in range(50)) if same_sign(first(e, 3)))
    fixed, at_look = (only(claims_from(e)) for e in (replace(first(lucky, 3), looks=()), first(lucky, 3)))
    assert fixed.level is Level.this_policy
    assert fixed.text.endswith("3 seeds; not of the method: over trainings the difference may be chance in truth.")
    untrained = only(claims_from(replace(first(lucky, 3), looks=(), retrained=(False, False))))
    assert untrained.level is Level.this_method
    two = only(claims_from(replace(first(trained([10.0, 5.0], 0.1), 2), looks=())))
    assert (two.level, two.of_training) == (Level.this_policy, "that takes 3 training seeds or more")
    assert (at_look.level, at_look.waits) == (None, True)
    assert "training seeds instead of 3" in at_look.settle
    assert "(--seeds 3:" in at_look.settle


def same_sign(evidence: Evidence) -> bool:
    differences = evidence.training.values.mean(2) @ [1.0, -1.0]
    return bool(abs(np.sign(differences).sum()) == len(differences) and abs(differences.mean()) > 1)


def test_a_claim_once_made_stays_and_others_go_on() -> None:
    whole = trained([10.0, 5.0, 5.0], 0.5)
    looks = [claims_from(first(whole, n)) for n in (3, 5, 8, 10)]
    over = {frozenset((c.better, c.worse)): c for c in claims_over(looks)}
    at_first = {frozenset((c.better, c.worse)): c for c in looks[0]}
    pair, tie = frozenset(("good", "fair")), frozenset(("fair", "poor"))
    claimed = [any(c.made and {c.better, c.worse} == pair for c in look) for look in looks]
    assert over[pair].seeds == (3, 5, 8, 10)[claimed.index(True)]
    assert not over[tie].made
    assert over[tie].seeds == 10
    assert not at_first[pair].made or over[pair] == at_first[pair]


def test_nothing_waits_for_seeds_that_cannot_decide_it() -> None:
    within = trained([10.0, 10.1], 0.01)  # one hundredth apart, and trainings that hardly differ
    assert not only(claims_from(first(within, 5))).waits
    flagged = replace(first(trained([10.0, 5.0], 5.0), 3), brackets=(bracket(2, 4, "outside"), bracket(1, 3)))
    assert not only(claims_from(flagged)).waits
    untrained = replace(first(trained([10.0, 10.0], 1.0), 3), retrained=(False, False))
    assert not only(claims_from(untrained)).waits


def test_returns_that_are_no_numbers_are_named_and_leave_the_other_pairs_as_they_are() -> None:
    whole = replace(first(trained([10.0, 5.0, 1.0], 0.1), 3), looks=())
    values = whole.training.values.copy()
    values[1, 2, 7] = np.nan
    claims = {frozenset((c.better, c.worse)): c for c in claims_from(replace(whole, training=Witness("truth", values)))}
    assert claims[frozenset(("good", "fair"))].made
    assert claims[frozenset(("good", "poor"))].against == "returns of poor are not all numbers"


def test_many_pairs_need_stronger_evidence(truth: World) -> None:
    """A difference that one pair alone would claim (p = 0.03) is not claimed among many."""
    rng = np.random.default_rng(0)
    noise = {f"n{i}": {"truth": [list(rng.normal(0, 1, 12))]} for i in range(6)}
    a = rng.normal(0, 1, 12)
    step = np.array([0.5, 1.5, -0.4, 1.2, 0.1, 0.9, -0.6, 0.8, 1.0, -0.2, 0.7, 0.2])
    pair = {"a": {"truth": [list(a)]}, "b": {"truth": [list(a + step)]}}
    assert only(claims_of(comparison_of(truth, pair))).level is Level.this_policy
    among = [c for c in claims_of(comparison_of(truth, {**pair, **noise})) if {c.better, c.worse} == {"a", "b"}]
    assert among[0].level is None


def test_every_member_of_the_ensemble_is_asked_in_its_own_lanes(truth: World) -> None:
    """A hundred users in front of two members, one of whom sees no difference."""
    rng = np.random.default_rng(1)
    base, member = rng.normal(5, 1, 100), np.arange(100) % 2
    for lift, level in ((2 * member, None), (np.full(100, 1.0), Level.this_policy)):
        found = comparison_of(truth, {"a": {"truth": [list(base)]}, "b": {"truth": [list(base)]}})
        rollouts = {
            ("a", 0, "truth"): made_up(list(base), list(member)),
            ("b", 0, "truth"): made_up(list(base + lift + rng.normal(0, 0.01, 100)), list(member)),
        }
        claim = only(claims_of(replace(found, rollouts=rollouts)))
        assert claim.level is level
        assert (
            claim.made or claim.against == "the difference does not exceed the margin of 5% in truth (1 of 2 members)"
        )


def noisy(means: list[float], seed: int) -> np.ndarray:
    """(P, U) values around means; users share their luck, so that differences are nearly free of noise."""
    rng = np.random.default_rng(seed)
    return np.array(means)[:, None] + rng.normal(size=USERS) + 0.05 * rng.normal(size=(len(means), USERS))


def evidence(*judges: list[float], **changes: object) -> Evidence:
    """Three policies; the training users are as the first judge."""
    names = ["judge", *(f"judge-{n + 2}" for n in range(len(judges) - 1))]
    found = Evidence(
        policies=("good", "fair", "poor")[: len(judges[0])],
        training=Witness("train", noisy(judges[0], 0)[None]),
        judges=tuple(Witness(n, noisy(m, i + 1)[None]) for i, (n, m) in enumerate(zip(names, judges, strict=True))),
        gates=tuple(GateOutcome("replay gate", name, Verdict.passed) for name in ("train", *names)),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_what_reaches_furthest_comes_first() -> None:
    claims = claims_from(evidence([3.0, 2.0, 1.99], [3.0, 2.0, 1.99]))
    assert [c.level for c in claims] == [Level.across_judges, Level.across_judges, None]


def test_a_difference_within_the_margin_is_not_claimed() -> None:
    close = evidence([10.4, 10.0], [10.4, 10.0])  # 4 % of the larger value
    assert (
        only(claims_from(close)).against == "the difference does not exceed the margin of 5% in train, judge, judge-2"
    )
    assert only(claims_from(close, ClaimRules(margin=0.03))).level is Level.across_judges


def bracket(low: float, high: float, flag: str = "") -> Bracket:
    return Bracket((low + high) / 2, low, high, 0.0, flag)


def test_a_flagged_policy_has_no_claims() -> None:
    flags = (bracket(2, 4, "97% of its steps lie outside the log's support"), bracket(1, 3), bracket(0, 2))
    claims = claims_from(evidence([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], brackets=flags))
    assert {(c.better, c.worse): c.made for c in claims} == {
        ("fair", "poor"): True,
        ("good", "fair"): False,
        ("good", "poor"): False,
    }
    assert "flagged: good (97% of its steps" in claims[1].against


def test_outside_is_claimed_where_the_brackets_do_not_overlap_or_the_truth_says_so() -> None:
    apart = (bracket(2.5, 3.5), bracket(1.6, 2.4), bracket(0.5, 1.7))
    levels = {
        (c.better, c.worse): c.level for c in claims_from(evidence([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], brackets=apart))
    }
    assert levels["good", "fair"] is Level.outside
    assert levels["fair", "poor"] is Level.across_judges
    known = claims_from(evidence([3.0, 2.0], [3.0, 2.0], truth=noisy([2.0, 3.0], 9), brackets=apart[:2]))
    assert (only(known).level, only(known).truth) == (Level.across_judges, -1)
    assert "The truth says the opposite." in only(known).text
    assert only(claims_from(evidence([3.0, 2.0], [3.0, 2.0], truth=noisy([3.0, 2.0], 9)))).level is Level.outside


def test_a_policy_that_plans_on_the_training_users_model_carries_a_warning_and_a_wider_bracket() -> None:
    claims = claims_from(evidence([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], planning=(True, False, False)))
    assert {(c.better, c.worse): bool(c.warning) for c in claims} == {
        ("good", "fair"): True,
        ("good", "poor"): True,
        ("fair", "poor"): False,
    }
    assert claims[0].warning.startswith("good plans on a model of the training users")
    plain, planned = (bracket_of([4.0], [4.0], [4.0], [0.0], planning=plans) for plans in (False, True))
    assert planned.optimistic == plain.optimistic
    assert plain.pessimistic - planned.pessimistic == pytest.approx(1.0)


def test_claims_are_scored_over_all_pairs_ties_in_the_truth_too() -> None:
    """Good and fair tie in the truth, and poor is best in it: one claim is on a tie, two are the wrong way round."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(3, USERS)) + np.array([[0.05], [0.0], [5.0]])
    claims = claims_from(evidence([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], truth=truth))
    assert sorted(c.truth for c in claims if c.truth is not None) == [-1, -1, 0]
    assert count(claims) == ClaimCount(pairs=3, made=3, right=0, opposite=2)
    gates = (GateOutcome("replay gate", "train", Verdict.failed),)
    assert count(claims_from(evidence([3.0, 2.0, 1.0], truth=truth, gates=gates))) == ClaimCount(3, 0, 0, 0, in_world=3)


def test_claims_survive_json() -> None:
    claims = claims_from(evidence([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], truth=noisy([3.0, 2.0, 1.0], 4)))
    kept = json.loads(json.dumps([claim.as_dict() for claim in claims], allow_nan=False))
    assert kept[0]["level"] == "outside"
    assert kept[0]["text"] == claims[0].text
