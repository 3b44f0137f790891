"""What every policy promises, asked of every policy that is registered."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import recloop.agents
from recloop.agents import POLICIES, FitOptions, Observed, Policy, load_policy, make_policy, save_policy
from recloop.agents.learners.logged.learner import LoggedLearner
from recloop.agents.learners.off_policy.proto import ProtoPolicy
from recloop.agents.registry import KINDS, facts_of
from recloop.envs.interaction.observation import DEFAULT_KEYS, Observation
from recloop.envs.simulation.core import Core
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.world.world import World

ELSEWHERE = {
    "instructed",
    "instruction-tuned",
    "actor",
    "slateq",
    "slate-ppo",
    "wolpertinger",
    "sac",
    "hac",
    "bandit",
    "decision-transformer",
    "lm-ranker",
    "lm-classifier",
    "lm-verbaliser",
}
"""Kinds under contract in test_instructed, test_instruction_tuned, language/, networks/test_policy and
learners/test_contract."""

NAMES = (
    "random",
    "popularity",
    "content",
    "last-item",
    "encoder",
    "worst-first",
    "greedy",
    "exploring-greedy",
    "diversified-greedy",
    "dnn",
    "recent-popularity",
    "item-knn",
    "ease",
    "als",
    "bpr",
    "lightgcn",
    "kgin",
    "sasrec",
    "gru4rec",
    "bert4rec",
    "gsasrec",
    "esasrec",
    "hstu",
)
"""Under contract here. Actors, the planner and `instructed` are under their own."""

LOGGED = ("bc", "cql", "decision-transformer", "iql", "reinforce-logged")
"""Learners from logs: under contract here too, whatever the kind of their policies."""

LANES, K = 6, 4


@pytest.fixture(scope="module")
def world() -> World:
    return built_in_world()


@pytest.fixture(scope="module", params=(*NAMES, *LOGGED))
def policy(request: pytest.FixtureRequest, world: World) -> Policy:
    return make_policy(request.param, world, FitOptions(seed=3, steps=1))


def play(policy: Policy, core: Core, steps: int) -> list[torch.Tensor]:
    """The slates of a few steps in fresh episodes, and the observations stay as they were."""
    slates, carry = [], None
    for _ in range(steps):
        observation = core.observe()
        kept = {key: value.clone() for key, value in observation.items()}
        slate, carry = policy.act(observation, carry, K, core.draw())
        assert all(torch.equal(kept[key], value) for key, value in observation.items())
        core.step(slate)
        slates.append(slate)
    return slates


def new_core(world: World) -> Core:
    keys = (*DEFAULT_KEYS, "action_mask")
    return Core(world, batch=LANES, slate_size=K, users="evaluate", seed=5, keys=keys)


def observed(world: World, lanes: int = LANES) -> Observation:
    keys = (*DEFAULT_KEYS, "action_mask")
    return Core(world, batch=lanes, slate_size=K, users="evaluate", seed=5, keys=keys).observe()


def test_slates_are_rows_of_the_catalogue_without_repeats(policy: Policy, world: World) -> None:
    for slate in play(policy, new_core(world), 3):
        assert slate.dtype == torch.int64
        assert slate.shape == (LANES, K)
        assert int(slate.min()) >= 0
        assert int(slate.max()) < len(world.catalogue)
        assert all(len(set(row)) == K for row in slate.tolist())


def test_equal_arguments_give_equal_slates(policy: Policy, world: World) -> None:
    once, again = play(policy, new_core(world), 3), play(policy, new_core(world), 3)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_the_mask_is_obeyed_down_to_the_last_item(policy: Policy, world: World) -> None:
    observation = observed(world)
    mask = torch.zeros(LANES, len(world.catalogue), dtype=torch.bool)
    mask[:, [7, 50, 100]] = True
    slate, _ = policy.act({**observation, "action_mask": mask}, None, K, new_core(world).draw())
    assert all(set(row[:3]) == {7, 50, 100} for row in slate.tolist())
    assert slate[:, 3].tolist() == [len(world.catalogue)] * LANES


def test_no_global_generator_is_touched(policy: Policy, world: World) -> None:
    before = torch.random.get_rng_state()
    play(policy, new_core(world), 1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_saved_policy_acts_alike_and_serves_alike(policy: Policy, world: World, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert (type(loaded), loaded.name) == (type(policy), policy.name)
    for a, b in zip(play(policy, new_core(world), 3), play(loaded, new_core(world), 3), strict=True):
        assert torch.equal(a, b)
    ids = world.catalogue.ids
    person = Observed(history=[ids[3], ids[40]], shown=[[ids[3], ids[9]]], answers=[{"click": [1, 0]}])
    assert policy.recommend(person, 6) == loaded.recommend(person, 6)


def test_making_it_twice_gives_the_same_policy(policy: Policy, world: World) -> None:
    again = make_policy(policy.name, world, FitOptions(seed=3, steps=1))
    mine, theirs = policy.tensors(), again.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_serving_several_people_is_serving_each(policy: Policy, world: World) -> None:
    ids = world.catalogue.ids
    people = [Observed(history=[ids[3], ids[40]]), Observed(), Observed(history=[ids[i] for i in range(60, 90)])]
    together = policy.recommend_many(people, 5)
    assert together == [policy.recommend(person, 5) for person in people]
    assert not set(together[2]) & set(people[2].history)


def test_the_world_it_was_made_in_is_left_as_it_was(policy: Policy, world: World) -> None:
    core = new_core(world)
    play(policy, core, 1)
    rows = torch.arange(len(world.users))
    assert len(core.simulator.arrive(rows, core.draw()).preference) == len(world.users)


def test_every_policy_of_the_package_is_under_contract() -> None:
    """Fails when a policy is written and neither registered nor tested."""
    for module in pkgutil.walk_packages(recloop.agents.__path__, "recloop.agents."):
        importlib.import_module(module.name)
    found = {cls for cls in _below(Policy) if cls.__module__.startswith("recloop.agents.")}
    found -= {cls for cls in found if inspect.isabstract(cls) or cls.privileged or not cls.savable}
    kept = found - {ProtoPolicy}  # a base
    kinds = {cls.kind: _class_of({**POLICIES, **KINDS}[cls.kind]) for cls in kept}
    assert {cls.kind: cls for cls in kept} == kinds, "its kind leads back to it"
    assert len(kinds) == len(kept)
    assert {cls.kind for cls in kept} - ELSEWHERE == set(NAMES)
    assert set(NAMES) <= set(POLICIES)
    assert set(LOGGED) == {name for name in POLICIES if issubclass(facts_of(name), LoggedLearner)}


def _below(cls: type[Policy]) -> set[type[Policy]]:
    return {cls}.union(*(_below(child) for child in cls.__subclasses__()))


def _class_of(path: str) -> object:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    return getattr(found, "policy_class", found)
