"""Policies by name, dotted path and folder, and what is said of those that are not there."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from recloop.agents import FitOptions, Observed, Policy, facts_of, load_policy, make_policy, save_policy
from recloop.agents.registry import ENTRY_POINTS, POLICIES, known_policies, names_of
from recloop.encoders.base.errors import PolicyError
from recloop.encoders.base.manifest import Manifest
from recloop.envs.world.world import World

OWN = """
import torch
from recloop.agents import Policy
from recloop.encoders.base.manifest import Manifest

class Newest(Policy):
    def act(self, observation, carry, k, draw):
        rows = torch.arange(observation["action_mask"].shape[1] - 1, -1, -1)
        return rows[:k].expand(len(observation["action_mask"]), -1), None

class Fitted(Newest):
    @classmethod
    def fit(cls, world, options):
        return cls()

class Counted(Fitted):
    trains = "no"
    deterministic = True

def make(world, options):
    policy = Newest()
    policy.name = f"newest-{options.seed}"
    return policy

def wrong(world, options):
    return 5
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a person's own, importable under the name it returns."""
    (tmp_path / "own_newest_policy.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_newest_policy", raising=False)
    return "own_newest_policy"


def test_a_class_of_ones_own_is_made_saved_and_read_with_trust(
    own_module: str, tiny_world: World, tmp_path: Path
) -> None:
    policy = make_policy(f"{own_module}:Newest", tiny_world)
    assert policy.name == "Newest"
    assert policy.recommend(Observed(), 2) == ["item-109", "item-108"]
    save_policy(policy, tmp_path / "mine")
    with pytest.raises(PolicyError, match=r"asks to import own_newest_policy:Newest.*trust=True"):
        load_policy(tmp_path / "mine")
    assert load_policy(tmp_path / "mine", trust=True).recommend(Observed(), 2) == ["item-109", "item-108"]
    assert make_policy(tmp_path / "mine", tiny_world, trust=True).name == "Newest"


def test_a_callable_of_ones_own_gets_the_options(own_module: str, tiny_world: World) -> None:
    assert make_policy(f"{own_module}:make", tiny_world, FitOptions(seed=7)).name == "newest-7"
    with pytest.raises(PolicyError, match="gave a int"):
        make_policy(f"{own_module}:wrong", tiny_world)


LOGGED = {"reinforce-logged", "bc", "cql", "iql", "decision-transformer"}


def test_what_is_true_of_a_policy_stands_with_its_class(own_module: str, tmp_path: Path) -> None:
    trains = {name: facts_of(name).trains for name in POLICIES}
    learned = {name for name in POLICIES if facts_of(name).group in ("supervised", "lm", "logged")}
    assert {name for name, how in trains.items() if how == "log"} == learned >= {"sasrec", "dnn", *LOGGED}
    assert {trains[name] for name in ("ppo", "dqn", "recloop-ppo", "hac")} == {"loop"}
    assert names_of(deterministic=True) == [
        "content", "diversified-greedy", "ease", "encoder", "greedy", "instructed", "item-knn", "last-item", "planner",
        "popularity", "recent-popularity", "worst-first",
    ]  # fmt: skip
    assert names_of(privileged=True) == ["planner"]
    kept = {name for name, path in POLICIES.items() if ".learners." in path or ".sequence." in path}
    assert set(names_of(resumable=True)) == kept - {"grpo"}
    for name in POLICIES:
        facts = facts_of(name)
        assert (facts.config_class is None) == (facts.trains == "no"), name
        assert not (facts.deterministic and facts.trains == "loop"), name
        assert name in {facts.kind if issubclass(facts, Policy) and not facts.privileged else facts.name}


def test_a_class_of_ones_own_says_what_is_true_of_it(own_module: str, tmp_path: Path) -> None:
    assert facts_of(f"{own_module}:Newest").trains == "no"
    assert facts_of(f"{own_module}:Fitted").trains == "loop", "it writes `fit` and says nothing"
    assert facts_of(f"{own_module}:make").trains == "loop"
    said = facts_of(f"{own_module}:Counted")
    assert (said.trains, said.deterministic, said.resumable) == ("no", True, False)
    assert facts_of(tmp_path).trains == "no", "what lies in a folder is trained"


def test_installed_packages_offer_policies(
    own_module: str, tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = EntryPoint("newest", f"{own_module}:Newest", ENTRY_POINTS)
    asked: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [offered]

    monkeypatch.setattr("recloop.agents.registry.entry_points", entry_points)
    assert "newest" in known_policies()
    assert facts_of("newest").trains == "no"
    policy = make_policy("newest", tiny_world)
    assert (type(policy).__name__, policy.name) == ("Newest", "newest")
    monkeypatch.setattr(type(policy), "kind", "newest")  # a class that says so is read again without trust
    save_policy(policy, tmp_path / "policy")
    assert type(load_policy(tmp_path / "policy")) is type(policy)
    with pytest.raises(PolicyError, match="did you mean 'newest'"):
        make_policy("newes", tiny_world)
    assert set(asked) == {"recloop.policies"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("popularty", "did you mean 'popularity'"),
        ("no_such_module:Policy", "cannot import no_such_module:Policy"),
        ("recloop.agents:NoSuchPolicy", "cannot import"),
        ("no/such/folder", "does not exist"),
    ],
)
def test_unknown_names_are_named(name: str, words: str, tiny_world: World) -> None:
    with pytest.raises(PolicyError, match=words):
        make_policy(name, tiny_world)


def test_a_folder_from_another_world_is_refused(tiny_world: World, tmp_path: Path) -> None:
    save_policy(make_policy("popularity", tiny_world), tmp_path / "policy")
    assert make_policy(tmp_path / "policy", tiny_world).name == "popularity"
    with pytest.raises(PolicyError, match=r"made in world 'tiny'.*this is 'other'"):
        make_policy(tmp_path / "policy", replace(tiny_world, name="other"))


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _edit(**facts: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "policy.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
        Manifest.of(folder).write(folder)

    return edit


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_drop("policy.json"), "policy.json is missing"),
        (_drop("weights.safetensors"), "damaged.*weights.safetensors is missing"),
        (_drop("serving/serving.json"), "damaged.*serving.json is missing"),
        (_drop("serving/world/items.parquet"), "damaged"),
        (lambda folder: (folder / "policy.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "policy.json").write_text("[]"), "damaged"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"torn"), "damaged"),
        (_edit(format=99), "has format 99, this recloop reads up to 2; upgrade"),
        (_edit(kind="popularty"), "did you mean 'popularity'"),
        (_edit(fingerprint="0"), "do not belong together"),
    ],
)
def test_broken_folders_are_named_in_one_line(
    harm: Callable[[Path], None], words: str, tiny_world: World, tmp_path: Path
) -> None:
    save_policy(make_policy("popularity", tiny_world), tmp_path / "policy")
    harm(tmp_path / "policy")
    with pytest.raises(PolicyError, match=words) as caught:
        load_policy(tmp_path / "policy")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["hidden", "slate_dim", "layers"])
def test_sizes_of_networks_that_nothing_stored_has_are_refused_before_memory_is_asked_for(
    tiny_world: World, tmp_path: Path, size: str
) -> None:
    folder = tmp_path / "policy"
    save_policy(make_policy("recloop-ppo", tiny_world, FitOptions(steps=64)), folder)
    config = json.loads((folder / "policy.json").read_text())["config"]
    _edit(config={**config, "network": {**config["network"], size: 10**9}})(folder)
    with pytest.raises(PolicyError, match=r"damaged: its sizes ask for far more than the .* bytes that are stored"):
        load_policy(folder)


def test_saving_again_replaces_the_folder_whole(tiny_world: World, tmp_path: Path) -> None:
    save_policy(make_policy("popularity", tiny_world), tmp_path / "policy")
    (tmp_path / "policy" / "old").write_text("left over")
    save_policy(make_policy("random", tiny_world), tmp_path / "policy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy"]
    assert not (tmp_path / "policy" / "old").exists()
    assert load_policy(tmp_path / "policy").name == "random"


def test_a_policy_without_a_world_cannot_be_saved_or_serve(tiny_world: World, tmp_path: Path) -> None:
    class Bare(Policy):
        def act(self, observation, carry, k, draw):  # type: ignore[no-untyped-def]
            return torch.zeros(1, k, dtype=torch.int64), None

    with pytest.raises(PolicyError, match="belongs to no world"):
        Bare().recommend(Observed(), 1)
    with pytest.raises(PolicyError, match="belongs to no world"):
        save_policy(Bare(), tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_training_for_no_steps_is_an_error() -> None:
    with pytest.raises(PolicyError, match="steps=0"):
        FitOptions(steps=0)
