"""Learners from logs whose best is known: who clones, who does better, and what is not believed without a trial."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recloop.agents.acting import propensities
from recloop.agents.learners.logged.batches import LoggedBatches
from recloop.agents.learners.logged.cloning import BehaviourCloning
from recloop.agents.learners.logged.cql import CQL, CQLConfig
from recloop.agents.learners.logged.decision_transformer import DecisionTransformer, DecisionTransformerPolicy
from recloop.agents.learners.logged.iql import IQL
from recloop.agents.learners.logged.learner import LoggedLearner, learn_from_log
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import POLICIES, facts_of, load_policy, make_policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.observation import DEFAULT_KEYS
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.simulation.actions import EncoderRetriever
from recloop.envs.simulation.core import Core
from recloop.envs.trajectories.files import write_trajectories
from recloop.envs.trajectories.sources import logged
from recloop.envs.world.world import World
from recloop.experiments.comparison.evaluate import Evaluator
from recloop.experiments.comparison.intervals import t_interval

NAMES = sorted(name for name in POLICIES if issubclass(facts_of(name), LoggedLearner))
NEW = ("bc", "cql", "decision-transformer", "iql")
QUICK: dict[str, Any] = {
    "passes": 6,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "network": NetworkConfig(hidden=32, slate_dim=4, layers=1, prior=0.0, state_gain=3.0),
}
K, STEPS = 3, 4


def kind_of(name: str) -> type[LoggedLearner]:
    kind = facts_of(name)
    assert issubclass(kind, LoggedLearner)
    return kind


def trained(name: str, world: World, seed: int = 0, **changes: Any) -> Policy:
    kind = kind_of(name)
    return learn_from_log(kind, world, FitOptions(seed=seed), kind.config_class(**{**QUICK, **changes}))


def log_of(world: World, sessions: int, share: Callable[[np.random.Generator], float]) -> Sequences:
    """Sessions of four slates of three different items; each place holds an item of the user's half with chance
    `share` of the session. What is of their half is clicked."""
    n, users = len(world.catalogue), len(world.users)
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(users), sessions * STEPS)
    shares = np.repeat([share(rng) for _ in range(users * sessions)], STEPS)
    own = rng.random((len(owner), K)) < shares[:, None]
    halves = [rng.permuted(np.tile(np.arange(n // 2), (len(owner), 1)), axis=1)[:, :K] + first for first in (0, n // 2)]
    mine = np.where((owner % 2 == 1)[:, None], halves[1], halves[0])
    items = np.where(own, mine, np.where((owner % 2 == 1)[:, None], halves[0], halves[1]))
    clicks = own
    counts = clicks.sum(1)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, counts).astype(np.int64))])
    return Sequences(
        catalogue_size=n,
        offsets=offsets,
        items=items[clicks],
        feedback=np.tile(np.array([[1.0, 5.0]], dtype=np.float32), (int(counts.sum()), 1)),
        given=np.ones((int(counts.sum()), 2), dtype=bool),
        slates=Slates(
            offsets=np.arange(users + 1) * sessions * STEPS,
            items=items,
            answers=np.stack([clicks, 5.0 * clicks], axis=2).astype(np.float32),
            given=np.stack([np.ones_like(clicks), clicks], axis=2),
            consumed_before=np.concatenate([[0], np.cumsum(counts)[:-1]]) - offsets[owner],
            session=np.tile(np.repeat(np.arange(sessions), STEPS), users),
            left=np.tile(np.repeat([0, 1], [STEPS - 1, 1]), users * sessions).astype(np.int8),
        ),
    )


@pytest.fixture(scope="module")
def bad(tiny_world: World) -> World:
    """Three clicks a slate for four slates are possible: 12. The log's policy gets a fifth of that."""
    world = replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0}))
    return replace(world, sequences=log_of(world, 40, lambda rng: 0.2))


@pytest.fixture(scope="module")
def mixed(bad: World) -> World:
    """Good sessions and bad ones, by chance."""
    return replace(bad, sequences=log_of(bad, 40, lambda rng: 0.9 if rng.random() < 0.5 else 0.1))


@pytest.fixture(scope="module")
def only_liked(bad: World) -> World:
    """A log that never shows what is not of the user's half."""
    return replace(bad, sequences=log_of(bad, 40, lambda rng: 1.0))


def returns_of(policy: Policy, world: World) -> np.ndarray:
    return Evaluator(world, "train", episodes=60, users="train", seed=3).run(policy).value


@pytest.fixture(scope="module")
def cloned(bad: World) -> Policy:
    return trained("bc", bad)


def test_cloning_shows_what_the_log_showed(bad: World, cloned: Policy) -> None:
    earned = t_interval(returns_of(cloned, bad))
    assert 2.4 - 1.0 < earned.mean < 2.4 + 1.0, "a fifth of 12"
    core = Core(bad, batch=40, users="train", seed=1, keys=(*DEFAULT_KEYS, "action_mask"))
    observation = core.observe()
    slate, _ = cloned.act(observation, None, 1, core.draw())
    upper = torch.arange(10) >= 5
    chance = torch.stack([cloned.log_prob(observation, torch.full_like(slate, item)) for item in range(10)]).exp()
    assert torch.allclose(chance.sum(0), torch.ones(40), atol=1e-4)
    taste = bad.users.profile[core.users, 0] > 0
    of_half = (chance.detach() * (upper.unsqueeze(1) == taste)).sum(0)
    assert float(of_half.mean()) == pytest.approx(0.2, abs=0.08)
    known = propensities(cloned, observation, cloned.act(observation, None, K, core.draw())[0])
    assert bool(((known > 0) & (known <= 1)).all())


@pytest.mark.parametrize("name", ["cql", "iql"])
def test_it_is_better_than_the_bad_policy_that_wrote_the_log(bad: World, cloned: Policy, name: str) -> None:
    mine = returns_of(trained(name, bad, passes=12), bad)
    assert t_interval(mine - returns_of(cloned, bad)).low > 4
    assert mine.mean() > 10


def values_of(world: World, alpha: float) -> tuple[float, float]:
    """Mean values of items that were shown and of those that never were, in clicks."""
    config = CQLConfig(**QUICK, alpha=alpha)
    steps = LoggedBatches(world, EncoderRetriever(world.state_encoder, 10), config.gamma, "cpu", adds_logged=True)
    kept: list[CQL] = []

    class Kept(CQL):
        def policy(self) -> Any:
            kept.append(self)
            return super().policy()

    learn_from_log(Kept, world, FitOptions(seed=0), config)
    batch = steps.batch(steps.rows[:200])
    with torch.no_grad():
        q = kept[0].valued(batch).q * steps.spread
    items, n = batch.observation["candidates"], len(world.catalogue)
    taste = steps._profile[steps._owner[batch.rows]][:, :1] > 0
    mine = (items >= n // 2) == taste
    return float(q[mine & (items < n)].mean()), float(q[~mine & (items < n)].mean())


def test_what_was_never_shown_is_not_overvalued(only_liked: World) -> None:
    """Items of the other half are worth nothing, and the log has no example of it."""
    shown, never = values_of(only_liked, alpha=0.0)
    assert never > 0.5 * shown, "Q-learning alone believes in what it never saw"
    shown, never = values_of(only_liked, alpha=1.0)
    assert never < 0.25 * shown


def test_asked_for_a_high_return_it_earns_more_than_asked_for_a_low_one(mixed: World) -> None:
    policy = trained("decision-transformer", mixed, passes=30)
    assert isinstance(policy, DecisionTransformerPolicy)
    assert policy.target > 9, "the best tenth of sessions"
    high = returns_of(policy, mixed)
    policy.target = 1.0
    assert t_interval(high - returns_of(policy, mixed)).low > 3


def test_a_window_in_the_loop_reads_what_a_window_of_the_log_does(mixed: World) -> None:
    """Tokens that the policy keeps step by step are those that it learned from."""
    policy = trained("decision-transformer", mixed, passes=1, window=3)
    assert isinstance(policy, DecisionTransformerPolicy)
    core = Core(mixed, batch=5, users="train", seed=1, keys=(*DEFAULT_KEYS, "action_mask"))
    features, carry = policy.networks.actor.features, None
    states, slates, asked = [], [], [torch.full((5,), policy.target)]
    for step in range(2 * STEPS):
        if step % STEPS == 0:
            states, slates, asked = [], [], asked[:1]
        seen = core.observe()
        slate, carry = policy.act(seen, carry, K, core.draw())
        states.append(features.trunk_of(features.inputs(seen)).detach())
        length = min(len(states), 3)
        assert torch.allclose(carry.states[:, :length], torch.stack(states[-3:], 1), atol=1e-5)
        assert torch.allclose(carry.returns[:, :length], torch.stack(asked[-3:], 1), atol=1e-5)
        if length > 1:
            assert torch.allclose(
                carry.slates[:, : length - 1], torch.stack(slates[-2:], 1)[:, 1 - length :], atol=1e-5
            )
        moved = core.step(slate)
        slates.append(features.means(slate.unsqueeze(1), torch.zeros(5, 1, K, 2))[0][:, 0])
        asked.append(asked[-1] - moved.reward)


@pytest.mark.parametrize("name", NAMES)
def test_trained_twice_it_is_the_same_and_is_read_again(bad: World, name: str, tmp_path: Path) -> None:
    small = replace(bad, sequences=log_of(bad, 3, lambda rng: 0.5))
    first, second, other = (trained(name, small, seed, passes=2) for seed in (1, 1, 2))
    weights = first.tensors()
    assert all(torch.equal(weights[key], value) for key, value in second.tensors().items())
    assert any(not torch.equal(weights[key], value) for key, value in other.tensors().items())
    first.save(tmp_path / "policy")
    assert np.array_equal(returns_of(load_policy(tmp_path / "policy"), small), returns_of(first, small))


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_it_goes_on_bit_for_bit(bad: World, name: str, tmp_path: Path) -> None:
    small = replace(bad, sequences=log_of(bad, 2, lambda rng: 0.5))
    settings = {"passes": 3, "network": QUICK["network"]}

    def stop(tag: str, value: float, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = make_policy(name, small, FitOptions(settings=settings)).tensors()
    with pytest.raises(KeyboardInterrupt):
        make_policy(name, small, FitOptions(settings=settings, checkpoint=tmp_path / "kept", log=stop))
    parts = make_policy(name, small, FitOptions(settings=settings, checkpoint=tmp_path / "kept")).tensors()
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


@pytest.mark.parametrize("name", NAMES)
def test_from_trajectories_of_the_log_it_learns_the_same(bad: World, name: str, tmp_path: Path) -> None:
    small = replace(bad, sequences=log_of(bad, 2, lambda rng: 0.5))
    write_trajectories(logged(small), small, tmp_path / "log", "parquet")
    settings: dict[str, Any] = {"passes": 1, "network": QUICK["network"]}
    if name == "reinforce-logged":
        settings["propensity"] = "estimated"
    mine = make_policy(name, small, FitOptions(settings=settings)).tensors()
    recorded = {**settings, "data": str(tmp_path / "log")}
    theirs = make_policy(name, small, FitOptions(settings=recorded)).tensors()
    assert all(torch.allclose(value, theirs[key], atol=1e-4) for key, value in mine.items())
    with pytest.raises(PolicyError, match="are of world 'tiny'"):
        make_policy(name, replace(small, name="other"), FitOptions(settings=recorded))


def test_weights_need_propensities(bad: World, tmp_path: Path) -> None:
    write_trajectories(logged(bad), bad, tmp_path / "log", "parquet")
    with pytest.raises(PolicyError, match="trajectories of the log hold no propensities, which weights need"):
        make_policy("reinforce-logged", bad, FitOptions(settings={"data": str(tmp_path / "log")}))


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (CQL, {"alpha": -1.0}, "alpha=-1.0; it must be 0 or more"),
        (CQL, {"tau": 0.0}, r"tau=0.0; it must lie in \(0, 1\]"),
        (IQL, {"expectile": 1.0}, "expectile=1.0; it must lie between 0 and 1"),
        (DecisionTransformer, {"heads": 5}, "heads=5 is no divisor of network.hidden=64"),
        (DecisionTransformer, {"quantile": 2.0}, "quantile=2.0; it must lie in"),
        (BehaviourCloning, {"passes": 0}, "passes=0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(kind: type[LoggedLearner], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(PolicyError, match=told):
        kind.config_class(**settings)
