"""Simulated days: everybody meets the same visitors, rules learn from what they say, and bad input is one line."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.agents import FitOptions, make_policy
from recloop.agents.baselines.planner import PlannerPolicy
from recloop.agents.policy import Policy
from recloop.encoders.base.anchors import Anchor
from recloop.encoders.base.errors import PolicyError, RecloopError
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.truth import truth_world
from recloop.envs.users.drifting import Drift, DriftingUsers
from recloop.envs.world.world import World
from recloop.experiments.continual.command import ContinualConfig, main
from recloop.experiments.continual.course import Course
from recloop.experiments.continual.days import Days, Visits
from recloop.experiments.continual.measures import summary
from recloop.experiments.continual.rules import Learning, Recommender, checked_rules, replayed
from recloop.experiments.continual.series import ItemSeries, SeriesContext

USERS, ITEMS = 30, 20


@pytest.fixture(scope="module")
def world() -> World:
    return truth_world("clicks", users=USERS, items=ITEMS)


@pytest.fixture(scope="module")
def days(world: World) -> Days:
    return Days(DriftingUsers(world.simulator("truth"), Drift()), visitors=10, slates=3, epsilon=0.2, seed=1)


@pytest.fixture(scope="module")
def logs(world: World, days: Days) -> list[LoggedBehavior]:
    found = [days.lived(world, make_policy("random", world), day, None).log for day in range(6)]
    return [log for log in found if log is not None]


class Learns(Policy):
    """Keeps the worlds that it is told to learn from."""

    name = "learns"

    def __init__(self) -> None:
        self.worlds: list[World] = []

    def act(self, observation: Any, carry: Any, k: int, draw: Any) -> Any:
        raise NotImplementedError

    def continued(self, world: World, options: FitOptions, anchor: Anchor | None = None) -> "Learns":
        self.worlds.append(world)
        return self


def test_a_day_is_a_log_of_who_came(world: World, days: Days, logs: list[LoggedBehavior]) -> None:
    visits = days.lived(world, make_policy("popularity", world), 4, PlannerPolicy(farsighted=False))
    assert visits.log is not None
    rows = visits.log.interactions
    assert set(rows[Columns.user]) == {world.users.ids[row] for row in visits.users}
    assert rows[Columns.session].unique().tolist() == [4]
    assert rows[Columns.time].min() >= 4 * 86_400
    assert rows[Columns.policy].unique().tolist() == ["popularity"]
    assert rows.groupby(Columns.user)["click"].sum().sum() == visits.earned.sum()
    assert visits.best.mean() > visits.earned.mean()
    late = days.users.at_day(4).rules(world).never
    assert late
    assert not set(rows[Columns.item]) & set(late)
    again = days.lived(world, make_policy("popularity", world), 4, PlannerPolicy(farsighted=False))
    assert np.array_equal(visits.earned, again.earned)
    assert np.array_equal(days.met(world, PlannerPolicy(farsighted=False), 4), visits.best)
    assert world.extended(logs[0]).extended(visits.log).sequences.slates is not None


def test_replay_sees_old_rows_and_fine_tuning_does_not(world: World, logs: list[LoggedBehavior]) -> None:
    older, window = logs[:4], logs[4:]
    for rule, sees in {"fine-tuned": False, "replay": True}.items():
        policy = Learns()
        assert Recommender(rule, Learning(seed=2), policy, world).update(world, older, window, 5) == ""
        (learned,) = policy.worlds
        taken = sum(int(log.interactions["click"].sum()) for log in window)
        assert (len(learned.sequences.items) > taken) == sees
        assert learned.sequences.times is not None
        assert (learned.sequences.times.min() < 4 * 86_400) == sees
    (sample,) = replayed(older, window, Learning(replay=0.5), 5)
    visits = sample.interactions.groupby([Columns.user, Columns.session]).ngroups
    assert visits == 10
    whole = pd.concat([log.interactions for log in older])
    merged = sample.interactions.merge(whole, how="left", indicator=True)
    assert (merged["_merge"] == "both").all()
    assert replayed([], window, Learning(), 5) == []


def test_an_empty_window_updates_nothing_and_says_so(world: World, logs: list[LoggedBehavior]) -> None:
    nothing = replace(logs[0], interactions=logs[0].interactions.assign(click=0.0))
    for rule in ("full", "fine-tuned", "replay"):
        one = Recommender(rule, Learning(), Learns(), world)
        before = one.policy
        said = one.update(world, logs, [nothing], 9)
        assert said == f"day 9: nobody took anything in a window of 1 day(s); {rule} is not updated"
        assert one.policy is before
        assert one.seconds == 0
    assert Recommender("frozen", Learning(), Learns(), world).update(world, logs, [nothing], 9) == ""


def test_a_rise_is_forecast_and_put_in_place_of_levels(world: World, logs: list[LoggedBehavior]) -> None:
    """Items rise and fall in turn by 0.2 log-odds a day: tomorrow is not like the mean of the week."""
    series = ItemSeries(torch.zeros(ITEMS, dtype=torch.int64))
    slope = np.where(np.arange(ITEMS) % 2 == 0, 0.2, -0.2)
    assert np.abs(series.forecast()).sum() == 0
    assert not series.ready
    for day in range(20):
        chance = 1 / (1 + np.exp(-slope * (day - 10)))
        shown = np.repeat(np.arange(ITEMS), 200)
        hits = np.concatenate([np.arange(200) < round(200 * p) for p in chance])
        rows = pd.DataFrame({Columns.item: np.array(world.catalogue.ids)[shown], "click": hits.astype(float)})
        series.fit()
        series.add(world, LoggedBehavior("day", rows.assign(user="u"), pd.DataFrame(), pd.DataFrame(), world.signals))
    forecast, plain = series.errors()
    assert forecast < 0.15 < 0.5 < plain
    series.fit()
    assert series.ready
    tomorrow = series.forecast()
    assert np.corrcoef(tomorrow, slope)[0, 1] > 0.99
    assert np.abs(tomorrow).mean() == pytest.approx(2.0, rel=0.15)
    users = SeriesContext(make_policy("gru4rec", world.extended(logs[0]), FitOptions(steps=1)), world, tomorrow)
    seen = {"history": world.users.history}
    assert torch.allclose(users.scores(seen).mean(0), torch.from_numpy(tomorrow).float(), atol=1e-4)
    with pytest.raises(PolicyError, match="does not score items"):
        SeriesContext(make_policy("random", world), world, tomorrow)


def test_figures_by_hand() -> None:
    """Two users, days 0 (shared) to 3; one contender earns 1 less than the other on every day."""
    users = np.array([0, 1])

    def course(rule: str, less: float) -> Course:
        visits = [Visits(users, np.array([4.0, 6.0]) - less, np.array([8.0, 8.0])) for _ in range(4)]
        early = {0: np.array([5.0, 5.0])}
        return Course(
            rule, 0, [0, 1, 2, 3], visits, [0.0, 1.0, 1.0, 3.0], early, np.array([5.0, 5.0]), np.array([4.0, 3.0])
        )

    rows = summary([course("full", 0.0), course("frozen", 1.0)], (2,), "full")
    found = {(row["policy"], row["what"]): float(row["mean"]) for row in rows}
    assert found["full", "return, last third"] == 5.0
    assert found["frozen", "regret, last third"] == 4.0
    assert found["frozen", "share of oracle, first third"] == 0.5
    assert found["frozen", "minus full, last third"] == -1.0
    assert found["full", "forgetting"] == 1.5
    assert found["full", "cpu seconds"] == 3.0
    assert found["full", "forward transfer, return"] == 5.0
    assert ("full", "minus full, last third") not in found


def config(out: Path, **other: Any) -> ContinualConfig:
    small = {"days": 6, "every": 2, "visitors": 8, "slates": 2, "users": USERS, "items": ITEMS, "progress": False}
    return ContinualConfig(world="clicks", out=out, **{**small, "set": ("dim=16", "epochs=1"), **other})


def test_the_command_compares_all_rules(tmp_path: Path) -> None:
    main(config(tmp_path / "run", table=tmp_path / "all.csv", drift=Drift(jump=1.0, jump_every=3)))
    rows = list(csv.DictReader((tmp_path / "run" / "summary.csv").open()))
    assert list(rows[0]) == ["what", "world", "policy", "seeds", "mean", "low", "high", "command", "commit"]
    rules = ("frozen", "full", "fine-tuned", "replay", "ewc", "frozen+series", "replay+series")
    assert {row["policy"] for row in rows} == set(rules)
    frozen = {row["what"]: row for row in rows if row["policy"] == "frozen"}
    assert float(frozen["cpu seconds"]["mean"]) == 0.0
    assert float(frozen["forgetting"]["mean"]) == 0.0
    assert all(math.isfinite(float(row[name])) for row in rows for name in ("mean", "low", "high"))
    days = list(csv.DictReader((tmp_path / "run" / "days.csv").open()))
    assert len(days) == len(rules) * 6
    assert len({(row["day"], row["return"]) for row in days if int(row["day"]) < 2}) == 2
    assert (tmp_path / "run" / "continual.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "all.csv").read_text() == (tmp_path / "run" / "summary.csv").read_text()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"days": -3}, "--days -3 is too few; it must be at least 1"),
        ({"days": 2}, "--days 2 end before the first update"),
        ({"epsilon": 1.0}, "--epsilon 1 is no chance to explore"),
        ({"ewc": -1.0}, "--ewc -1 must be at least 0"),
        ({"rules": ("frozen", "replai")}, "unknown update rule 'replai'; did you mean 'replay'"),
        ({"rules": ("full", "full")}, "must name one or more rules, each once"),
        ({"rules": ()}, "must name one or more rules, each once"),
        ({"policy": "ease", "set": ()}, "policy 'ease' cannot be fitted on from where it stands, as rule 'fine-tuned'"),
        ({"policy": "random", "set": (), "rules": ("full",)}, "policy 'random' does not learn from a log"),
        ({"world": "nowhere"}, "unknown truth world 'nowhere'.*no world folder either"),
        ({"drift": Drift(height=300.0, rise=0.1, new_items=0.0)}, "the drift leaves none of 20 items to take"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    with pytest.raises(RecloopError, match=said) as told:
        main(replace(config(tmp_path / "run"), **other))
    assert "\n" not in str(told.value)


def test_rules_that_need_nothing_take_any_recommender() -> None:
    checked_rules(("frozen", "full", "full+series"), "ease")
