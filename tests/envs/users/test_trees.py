"""Tree users: what they add to the contract that all families keep, and what they say where a log tells little."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.encoders.base.errors import UserSimulatorError
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.users.checks import check_users
from recloop.envs.users.fitted import Family, FitReport, TreeUsers, fit_users
from recloop.envs.users.fitted.trees.forest import BoostConfig, Forest, Labelled, grown
from tests.envs.users.conftest import QUICK, Case, slate_log, world_of


def fitted(case: Case) -> tuple[TreeUsers, FitReport]:
    users, report = fit_users(
        "trees", case.sequences, case.rows, case.vectors, case.profile, case.signals, groups=case.groups, config=QUICK
    )
    assert isinstance(users, TreeUsers)
    return users, report


def rows(count: int) -> Labelled:
    """A threshold in the second of three columns."""
    inputs = np.random.default_rng(0).random((count, 3)).astype(np.float32)
    return Labelled(inputs, (inputs[:, 1] > 0.7).astype(np.float32))


def test_trees_come_back_from_their_bytes_and_score_alike() -> None:
    forest = grown(rows(400), rows(100), "binary", BoostConfig(rounds=20), 0)
    some = torch.from_numpy(rows(50).inputs)
    again = Forest.read(forest.bytes())
    assert again == forest
    assert torch.equal(again.scores(some), forest.scores(some))
    assert float(forest.scores(torch.tensor([[0.5, 0.9, 0.5], [0.5, 0.1, 0.5]])).diff()) < -1
    assert forest == grown(rows(400), rows(100), "binary", BoostConfig(rounds=20), 0)


def test_broken_trees_are_refused_in_one_line() -> None:
    with pytest.raises(UserSimulatorError, match="stored trees cannot be read"):
        Forest(0.0, "tree\nno").scores(torch.zeros(1, 3))


def test_the_base_rate_where_there_is_little_to_learn_from() -> None:
    few = rows(20)
    forest = grown(few, few, "binary", BoostConfig(), 0)
    assert not forest.text
    rate = (few.values.sum() + 0.5) / 21
    assert float(torch.sigmoid(forest.scores(few_inputs := torch.from_numpy(few.inputs)))[0]) == pytest.approx(rate)
    assert len(few_inputs) == 20


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


@pytest.mark.parametrize(("users", "slates"), [(9, 1), (3, 2), (40, 1)])
def test_small_logs_are_fitted_and_the_report_says_what_was_not_learned(users: int, slates: int) -> None:
    """One place a slate, no groups, one slate a user: nothing but base rates, said."""
    case = sparse(slate_log(users=60, slates=4), users, slates)
    found, report = fitted(case)
    said = " ".join(report.learned)
    assert "watched: too few answers to learn from; all get the base rate" in said
    check_users(found, world_of(case, k=1))


def test_the_report_tells_which_inputs_mattered() -> None:
    """Planted: what the last slate held of one's taste leaves a fifth of the appetite for more of it."""
    _, report = fitted(slate_log(users=90, bored=0.2))
    assert max(report.inputs, key=report.inputs.__getitem__) in ("own groups", "online taste", "likeness to the diet")
    assert any("inputs by what is lost" in line for line in report.learned)


@pytest.mark.parametrize("family", ["trees", "recurrent"])
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


def test_a_folder_that_lacks_trees_is_refused(tmp_path: Path) -> None:
    users, _ = fitted(sparse(slate_log(users=60, slates=4), 9, 1))
    del users.forests["watched"]
    users.save(tmp_path / "users")
    with pytest.raises(UserSimulatorError, match="lacks trees for watched"):
        TreeUsers.load(tmp_path / "users")
