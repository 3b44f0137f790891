"""Trees and networks on what users felt: what they add to the contract of all families, and what little logs tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.interaction.past import remember
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.users.checks import check_users
from recloop.envs.users.fitted import Family, FitReport, fit_users
from recloop.envs.users.fitted.felt.fit import FELT
from recloop.envs.users.fitted.felt.forest import BoostConfig, Forest, grown
from recloop.envs.users.fitted.felt.labelled import Labelled
from recloop.envs.users.fitted.felt.lasting import Lasting
from recloop.envs.users.fitted.felt.network import Network, trained
from recloop.envs.users.fitted.felt.users import FeltUsers, Model, TreeUsers
from recloop.envs.users.fitted.fitting.prepared import prepared
from recloop.envs.users.fitted.inputs.experience import Experience
from recloop.envs.users.fitted.inputs.groups import Groups
from recloop.envs.users.fitted.inputs.item_facts import PLACE, item_facts
from recloop.envs.users.fitted.inputs.tastes import drawn, posterior
from tests.envs.users.conftest import ITEMS, QUICK, Case, cold, draws, past_at_arrival, slate_log, world_of

BOTH = pytest.mark.parametrize("family", sorted(FELT))


def fitted(case: Case, family: Family = "trees") -> tuple[FeltUsers, FitReport]:
    users, report = fit_users(
        family, case.sequences, case.rows, case.vectors, case.profile, case.signals, groups=case.groups, config=QUICK
    )
    assert isinstance(users, FeltUsers)
    return users, report


def rows(count: int) -> Labelled:
    """A threshold in the second of three columns."""
    inputs = np.random.default_rng(0).random((count, 3)).astype(np.float32)
    return Labelled(inputs, (inputs[:, 1] > 0.7).astype(np.float32))


def model_on(count: int, family: str) -> Model:
    if family == "network":
        return trained(rows(count), rows(max(count // 4, 1)), "binary", 0)
    return grown(rows(count), rows(max(count // 4, 1)), "binary", BoostConfig(rounds=20), 0)


@BOTH
def test_models_come_back_from_their_tensors_and_score_alike(family: str) -> None:
    model, again = model_on(400, family), model_on(400, family)
    some = torch.from_numpy(rows(50).inputs)
    assert torch.equal(again.scores(some), model.scores(some))
    assert torch.equal(type(model).read(model.tensors()).scores(some), model.scores(some))
    np.testing.assert_allclose(model.of(rows(50).inputs), model.scores(some), atol=1e-5)
    assert float(model.scores(torch.tensor([[0.5, 0.9, 0.5], [0.5, 0.1, 0.5]])).diff()) < -1


def test_a_network_goes_on_where_the_log_ends() -> None:
    """A longer line than was seen rises still, up to four standard deviations."""
    inputs = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    line = Labelled(inputs, inputs[:, 0].copy())
    model = trained(line, line, "regression", 0)
    assert isinstance(model, Network)
    assert float(model.scores(torch.tensor([[2.5, 0.0], [3.9, 0.0]])).diff()) > 0.7


def test_broken_trees_are_refused_in_one_line() -> None:
    with pytest.raises(UserSimulatorError, match="stored trees cannot be read"):
        Forest(0.0, "tree\nno").scores(torch.zeros(1, 3))


@BOTH
def test_the_base_rate_where_there_is_little_to_learn_from(family: str) -> None:
    few, model = rows(20), model_on(20, family)
    assert not model.learned
    rate = (few.values.sum() + 0.5) / 21
    assert float(torch.sigmoid(model.scores(few_inputs := torch.from_numpy(few.inputs)))[0]) == pytest.approx(rate)
    assert len(few_inputs) == 20


@BOTH
def test_the_base_rate_where_no_input_varies(family: str) -> None:
    alike = Labelled(np.zeros((400, 2), dtype=np.float32), rows(400).values)
    model = (
        trained(alike, alike, "binary", 0) if family == "network" else grown(alike, alike, "binary", BoostConfig(), 0)
    )
    chance = torch.sigmoid(model.scores(torch.zeros(1, 2)))
    assert float(chance) == pytest.approx(alike.values.mean(), abs=0.02)


def sparse(case: Case, users: int, slates: int) -> Case:
    """The first slates of the first users, in a log without groups, positions or policies."""
    s = case.sequences
    assert s.slates is not None
    kept = s.subset(np.arange(users))
    old = kept.slates
    assert old is not None
    step = np.arange(len(old.items)) - np.repeat(old.offsets[:-1], np.diff(old.offsets))
    some = step < slates
    taken = old.answers[some][..., 0] > 0.5
    offsets = np.arange(users + 1) * slates
    arrays = {
        name: value[some][:, :1] if value.ndim > 1 else value[some]
        for name, value in old.arrays().items()
        if name != "offsets"
    }
    taken = taken[:, :1]
    owner = np.repeat(np.arange(users), slates)[taken[:, 0]]
    count = np.concatenate([[0], np.cumsum(taken[:, 0])])
    arrays["consumed_before"] = count[:-1] - count[offsets[:-1]].repeat(slates)
    sequences = Sequences(
        catalogue_size=s.catalogue_size,
        offsets=np.searchsorted(owner, np.arange(users + 1)).astype(np.int64),
        items=arrays["items"][taken],
        feedback=arrays["answers"][taken],
        given=arrays["given"][taken],
        slates=Slates(offsets=offsets, **arrays),
    )
    nothing = torch.zeros(s.catalogue_size + 1, 0, dtype=torch.int64)
    return Case(sequences, case.signals, case.vectors, case.profile[:users], case.taste[:users], nothing)


@BOTH
@pytest.mark.parametrize(("users", "slates"), [(9, 1), (3, 2), (40, 1)])
def test_small_logs_are_fitted_and_the_report_says_what_was_not_learned(
    users: int, slates: int, family: Family
) -> None:
    """One place a slate, no groups, one slate a user: nothing but base rates, said."""
    case = sparse(slate_log(users=60, slates=4), users, slates)
    found, report = fitted(case, family)
    said = " ".join(report.learned)
    assert "watched: too few answers to learn from; all get the base rate" in said
    check_users(found, world_of(case, k=1))


@BOTH
def test_the_report_tells_which_inputs_mattered(family: Family) -> None:
    """Planted: what the last slate held of one's taste leaves a fifth of the appetite for more of it."""
    _, report = fitted(slate_log(users=90, bored=0.2), family)
    assert max(report.inputs, key=report.inputs.__getitem__) in ("own groups", "online taste", "likeness to the diet")
    assert any("inputs by what is lost" in line for line in report.learned)


@pytest.mark.parametrize("family", ["network", "trees", "recurrent"])
def test_leaving_sees_what_was_consumed_in_the_session(family: Family) -> None:
    """Planted: whoever took two things in a session goes, whenever that was; nobody else does."""
    case = leaving_when_full(slate_log(users=90, slates=16))
    config = replace(QUICK, epochs=10, patience=10)
    _, report = fit_users(
        family, case.sequences, case.rows, case.vectors, case.profile, case.signals, groups=case.groups, config=config
    )
    assert report.figures["leave"]["auc"] > 0.9
    assert report.figures["leave"]["log_likelihood"] > 0.6 * report.figures["leave"]["log_likelihood_base"]


def leaving_when_full(case: Case) -> Case:
    """Sessions end with the slate in which a second thing is taken."""
    s = case.sequences
    assert s.slates is not None
    taken = (s.slates.answers[..., 0] > 0.5).sum(1)
    session, left = np.zeros_like(s.slates.session), np.zeros_like(s.slates.left)
    for begin, end in zip(s.slates.offsets[:-1], s.slates.offsets[1:], strict=True):
        number, count = 0, 0
        for row in range(begin, end):
            session[row] = number
            count += int(taken[row])
            if count >= 2:
                left[row], number, count = 1, number + 1, 0
    return replace(case, sequences=replace(s, slates=replace(s.slates, session=session, left=left)))


def test_a_signal_may_be_called_what_parts_of_users_are(tmp_path: Path) -> None:
    case = sparse(slate_log(users=60, slates=4), 9, 1)
    names = ("memory", "heads")
    signals = tuple(
        replace(signal, name=name, given_on=names[0] if signal.given_on else None)
        for signal, name in zip(case.signals, names, strict=True)
    )
    users, _ = fitted(replace(case, signals=signals))
    users.save(tmp_path / "users")
    assert type(users).load(tmp_path / "users").models == users.models


@BOTH
def test_a_folder_that_lacks_a_model_is_refused(family: Family, tmp_path: Path) -> None:
    users, _ = fitted(sparse(slate_log(users=60, slates=4), 9, 1), family)
    del users.models["watched"]
    users.save(tmp_path / "users")
    with pytest.raises(UserSimulatorError, match="lacks models of watched"):
        type(users).load(tmp_path / "users")


@BOTH
def test_a_user_stays_one_person(family: Family) -> None:
    """Of whom nothing is known, a taste is drawn with the first answer: it tells what is taken, and stays."""
    case = slate_log(users=150)
    users, report = fitted(case, family)
    assert any("each keeps one taste" in line for line in report.learned)
    world = world_of(cold(case))
    users.prepare(world, "cpu")
    lanes = torch.arange(600) % 150
    begin, past = users.arrive(lanes, draws(600)), past_at_arrival(world, lanes)
    slate = torch.tensor([0, 3, 6]).expand(600, -1)
    state, persons, taken = begin, [], []
    for step in range(5):
        state, response = users.respond(state, past, slate, draws(600, step))
        consumed = torch.where(response.signals[..., 0] > 0.5, slate, ITEMS)
        past = remember(past, slate, consumed, response.signals, ITEMS)
        taken.append((response.signals[..., 0] > 0.5).float().mean(1))
        persons.append(state.person)
    assert all(torch.equal(person, persons[0]) for person in persons)
    other, _ = users.respond(begin, past_at_arrival(world, lanes), slate + 1, draws(600))
    assert torch.equal(other.person, persons[0])  # whatever is shown to them, they are the same
    place = torch.cat([torch.ones(3, 1), users._read_columns[slate[0], :PLACE]], dim=1)
    order = (persons[0] @ place.mean(0)).argsort()  # from who should like the slate least
    first = taken[0][order]
    assert float(first[400:].mean()) > 1.2 * float(first[:200].mean())


def test_what_tastes_people_have_is_learned_from_all() -> None:
    """Planted: tastes are normal, with a mean and a covariance that come back; so do single tastes."""
    case = slate_log(users=400, slates=20)
    told = prepared(case.sequences, case.rows, case.vectors, case.profile, case.signals, case.groups, QUICK, None)
    groups = Groups(ITEMS, told.sizes.groups)
    groups.fill(case.groups)
    facts = item_facts(case.vectors, case.sequences, case.rows, case.signals, 0.1)
    memory = Experience(case.signals, told.sizes, groups, facts)
    columns = memory.columns(case.vectors)
    lasting = Lasting(memory, case.sequences, case.rows, columns)
    lasting.learn_prior()
    assert float(memory.noise) == pytest.approx(0.13, abs=0.03)  # of answers, given the taste
    place = torch.cat([torch.ones(ITEMS, 1), columns[:-1, :PLACE]], dim=1)
    tastes, _ = posterior(lasting.precision + memory.prior, lasting.pull + memory.prior_pull, memory.noise)
    wanted = (tastes @ place.T).view(400, ITEMS // 3, 3).mean(1)  # by taste
    assert float((wanted.argmax(1).numpy() == case.taste).mean()) > 0.95
    luck = torch.randn(4000, 1 + PLACE, generator=torch.Generator().manual_seed(0))
    tastes = drawn(memory.prior.expand(4000, -1, -1), memory.prior_pull.expand(4000, -1), memory.noise, luck)
    spread = torch.linalg.inv(memory.prior) * memory.noise
    torch.testing.assert_close(torch.cov(tastes.T), spread, atol=0.1 * float(spread.diagonal().max()), rtol=0.2)


def test_trees_of_format_2_answer_as_they_did(tmp_path: Path) -> None:
    """They had other names for their trees, no taste that stays and no learned prior."""
    case = sparse(slate_log(users=60, slates=4), 9, 1)
    users, _ = fitted(case)
    assert isinstance(users, TreeUsers)
    assert not users.memory.persons
    facts = {name: value for name, value in users.stored_facts().items() if name not in ("models", "persons")}
    tensors = {
        f"forest.{name.removeprefix('model.').removesuffix('.trees')}" if name.endswith(".trees") else name: value
        for name, value in users.stored_tensors().items()
        if name not in ("memory.prior", "memory.prior_pull", "memory.noise")
    }
    found = TreeUsers.migrated({**facts, "forests": list(users.models)}, tensors, 2)
    again, world = TreeUsers.restored(*found, tmp_path), world_of(case, k=1)
    lanes = torch.arange(9)
    answers = []
    for one in (users, again):
        one.prepare(world, "cpu")
        past = past_at_arrival(world, lanes)
        answers.append(one.expected(one.arrive(lanes, draws(9)), past, lanes.unsqueeze(1)).mean)
    assert torch.equal(*answers)
