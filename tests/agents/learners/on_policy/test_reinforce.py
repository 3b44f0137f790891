"""REINFORCE with top-K correction: weights and gradients by hand, and that it learns, from slates and from logs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.agents.learners.logged.batches import LoggedBatch
from recloop.agents.learners.logged.learner import learn_from_log
from recloop.agents.learners.logged.reinforce import LoggedReinforce, LoggedReinforceConfig, logged_loss
from recloop.agents.learners.loop import Training
from recloop.agents.learners.on_policy.reinforce import Reinforce, ReinforceConfig
from recloop.agents.learners.top_k import Correction, top_k_factor
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.registry import facts_of, load_policy, make_policy
from recloop.agents.validation import PolicyValidation
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.sequences import Sequences, Slates
from recloop.envs.world.world import World

THETA = torch.tensor([0.3, -0.4, 0.9])
WORTH = torch.tensor([1.0, 3.0, -2.0])
BETA = torch.tensor([0.5, 0.2, 0.3])


def gradient(log_beta: torch.Tensor, shares: torch.Tensor, correction: Correction) -> torch.Tensor:
    """The expected descent where item a is logged with probability `shares[a]`: all items enumerated."""
    total = torch.zeros(3)
    for item in range(3):
        theta = THETA.clone().requires_grad_()
        log_pi = torch.log_softmax(theta, 0)[item : item + 1]
        there = torch.ones(1, dtype=torch.bool)
        correction.loss(log_pi, log_beta[item : item + 1], WORTH[item : item + 1], there).backward()
        total -= shares[item] * theta.grad
    return total


def exact(value: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    value.backward()
    return theta.grad


def test_lambda_k_by_hand():
    assert top_k_factor(torch.tensor([0.1, 0.5]), 1).tolist() == [1.0, 1.0]
    assert top_k_factor(torch.tensor([0.1, 0.5, 1.0]), 2).tolist() == pytest.approx([1.8, 1.0, 0.0])
    assert top_k_factor(torch.tensor([0.1]), 5).tolist() == pytest.approx([5 * 0.9**4])


def test_off_policy_the_gradient_is_that_of_acting_oneself():
    pi = torch.softmax(THETA, 0)
    off = gradient(BETA.log(), BETA, Correction(1, cap=100.0))
    on = gradient(pi.log(), pi, Correction(1, cap=100.0))
    theta = THETA.clone().requires_grad_()
    wanted = exact((torch.softmax(theta, 0) * WORTH).sum(), theta)
    assert torch.allclose(on, wanted, atol=1e-6)
    assert torch.allclose(off, wanted, atol=1e-6)


def test_with_top_k_it_is_that_of_the_chance_to_be_among_the_picks():
    off = gradient(BETA.log(), BETA, Correction(4, cap=100.0))
    theta = THETA.clone().requires_grad_()
    wanted = exact(((1 - (1 - torch.softmax(theta, 0)) ** 4) * WORTH).sum(), theta)
    assert torch.allclose(off, wanted, atol=1e-5)


def test_weights_are_capped_and_places_without_an_item_count_nothing():
    log_pi = torch.tensor([[0.5, 0.5, 0.5]]).log()
    log_beta = torch.tensor([[0.5, 0.01, math.e]]).log()
    there = torch.tensor([[True, True, False]])
    assert Correction(1, cap=3.0).weights(log_pi, log_beta, there).tolist() == [pytest.approx([1.0, 3.0, 0.0])]
    assert Correction(2, cap=3.0).weights(log_pi, log_beta, there).tolist() == [pytest.approx([1.0, 3.0, 0.0])]
    nis = Correction(1, cap=3.0, normalised=True).weights(log_pi, log_beta, there)
    assert nis.tolist() == [pytest.approx([0.5, 1.5, 0.0])], "1 on average over the two that are there"
    worth = torch.tensor([[2.0, 1.0, 99.0]])
    loss = Correction(1, cap=3.0).loss(log_pi, log_beta, worth, there)
    assert float(loss) == pytest.approx(-(1.0 * 2 + 3.0 * 1) * math.log(0.5) / 2)


def test_no_gradient_goes_through_the_weights():
    theta = THETA.clone().requires_grad_()
    log_pi = torch.log_softmax(theta, 0)
    assert not Correction(3).weights(log_pi, BETA.log(), torch.ones(3, dtype=torch.bool)).requires_grad


def test_in_the_loop_every_pick_counts_once(tiny_world: World):
    """Slates are the policy's own, with their exact probabilities: the first loss is that of plain REINFORCE."""
    training = Training(Reinforce, tiny_world, FitOptions(), ReinforceConfig(num_envs=8, entropy=0.0, value=0.0))
    training._collect(training._observed())
    learner = training.learner
    batches, loss_of = [], learner._loss
    learner._loss = lambda batch: batches.append((batch, loss_of(batch))) or batches[-1][1]
    learner.update(0.0)
    batch, (loss, _) = batches[0]
    plain = -(batch["worth"] * batch["log_beta"] * batch["counted"]).sum() / batch["counted"].sum()
    assert float(loss.detach()) == pytest.approx(float(plain), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"credit": "items"}, "credit='items'; choose 'item' or 'slate'"),
        ({"epochs": 0}, "epochs=0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, told: str):
    with pytest.raises(PolicyError, match=told):
        ReinforceConfig(**settings)


def test_bad_corrections_are_refused():
    with pytest.raises(PolicyError, match="cap=0; importance weights need a limit above 0"):
        Correction(cap=0)
    with pytest.raises(PolicyError, match="places=0; a slate has at least 1"):
        Correction(places=0)


def test_a_logged_propensity_is_taken_where_there_is_one_and_the_estimate_elsewhere():
    log_policy = torch.tensor([[0.5, 0.3, 0.2]]).log()
    estimate = torch.tensor([[0.2, 0.2, 0.6]]).log().requires_grad_()
    batch = LoggedBatch(
        rows=torch.tensor([0]),
        observation={},
        items=torch.tensor([[0, 2]]),
        positions=torch.tensor([[0, 2]]),
        counted=torch.tensor([[True, True]]),
        held=torch.tensor([[True, True]]),
        log_propensity=torch.tensor([[0.25, math.nan]]).log(),
        worth=torch.tensor([[1.0, 3.0]]),
        own=torch.tensor([[1.0, 3.0]]),
        reward=torch.tensor([4.0]),
        goes_on=torch.tensor([False]),
    )
    found = log_policy, estimate, torch.zeros(1, 1)
    config = LoggedReinforceConfig(entropy=0.0, value=0.0, behaviour=0.0)
    # worths of 1 and 3 are -1 and 1 once standardised
    loss, parts = logged_loss(found, batch, Correction(cap=10.0), config)
    wanted = (0.5 / 0.25 * math.log(0.5) - 0.2 / 0.6 * math.log(0.2)) / 2
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)
    assert float(parts["train/weight"]) == pytest.approx((2 + 1 / 3) / 2)
    assert float(parts["train/behaviour_loss"]) == pytest.approx(-(math.log(0.2) + math.log(0.6)) / 2)
    loss, parts = logged_loss(found, batch, Correction(cap=10.0), replace(config, propensity="estimated"))
    assert float(parts["train/weight"]) == pytest.approx((0.5 / 0.2 + 1 / 3) / 2)


def random_log(world: World, slates: int) -> Sequences:
    """Every user was shown slates of three different items at random and clicked what is of their half."""
    users, k, n = len(world.users), 3, len(world.catalogue)
    generator = np.random.default_rng(5)
    items = np.stack([generator.permutation(n)[:k] for _ in range(users * slates)])
    owner = np.repeat(np.arange(users), slates)
    clicks = (items >= n // 2) == (owner % 2 == 1)[:, None]
    consumed = np.bincount(owner, clicks.sum(1)).astype(np.int64)
    answers = np.stack([clicks, 5.0 * clicks], axis=2).astype(np.float32)
    so_far = np.concatenate([[0], np.cumsum(clicks.sum(1))])
    offsets = np.cumsum([0, *consumed])
    return Sequences(
        catalogue_size=n,
        offsets=offsets,
        items=items[clicks],
        feedback=np.tile(np.array([[1.0, 5.0]], dtype=np.float32), (len(items[clicks]), 1)),
        given=np.ones((len(items[clicks]), 2), dtype=bool),
        slates=Slates(
            offsets=np.arange(users + 1) * slates,
            items=items,
            answers=answers,
            given=np.stack([np.ones_like(clicks), clicks], axis=2),
            consumed_before=so_far[:-1] - offsets[owner],
            session=np.zeros(len(items), dtype=np.int64),
            left=np.zeros(len(items), dtype=np.int8),
            propensity=np.tile(1 / np.arange(n, n - k, -1, dtype=np.float32), (len(items), 1)),
        ),
    )


@pytest.fixture(scope="module")
def logged(tiny_world: World) -> World:
    """Three clicks a slate for four slates are possible: 12. Slates as the log's get half of that."""
    world = replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0}))
    return replace(world, sequences=random_log(tiny_world, 200))


@pytest.fixture(scope="module")
def short_log(logged: World) -> World:
    return replace(logged, sequences=random_log(logged, 30))


QUICK = LoggedReinforceConfig(
    passes=5,
    batch_size=64,
    learning_rate=3e-3,
    network=NetworkConfig(hidden=32, slate_dim=4, layers=1, prior=0.0, state_gain=3.0),
)


@pytest.mark.parametrize("propensity", ["logged", "estimated"])
def test_it_learns_the_obvious_from_a_log_of_random_slates(logged: World, propensity: str):
    policy = learn_from_log(LoggedReinforce, logged, FitOptions(seed=0), replace(QUICK, propensity=propensity))
    tried = PolicyValidation(logged, 100, "cpu")
    for other in ("random", "popularity"):
        assert tried.mean_return(make_policy(other, logged)) < 8
    assert tried.mean_return(policy) > 10.5


def test_trained_twice_from_a_log_gives_equal_weights_and_is_read_again(short_log: World, tmp_path: Path):
    short = replace(QUICK, passes=2)
    first, second = (learn_from_log(LoggedReinforce, short_log, FitOptions(seed=1), short) for _ in range(2))
    other = learn_from_log(LoggedReinforce, short_log, FitOptions(seed=2), short)
    weights = first.tensors()
    assert all(torch.equal(weights[name], value) for name, value in second.tensors().items())
    assert any(not torch.equal(weights[name], value) for name, value in other.tensors().items())
    first.save(tmp_path / "policy")
    tried = PolicyValidation(short_log, 20, "cpu")
    assert tried.mean_return(load_policy(tmp_path / "policy")) == tried.mean_return(first)


def test_an_interrupted_training_from_a_log_goes_on_bit_for_bit(short_log: World, tmp_path: Path):
    config = replace(QUICK, passes=3)
    whole = learn_from_log(LoggedReinforce, short_log, FitOptions(seed=1), config).tensors()

    def stop(tag: str, value: float, step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_from_log(LoggedReinforce, short_log, FitOptions(seed=1, checkpoint=tmp_path / "kept", log=stop), config)
    told: list[int] = []
    options = FitOptions(seed=1, checkpoint=tmp_path / "kept", log=lambda tag, value, step: told.append(step))
    parts = learn_from_log(LoggedReinforce, short_log, options, config).tensors()
    assert set(told) == {2}, "two passes were kept"
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    with pytest.raises(PolicyError, match=r"is of another training: its config.cap is 10.0, here it is 5.0"):
        learn_from_log(LoggedReinforce, short_log, options, replace(config, cap=5.0))


def test_from_logs_it_is_registered_as_something_to_train(short_log: World):
    assert facts_of("reinforce-logged").trains == "log"
    curve = []
    policy = make_policy("reinforce-logged", short_log, FitOptions(steps=1, log=lambda *point: curve.append(point)))
    assert policy.name == "reinforce-logged"
    assert {"train/loss", "train/weight", "train/behaviour_loss"} <= {tag for tag, _, _ in curve}
