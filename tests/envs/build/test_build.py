"""From a log to a world: parts, the card, the disk, and that evaluated users stay unknown to everything fitted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recloop.encoders.base.errors import LogError, RecloopError, WorldError
from recloop.encoders.state.batches import NextItemConfig
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig, build_world, split_users
from recloop.envs.evidence.fidelity import reports_on
from recloop.envs.evidence.replay import GateReport
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, LoggedBehavior, Signal, Times
from recloop.envs.users.fitted import EnsembleUsers, FitConfig
from recloop.envs.world.world import PARTS, World

CONSUME = Signal("consume")
RATING = Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0), given_on="consume")
QUICK = BuildConfig(
    slate_size=3,
    history_length=8,
    shown_length=2,
    encoder=EncoderConfig(text="hashed", dim=8, next_item=NextItemConfig(epochs=2)),
    users=FitConfig(epochs=2, hidden=8, rank=4, residual=4, negatives=16),
    use_cache=False,
)


def rating_log(users: int = 40, items: int = 12, seed: int = 0) -> LoggedBehavior:
    """Users rate ten different items each; times are entry times, nothing was exposed."""
    rng = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{i}", float(t), 1.0) for u in range(users) for t, i in enumerate(rng.permutation(items)[:10])]
    interactions = pd.DataFrame(rows, columns=[Columns.user, Columns.item, Columns.time, "consume"])
    interactions["rating"] = rng.integers(1, 4, len(rows)).astype(float)
    titles = [f"Item {i}" for i in range(items)]
    return LoggedBehavior(
        name="ratings",
        interactions=interactions,
        users=pd.DataFrame(
            {"age": rng.integers(18, 70, users).astype(str), "plan": rng.choice(["free", "paid"], users)},
            index=pd.Index([f"u{u}" for u in range(users)]),
        ),
        items=pd.DataFrame({"title": titles, "text": titles}, index=pd.Index([f"i{i}" for i in range(items)])),
        signals=(CONSUME, RATING),
        times=Times.entry,
    )


def slate_log(users: int = 40, items: int = 12, slates: int = 6, seed: int = 0) -> LoggedBehavior:
    """The same users and items: slates of three random items, a third of which is consumed; nobody repeats an item."""
    log, rng = rating_log(users, items, seed), np.random.default_rng(seed)
    rows = []
    for user in range(users):
        taken: set[int] = set()
        for slate in range(slates):
            for place, item in enumerate(rng.permutation(items)[:3].tolist()):
                consumed = item not in taken and rng.random() < 1 / 3
                taken |= {item} if consumed else set()
                rows.append((f"u{user}", f"i{item}", float(slate), slate, place, float(consumed)))
    names = [Columns.user, Columns.item, Columns.time, Columns.slate, Columns.position, "consume"]
    interactions = pd.DataFrame(rows, columns=names)
    return replace(log, name="slates", interactions=interactions, signals=(CONSUME,), has_exposures=True)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(rating_log(), QUICK, cleaning={"duplicates": 3})


def test_parts_are_disjoint_and_complete() -> None:
    part = split_users(100, (0.45, 0.15, 0.2), seed=0)
    assert np.bincount(part).tolist() == [45, 15, 20, 20]
    assert torch.equal(part, split_users(100, (0.45, 0.15, 0.2), seed=0))
    assert not torch.equal(part, split_users(100, (0.45, 0.15, 0.2), seed=1))
    with pytest.raises(LogError, match="part 'judge' gets none of 8 users"):
        split_users(8, (0.9, 0.05, 0.04), seed=0)


def test_families_and_users_differ_between_training_and_judge(world: World) -> None:
    names = ("train", "validation", *world.judges)
    assert world.judges == ("judge-attentive", "judge")
    assert len({type(_ensemble(world, name).members[0]) for name in names}) == 4
    assert len(_ensemble(world, "train").members) == QUICK.members
    rows = [set(world.users.rows(name).tolist()) for name in PARTS]
    assert sum(map(len, rows)) == len(set().union(*rows)) == 40


def test_the_card_says_what_is_assumed_and_not_claimed(world: World) -> None:
    card = world.card
    assert any("Leaving is assumed" in line for line in card.assumed)
    assert any("entry times" in line for line in card.not_claimed)
    assert any("exposures" in line for line in card.not_claimed)
    assert card.figures["repeat_rate"] == 0.0
    assert not world.consumes_twice
    assert card.cleaning == {"duplicates": 3}


def test_a_log_without_ratings_or_times_claims_neither() -> None:
    log = rating_log()
    bare = replace(
        log, interactions=log.interactions[["user", "item", "consume"]], signals=(CONSUME,), times=Times.none
    )
    said = " ".join(build_world(bare, QUICK).card.not_claimed)
    assert "no times" in said
    assert "no ratings" in said


def test_the_card_says_how_the_users_fare_beside_the_log(world: World) -> None:
    assert {report.simulator for report in reports_on(world.card)} == {"train", "judge-attentive", "judge"}
    assert "gates" not in world.card.figures  # nobody knows what was shown
    unexamined = build_world(rating_log(), replace(QUICK, examine=False)).card.figures
    assert "fidelity" not in unexamined


def test_with_exposures_the_logging_policies_are_replayed(tmp_path: Path) -> None:
    made = build_world(slate_log(), QUICK)
    assert {report.simulator for report in reports_on(made.card)} == {"train", *made.judges}
    gates = {name: GateReport.of(facts) for name, facts in made.card.figures["gates"].items()}
    assert gates.keys() == {"train", *made.judges}
    for gate in gates.values():
        assert gate.lines
        assert gate.sentence in made.card.learned
    made.save(tmp_path / "w")
    again = World.load(tmp_path / "w")
    assert again.card == made.card
    for one in (made, again):
        assert isinstance(one.user_model, EnsembleUsers)
        answering = one.simulator("train")
        assert isinstance(answering, EnsembleUsers)
        kinds = [users.members[0].kind for users in (answering, one.user_model)]
        assert kinds == ["network", "recurrent"], "greedy plans on users that score a catalogue at once"


def test_profiles_are_coded_by_train_users(world: World) -> None:
    assert world.users.profile_names == ("age", "plan=free", "plan=paid") or set(world.users.profile_names) == {
        "age",
        "plan=free",
        "plan=paid",
    }
    train = world.users.profile[world.users.rows("train")]
    assert train[:, 0].mean().item() == pytest.approx(0.0, abs=1e-5)


def test_the_disk_gives_the_world_back(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "w")
    again = World.load(tmp_path / "w")
    assert again.fingerprint == world.fingerprint
    assert again.card == world.card
    assert again.signals == world.signals
    assert again.reward == world.reward
    for name, value in vars(world.sequences).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(again.sequences, name)), name
    assert again.user_model is again.simulator("train")
    assert not [path for path in (tmp_path / "w").rglob("*") if path.suffix in {".pkl", ".pt", ".pth"}]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda w: (w / "world.json").unlink(), "half-written"),
        (lambda w: (w / "users.safetensors").write_bytes(b"x" * 40), "damaged"),
        (lambda w: (w / "simulators" / "judge" / "kind.json").unlink(), "damaged"),
        (lambda w: _edit(w / "world.json", format=99), "format 99"),
        (lambda w: _edit(w / "world.json", name="other"), "not what manifest.json says"),
    ],
)
def test_a_broken_folder_is_named(world: World, tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    world.save(tmp_path / "w")
    harm(tmp_path / "w")
    with pytest.raises(WorldError, match=message) as caught:
        World.load(tmp_path / "w")
    assert "\n" not in str(caught.value)


def _ensemble(world: World, name: str) -> EnsembleUsers:
    users = world.simulator(name)
    assert isinstance(users, EnsembleUsers)
    return users


def _edit(path: Path, **facts: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_nothing_fitted_knows_the_evaluated_users(world: World, tmp_path: Path) -> None:
    """A marker in their behaviour (one item, always loved) changes no fitted number, bit for bit."""
    log = rating_log()
    held = {world.users.ids[row] for row in world.users.rows("evaluate").tolist()}
    marked = log.interactions.copy()
    theirs = marked[Columns.user].isin(held)
    assert theirs.any()
    marked.loc[theirs, Columns.item] = "i0"
    marked.loc[theirs, "rating"] = 3.0
    other = build_world(replace(log, interactions=marked), QUICK)
    world.save(tmp_path / "a")
    other.save(tmp_path / "b")
    assert not torch.equal(other.users.history, world.users.history)
    fitted = [
        path.relative_to(tmp_path / "a")
        for room in ("state_encoder", "simulators")
        for path in (tmp_path / "a" / room).rglob("*.safetensors")
    ]
    assert len(fitted) >= 4
    for path in [*fitted, Path("items.safetensors")]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_a_second_build_takes_its_fits_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(QUICK, use_cache=True, cache=tmp_path)
    first = build_world(rating_log(), config)
    monkeypatch.setattr("recloop.envs.build.pipeline.fit_ensemble", None)
    monkeypatch.setattr("recloop.envs.build.encoders.fit_state_encoder", None)
    assert build_world(rating_log(), config).fingerprint == first.fingerprint


def test_repeat_rate_by_hand() -> None:
    log = rating_log(users=8)
    sequences, _, _ = compile_sequences(log)
    assert sequences.repeat_rate(np.arange(8)) == 0.0
    doubled = pd.concat([log.interactions, log.interactions])
    sequences, _, _ = compile_sequences(replace(log, interactions=doubled))
    assert sequences.repeat_rate(np.arange(8)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("users", "config", "message"),
    [(3, QUICK, "3 user"), (40, replace(QUICK, slate_size=13), "slate_size=13")],
)
def test_logs_too_small_for_a_world_are_refused(users: int, config: BuildConfig, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        build_world(rating_log(users=users), config)


def test_a_world_keeps_columns_and_the_reward_chosen(tmp_path: Path) -> None:
    log = rating_log()
    items = log.items.assign(margin=[float(i) for i in range(len(log.items))], brand=["Acme", "Bolt", "Acme"] * 4)
    config = replace(QUICK, reward=("consume*margin=1", "leaving=-0.5"), examine=False)
    build_world(replace(log, items=items), config).save(tmp_path / "world")
    world = World.load(tmp_path / "world")
    assert world.catalogue.columns.labels["brand"].names == ("Acme", "Bolt")
    assert world.reward == WeightedReward(leaving=-0.5, columns={"consume*margin": 1.0})
    assert any("reward of a step was chosen: consume*margin=1" in line for line in world.card.assumed)
    assert world.support is not None
    assert world.support.reward_range.reward_high == 11.0 + 10.0 + 9.0  # the three dearest, all consumed


def test_a_reward_that_the_log_lacks_is_refused_before_any_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recloop.envs.build.pipeline.state_encoder", lambda *_: pytest.fail("fitted"))
    with pytest.raises(RecloopError, match="unknown reward term 'consum'; did you mean 'consume'"):
        build_world(rating_log(), replace(QUICK, reward=("consum=1",)))
