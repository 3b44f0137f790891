"""Fitted users: what was planted is found, what was assumed is said, and nothing but the users asked for is read."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.base.errors import UserSimulatorError
from recloop.encoders.base.manifest import Manifest
from recloop.encoders.base.storage import read_json, read_tensors, write_json, write_tensors
from recloop.envs.interaction.response import Past, Response
from recloop.envs.logs.sequences import Sequences
from recloop.envs.users.checks import check_users
from recloop.envs.users.fitted import AssumedLeaving, FitConfig, FitReport, fit_users
from recloop.envs.users.fitted.answering import FittedUsers
from recloop.envs.users.fitted.felt.fit import FELT
from recloop.envs.users.fitted.fitting.fit import FAMILIES
from recloop.envs.users.fitted.heads import ENDED, SESSION
from recloop.envs.users.fitted.neural import NeuralUsers
from recloop.envs.users.registry import KINDS, load_simulator, save_simulator
from tests.envs.users.conftest import QUICK, Case, consumption_log, draws, past_at_arrival, slate_log, world_of

Fitted = tuple[FittedUsers, FitReport]


def fitted(family: str, case: Case, rows: np.ndarray | None = None, config: FitConfig = QUICK) -> Fitted:
    users, report = fit_users(
        family,  # type: ignore[arg-type]
        case.sequences,
        case.rows if rows is None else rows,
        case.vectors,
        case.profile,
        case.signals,
        groups=case.groups,
        config=config,
    )
    assert isinstance(users, FittedUsers)
    return users, report


@cache
def fitted_on(kind: str, family: str) -> tuple[FittedUsers, FitReport, Case]:
    """Fitted once for all tests."""
    if kind == "consumption":
        case = consumption_log()
        return *fitted(family, case, config=replace(QUICK, epochs=14)), case
    case = slate_log(users=220, bored=0.2)
    return *fitted(family, case, config=replace(QUICK, epochs=12, patience=12)), case


@pytest.fixture(params=sorted(FAMILIES))
def on_consumption(request: pytest.FixtureRequest) -> Fitted:
    return fitted_on("consumption", request.param)[:2]


@pytest.fixture(params=sorted(FAMILIES))
def on_slates(request: pytest.FixtureRequest) -> Fitted:
    return fitted_on("slates", request.param)[:2]


@pytest.fixture(params=[(kind, family) for kind in ("consumption", "slates") for family in sorted(FAMILIES)])
def any_fitted(request: pytest.FixtureRequest) -> tuple[FittedUsers, Case]:
    users, _, case = fitted_on(*request.param)
    return users, case


def random_slates(lanes: int, k: int, items: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(items, generator=generator)[:k] for _ in range(lanes)])


def after(past: Past, slate: Tensor, response: Response, empty: int) -> Past:
    """The past after a slate, lane by lane in plain Python."""
    history, feedback = past.history.clone(), past.feedback.clone()
    for lane in range(len(slate)):
        for place in range(slate.shape[1]):
            if response.signals[lane, place, 0] > 0.5 and slate[lane, place] < empty:
                history[lane] = torch.cat([history[lane, 1:], slate[lane, place : place + 1]])
                feedback[lane] = torch.cat([feedback[lane, 1:], response.signals[lane, place : place + 1]])
    return replace(
        past,
        history=history,
        feedback=feedback,
        shown=torch.cat([past.shown[:, 1:], slate.unsqueeze(1)], dim=1),
        answers=torch.cat([past.answers[:, 1:], response.signals.unsqueeze(1)], dim=1),
        step=past.step + 1,
    )


def test_every_family_is_under_test_and_can_be_stored() -> None:
    for name, family in FAMILIES.items():
        assert family.kind == name
        assert KINDS[name].endswith(f":{family.__name__}")


class TestWithoutExposures:
    def test_a_planted_taste_is_found(self, on_consumption: Fitted, consumption: Case) -> None:
        users, report = on_consumption
        figures = report.figures["consume"]
        assert figures["auc"] > 0.65 > figures["auc_base"] + 0.05
        assert report.figures["rating"]["rmse"] < 0.75 * report.figures["rating"]["rmse_base"]
        world = world_of(consumption)
        users.prepare(world, "cpu")
        everyone = torch.from_numpy(consumption.rows)
        wanted = users.utility(users.arrive(everyone, draws(90)), past_at_arrival(world, everyone), torch.arange(36))
        best = wanted.topk(4, dim=1).indices.numpy() % 3
        assert (best == consumption.taste[:, None]).mean() > 0.7  # by chance 0.33

    def test_the_assumed_base_rate_is_met_and_said(self, on_consumption: Fitted, consumption: Case) -> None:
        users, report = on_consumption
        assert report.figures["consume"]["calibration_error"] < 0.08
        world = world_of(consumption)
        users.prepare(world, "cpu")
        everyone = torch.from_numpy(consumption.rows)
        state, past = users.arrive(everyone, draws(90)), past_at_arrival(world, everyone)
        chance = torch.sigmoid(users.utility(state, past, torch.arange(36)))
        shown = torch.from_numpy(consumption.sequences.popularity(consumption.rows) + 1).sqrt().repeat(90, 1)
        shown[(past.history.unsqueeze(2) == torch.arange(36)).any(1)] = 0  # consumed: not shown again
        assert float((chance * shown).sum() / shown.sum()) == pytest.approx(0.1, abs=0.05)
        said = " ".join(report.assumed)
        for fact in ("power of 0.5", "probability 0.1", "Leaving is assumed, not learned: 5%", "15%", "no effect"):
            assert fact in said
        assert "rating" not in said  # it was always given

    def test_nothing_happens_where_nothing_is_consumed(self, on_consumption: Fitted, consumption: Case) -> None:
        users, _ = on_consumption
        users.prepare(world_of(consumption), "cpu")
        state = users.arrive(torch.arange(4), draws(4))
        after = users.observe(state, torch.tensor([[0, 1, 36]]).expand(4, -1), torch.zeros(4, 3, 2))
        assert torch.equal(after.steps, state.steps + 1)
        kept = {name: value for name, value in vars(state).items() if name != "steps" and value is not None}
        assert all(torch.equal(getattr(after, name), value) for name, value in kept.items())

    def test_assumed_leaving_is_drawn_as_stated(self, on_consumption: Fitted, consumption: Case) -> None:
        users, _ = on_consumption
        assert users.leaving == AssumedLeaving(0.05, 0.15)
        users.prepare(world_of(consumption), "cpu")
        lanes = torch.arange(3000)
        state, past = users.arrive(lanes % 90, draws(3000)), past_at_arrival(world_of(consumption), lanes % 90)
        slate = random_slates(3000, 3, 36)
        _, response = users.respond(state, past, slate, draws(3000))
        consumed = (response.signals[..., 0] > 0.5).any(1)
        assert float(response.left[consumed].float().mean()) == pytest.approx(0.05, abs=0.025)
        assert float(response.left[~consumed].float().mean()) == pytest.approx(0.15, abs=0.025)
        expected = users.expected(state, past, slate)
        assert expected.leave is not None
        assert float(expected.leave.mean()) == pytest.approx(float(response.left.float().mean()), abs=0.02)


class TestWithExposures:
    def test_taste_and_positions_are_found(self, on_slates: Fitted) -> None:
        users, report = on_slates
        assert report.figures["consume"]["auc"] > report.figures["consume"]["auc_base"] + 0.1
        assert report.figures["consume"]["log_likelihood"] > report.figures["consume"]["log_likelihood_base"]
        assert report.figures["consume"]["calibration_error"] < 0.08
        world = world_of(slate_log(users=220, bored=0.2))
        users.prepare(world, "cpu")
        lanes = torch.arange(220)
        state, past = users.arrive(lanes, draws(220)), past_at_arrival(world, lanes)
        slate = random_slates(220, 3, 36)
        first, last = users.expected(state, past, slate), users.expected(state, past, slate.flip(1))
        assert float(last.mean[:, 2, 0].mean()) < 0.8 * float(first.mean[:, 0, 0].mean())  # planted: half
        if not isinstance(users, NeuralUsers):
            return
        bias = users.heads.position_bias(torch.arange(5))
        assert float(bias[0].abs().max()) == 0  # the first place is the measure
        assert float(bias[1, 0]) < -0.4
        assert float(bias[2, 0]) < -0.4
        assert torch.equal(bias[4], bias[2])  # a longer slate than the log's
        assert float(bias[:, 1].abs().max()) == 0  # how much was watched is given on consumption

    def test_how_much_was_watched_is_found(self, on_slates: Fitted) -> None:
        figures = on_slates[1].figures["watched"]
        assert figures["rmse"] < figures["rmse_base"]
        assert figures["log_likelihood"] > figures["log_likelihood_base"]

    def test_boredom_is_felt(self, on_slates: Fitted) -> None:
        """Planted: what the last slate held of one's taste leaves a fifth of the appetite for more of it."""
        users, _ = on_slates
        slates = slate_log(users=220, bored=0.2)
        world = world_of(slates)
        users.prepare(world, "cpu")
        everyone = torch.from_numpy(slates.rows)
        state, past = users.arrive(everyone, draws(220)), past_at_arrival(world, everyone)
        taste = torch.from_numpy(slates.taste)
        liked = torch.stack([taste, taste + 3, taste + 6], dim=1)
        others = torch.stack([(taste + 1) % 3, (taste + 1) % 3 + 3, (taste + 1) % 3 + 6], dim=1)
        unseen = (taste + 9).unsqueeze(1)
        ignored = torch.zeros(220, 3, 2)
        tired, rested = users.observe(state, liked, ignored), users.observe(state, others, ignored)

        def shown(slate: Tensor) -> Past:
            return replace(past, shown=torch.cat([past.shown[:, 1:], slate.unsqueeze(1)], dim=1))

        drop = users.utility(rested, shown(others), unseen) - users.utility(tired, shown(liked), unseen)
        assert float(drop.mean()) > 0.1  # so short a fit gives 0.2 to 1.4 by its seed

    def test_what_the_log_holds_is_not_assumed(self, on_slates: Fitted) -> None:
        assert not any("shown" in sentence for sentence in on_slates[1].assumed)
        assert any("Nobody is known to have left" in sentence for sentence in on_slates[1].assumed)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_leaving_is_a_hazard_with_cut_ends_censored(family: str) -> None:
    """Users leave at 2 in 100 after something was consumed, at 10 in 100 else; sessions are cut after 20 slates.

    About one session in three reaches the cut: were it taken for leaving, half of those there would leave.
    """
    case = slate_log(users=90, slates=60, cut=20, leave=lambda step, consumed: 0.02 if consumed else 0.1)
    users, report = fitted(family, case, config=replace(QUICK, epochs=6, window=30))
    assert users.leaving is None
    assert report.figures["leave"]["auc"] > 0.55
    assert not any("Leaving" in sentence for sentence in report.assumed)
    world = world_of(case)
    users.prepare(world, "cpu")
    lanes = torch.arange(3000)
    state, past = users.arrive(lanes % 90, draws(3000)), past_at_arrival(world, lanes % 90)
    late = replace(state, steps=torch.full_like(state.steps, 19.0))  # where the log's sessions are cut
    _, response = users.respond(late, past, random_slates(3000, 3, 36), draws(3000))
    consumed = (response.signals[..., 0] > 0.5).any(1)
    assert float(response.left[consumed].float().mean()) == pytest.approx(0.02, abs=0.03)
    few = 0.1 if family in FELT else 0.07  # these read the slate's number, and few sessions are this long
    assert float(response.left[~consumed].float().mean()) == pytest.approx(0.1, abs=few)


def test_they_keep_the_contract(any_fitted: tuple[FittedUsers, Case]) -> None:
    users, case = any_fitted
    check_users(users, world_of(case))


def test_infer_follows_what_observe_follows(any_fitted: tuple[FittedUsers, Case]) -> None:
    """Three slates in, the state guessed from the past is the state that went through them."""
    users, case = any_fitted
    world = world_of(case, history=20, shown=3)
    users.prepare(world, "cpu")
    lanes = torch.arange(30)
    # No slates are remembered at the start: a window of three holds just those of the episode.
    past = replace(past_at_arrival(world, lanes), shown=torch.full((30, 3, 3), 36), answers=torch.zeros(30, 3, 3, 2))
    past = replace(past, history=torch.cat([torch.full((30, 12), 36), past.history[:, 12:]], dim=1))
    state = users.infer(past, case.profile[lanes])
    for step in range(3):
        slate = random_slates(30, 3, 36, seed=step)
        state, response = users.respond(state, past, slate, draws(30, step))
        past = after(past, slate, response, empty=36)
    guess = users.infer(past, case.profile[lanes])
    for name, value in vars(state).items():
        drawn = name in ("person", "known")  # what a user draws on answering, nobody can infer
        assert drawn or value is None or torch.allclose(getattr(guess, name), value, atol=1e-5), name


def test_they_answer_alike_from_the_disk(any_fitted: tuple[FittedUsers, Case], tmp_path: Path) -> None:
    users, case = any_fitted
    save_simulator(users, tmp_path)
    loaded = load_simulator(tmp_path)
    world, lanes = world_of(case), torch.arange(40)
    answers: list[Any] = []
    for one in (users, loaded):
        one.prepare(world, "cpu")
        past, slate = past_at_arrival(world, lanes), random_slates(40, 3, 36)
        answers.append(one.respond(one.arrive(lanes, draws(40)), past, slate, draws(40))[1])
    assert torch.equal(answers[0].signals, answers[1].signals)
    assert torch.equal(answers[0].left, answers[1].left)


@pytest.mark.parametrize("name", ["catalogue_size", "item_dim"])
def test_sizes_that_nothing_stored_has_are_refused_before_memory_is_asked_for(
    on_consumption: Fitted, tmp_path: Path, name: str
) -> None:
    save_simulator(on_consumption[0], tmp_path)
    facts = read_json(tmp_path / "users.json")
    write_json(tmp_path / "users.json", {**facts, "sizes": {**facts["sizes"], name: 10**11}})
    Manifest.of(tmp_path).write(tmp_path)
    asked_for = r"users\.safetensors does not fit: its sizes ask for far more than the [\d,]+ bytes that are stored"
    with pytest.raises(UserSimulatorError, match=asked_for):
        load_simulator(tmp_path)


def test_users_of_format_2_leave_as_they_did(tmp_path: Path) -> None:
    """Their leaving read neither the session nor a hidden layer."""
    users, case = fitted_on("slates", "factor")[0], slate_log(users=220, bored=0.2)
    save_simulator(users, tmp_path)
    tensors, facts = read_tensors(tmp_path / "users.safetensors"), read_json(tmp_path / "users.json")
    for name in ("heads.spent.weight", "heads.ended.weight", "heads.ended.bias"):
        del tensors[name]
    read = tensors["heads.leave.weight"].shape[1] - SESSION - ENDED
    for name in ("heads.leave.weight", "heads.gap.weight"):
        tensors[name] = tensors[name][:, :read].contiguous()
    write_tensors(tmp_path / "users.safetensors", tensors)
    write_json(tmp_path / "users.json", {**facts, "format": 2})
    Manifest.of(tmp_path).write(tmp_path)
    loaded = load_simulator(tmp_path)
    assert isinstance(loaded, NeuralUsers)
    told = torch.zeros(1, read), torch.zeros(1, 0), torch.ones(1, SESSION - 1)
    old = float(tensors["heads.leave.bias"])
    assert float(loaded.heads.leave_logit(loaded.heads.read_ended(*told))) == pytest.approx(old)
    loaded.prepare(world_of(case), "cpu")


def changed(case: Case, user: int) -> Case:
    """The same log, but one user consumed other things and rated them otherwise."""
    old = case.sequences
    begin, end = old.offsets[user : user + 2]
    items, feedback = old.items.copy(), old.feedback.copy()
    items[begin:end] = (items[begin:end] + 7) % 36
    feedback[begin:end, 1] = 6 - feedback[begin:end, 1]
    new = Sequences(old.catalogue_size, old.offsets, items, feedback, old.given, old.slates)
    return replace(case, sequences=new)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_fit_reads_only_the_users_asked_for_and_repeats_itself(family: str) -> None:
    case, rows = consumption_log(users=36), np.arange(20)
    config = replace(QUICK, epochs=2)
    weights = fitted(family, case, rows, config)[0].parts().state_dict()
    again, report = fitted(family, changed(case, user=21), rows, config)
    for name, weight in again.parts().state_dict().items():
        assert torch.equal(weight, weights[name]), name
    other = fitted(family, changed(case, user=11), rows, config)[0].parts().state_dict()
    assert any(not torch.equal(weight, weights[name]) for name, weight in other.items())
    assert report.users + report.held_out == 20


def test_no_global_generator_is_touched(consumption: Case) -> None:
    before = torch.get_rng_state()
    fitted("recurrent", consumption, np.arange(10), replace(QUICK, epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_few_users_are_fitted_and_the_report_says_so(consumption: Case) -> None:
    _, report = fitted("factor", consumption, np.array([3]), replace(QUICK, epochs=1))
    assert (report.users, report.held_out) == (1, 0)
    assert "no evidence" in report.learned[0]


def test_repeated_consumption_is_learned_where_the_log_has_it() -> None:
    users, _ = fitted("factor", consumption_log(users=30, again=True), config=replace(QUICK, epochs=2))
    assert users.sizes.repeats
    world = world_of(consumption_log(users=30, again=True))
    users.prepare(world, "cpu")
    lanes = torch.arange(8)
    state, past = users.arrive(lanes, draws(8)), past_at_arrival(world, lanes)
    items = torch.arange(36)
    shared, each = users.utility(state, past, items), users.utility(state, past, items.expand(8, -1))
    assert torch.allclose(shared, each, atol=1e-5)
    weight = float(users.memory.again[0]) * float(users.heads.scale[0])
    blank = replace(past, history=torch.full_like(past.history, 36))
    consumed = (past.history.unsqueeze(2) == items).any(1)
    moved = shared - users.utility(state, blank, items)
    assert torch.allclose(moved, consumed * weight, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "recurent"}, "did you mean 'recurrent'"),
        ({"rows": np.array([], dtype=np.int64)}, "none of the 0 users"),
        ({"rows": np.array([99])}, "the log has users 0 to 89"),
        ({"item_vectors": torch.zeros(36, 8)}, r"needs \(37, d\)"),
        ({"item_vectors": torch.full((37, 8), torch.nan)}, "NaN"),
        ({"profile": torch.zeros(3, 2)}, r"90 users need \(90, p\)"),
        ({"signals": ()}, "0 signals are named"),
    ],
)
def test_bad_input_is_named(consumption: Case, change: dict[str, Any], message: str) -> None:
    arguments = {
        "family": "factor",
        "sequences": consumption.sequences,
        "rows": consumption.rows,
        "item_vectors": consumption.vectors,
        "profile": consumption.profile,
        "signals": consumption.signals,
    }
    with pytest.raises(UserSimulatorError, match=message):
        fit_users(**{**arguments, **change})


def test_bad_settings_are_named(consumption: Case, on_consumption: Fitted, tmp_path: Path) -> None:
    with pytest.raises(UserSimulatorError, match=r"satisfied=1\.5 is no probability"):
        AssumedLeaving(satisfied=1.5)
    with pytest.raises(UserSimulatorError, match="base_rate=0 "):
        FitConfig(base_rate=0)
    users, _ = on_consumption
    other = replace(consumption, vectors=torch.zeros(9, 8))
    with pytest.raises(UserSimulatorError, match=r"are \(9, 8\), these users were fitted on \(37, 8\)"):
        users.prepare(world_of(other), "cpu")
    save_simulator(users, tmp_path)
    with pytest.raises(UserSimulatorError, match="is not prepared"):
        load_simulator(tmp_path).arrive(torch.arange(2), draws(2))
