"""Policies ranked: by hand, by their slates, and by the command."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from recloop.agents import FitOptions, Policy, make_policy, save_policy
from recloop.agents.baselines.popularity import PopularityPolicy
from recloop.encoders.base.errors import RecloopError
from recloop.envs.world.world import World
from recloop.experiments.cli import main
from recloop.experiments.ranking.evaluator import FIGURES, interval, rank
from recloop.experiments.ranking.questions import ranking_task


class AsSlates(Policy):
    """Popularity that hides its scores, and shows one of its items twice."""

    def act(self, observation, carry, k, draw):  # type: ignore[no-untyped-def]
        shown, _ = PopularityPolicy(self.counts).act(observation, carry, k, draw)
        return torch.cat([shown[:, :1], shown[:, :-1]], dim=1), carry


def test_popularity_is_ranked_as_counted_by_hand(truth: World) -> None:
    task, n = ranking_task(truth, "leave-one-out"), len(truth.catalogue)
    lists = rank(PopularityPolicy(truth.catalogue.popularity), truth, task, n, ties="row")
    order = torch.sort(truth.catalogue.popularity, descending=True, stable=True).indices.tolist()
    for user, known, shown in zip(task.users, task.known, lists.shown.tolist(), strict=True):
        seen = set() if truth.consumes_twice else set(truth.sequences.of(user)[0][:known].tolist())
        assert [item for item in shown if item < n] == [item for item in order if item not in seen]
    ranks = 1 + (lists.shown == task.targets).int().argmax(1)
    assert lists.figures(n)["mrr"] == pytest.approx(float((1 / ranks).mean()))
    assert lists.figures(3)["recall"] == pytest.approx(float((ranks <= 3).double().mean()))


def test_ties_follow_the_seed_and_no_other_user(truth: World) -> None:
    task, flat = ranking_task(truth, "time"), PopularityPolicy(torch.zeros(len(truth.catalogue)))
    once, again = (rank(flat, truth, task, 5, seed=3).shown for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, rank(flat, truth, task, 5, seed=4).shown)
    assert not torch.equal(once, rank(flat, truth, task, 5, ties="row").shown)
    alone = type(task)(task.split, task.users[2:3], task.known[2:3], task.targets[2:3], None, "")
    assert torch.equal(rank(flat, truth, alone, 5, seed=3).shown, once[2:3])


def test_a_policy_without_scores_is_ranked_by_its_slate_and_repeats_count_nothing(truth: World) -> None:
    task, hidden = ranking_task(truth, "time"), AsSlates()
    hidden.counts = truth.catalogue.popularity
    shown = rank(hidden, truth, task, 5).shown
    scored = rank(PopularityPolicy(hidden.counts), truth, task, 5, ties="row").shown
    assert torch.equal(shown[:, 0], scored[:, 0])
    assert (shown[:, 1] == len(truth.catalogue)).all()
    assert torch.equal(shown[:, 2:], scored[:, 1:4])


@pytest.mark.parametrize("name", ["random", "greedy", "encoder"])
def test_policies_of_every_kind_are_ranked(truth: World, name: str) -> None:
    policy = make_policy(name, truth, FitOptions(steps=1))
    lists = rank(policy, truth, ranking_task(truth, "time"), 10)
    assert all(lists.figures(10)[figure] >= 0 for figure in FIGURES)
    assert int((lists.shown < len(truth.catalogue)).sum(1).min()) == 10


def test_one_user_has_a_mean_and_no_interval() -> None:
    alone = interval(torch.tensor([0.5]).double().numpy())
    assert (alone.mean, alone.low != alone.low) == (0.5, True)


def test_a_policy_that_reads_the_truth_is_refused(truth: World) -> None:
    with pytest.raises(RecloopError, match="reads the users' true state"):
        rank(make_policy("planner", truth), truth, ranking_task(truth, "time"), 3)


def test_the_command_prints_and_writes_every_figure(
    folder: Path, judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(make_policy("content", judged), tmp_path / "mine")
    out = tmp_path / "new" / "ranking.csv"
    options = ["--k", "2", "5", "--split", "time", "cold-users", "--seeds", "2", "--out", str(out), "--no-progress"]
    main(["rank", str(folder), "--policies", "random", "popularity", str(tmp_path / "mine"), *options])
    said = " ".join(capsys.readouterr().out.split())
    assert "time, lists of 5" in said
    assert "asked: all items of each user, from the profile alone" in said
    table = pd.read_csv(out)
    assert len(table) == 3 * 2 * 2 * 2
    assert set(table["policy"]) == {"random", "popularity", "mine"}
    assert {"policy", "split", "k", "users", *FIGURES, "seed", "command", "commit"} < set(table.columns)
    assert (table.loc[table["policy"] == "popularity", "difference"] == 0).all()
    assert (table["ndcg_low"] <= table["ndcg"]).all()
    random = table[(table["policy"] == "random") & (table["split"] == "time") & (table["k"] == 5)]
    assert random["ndcg"].nunique() == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "41"], "--k 41 does not fit a catalogue of 40 items; choose 1 to 40"),
        (["--k", "0"], "--k 0 is too few"),
        (["--policies", "popularty"], "did you mean 'popularity'"),
        (["--policies", "planner"], "leave planner out"),
        (["--reference", "sasrec", "--policies", "random"], "unknown reference policy 'sasrec'"),
        (["--split", "cold-items", "--cold-at-most", "0"], "raise --cold-at-most"),
        (["--out", "."], "--out . is a folder; name a CSV file"),
    ],
)
def test_bad_input_is_said_in_one_line(
    folder: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["rank", str(folder), "--no-progress", *options])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_policy_of_another_world_is_refused(
    folder: Path, judged: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(make_policy("popularity", replace(judged, name="elsewhere")), tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["rank", str(folder), "--policies", str(tmp_path / "other"), "--no-progress"])
    assert "train it anew in this world" in capsys.readouterr().err
