"""HAC's arithmetic: scores and their inverse, the four losses against plain loops, and what they move."""

import math
from typing import Any

import pytest
import torch

from recloop.agents.learners.off_policy.hac import HAC, HACConfig
from recloop.encoders.base.errors import PolicyError


def bent(rig: Any, **changes: Any) -> Any:
    """A learner whose kernel is no longer the identity."""
    learner = rig.filled(HAC, HACConfig(**{**rig.small, **changes}))
    with torch.no_grad():
        weight = learner.networks.kernel.weight
        weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return learner


def test_an_items_score_is_the_hyper_actions_product_with_its_kernel(rig: Any) -> None:
    learner = bent(rig)
    networks = learner.networks
    known = networks.read(learner.replay.sample(4).seen)
    hyper, kernels = networks.hyper_action(known), networks.kernel(networks.items)
    scores = networks.direction(known) @ networks.items.T
    assert torch.allclose(scores, hyper @ kernels.T, atol=1e-5)


def test_the_hyper_action_inferred_from_a_slate_is_the_mean_of_its_items_kernels(rig: Any) -> None:
    networks = bent(rig).networks
    kernels = networks.kernel(networks.items)
    inferred = networks.inferred(torch.tensor([[1, 4, 7], [2, 5, 10]]))
    assert torch.allclose(inferred[0], (kernels[1] + kernels[4] + kernels[7]) / 3, atol=1e-6)
    assert torch.allclose(inferred[1], (kernels[2] + kernels[5]) / 2, atol=1e-6)


@torch.no_grad()
def test_the_supervised_loss_is_the_log_loss_of_the_shown_items(rig: Any) -> None:
    learner = bent(rig)
    networks, batch = learner.networks, learner.replay.sample(5)
    action = networks.hyper_action(networks.read(batch.seen))
    slope, level = (networks.odds_gain * networks.odds.detach()).tolist()
    slope = math.log(1 + math.exp(slope))
    losses = []
    for row in range(5):
        shown = [place for place in range(3) if batch.slate[row, place] < 10]
        total = 0.0
        for place in shown:
            score = float(action[row] @ networks.kernel(networks.items[batch.slate[row, place]]))
            chance = 1 / (1 + math.exp(-(slope * score + level)))
            total -= math.log(chance if batch.extra["consumed"][row, place] else 1 - chance)
        losses.append(total / max(len(shown), 1))
    assert float(learner._surprise(batch, action)) == pytest.approx(sum(losses) / 5, abs=1e-5)


@torch.no_grad()
def test_the_alignment_is_the_distance_to_what_the_actions_own_slate_says(rig: Any) -> None:
    learner = bent(rig)
    networks = learner.networks
    known = networks.read(learner.replay.sample(5).seen)
    action = networks.hyper_action(known)
    slate = networks.best(known, 3)
    rows = []
    for r in range(5):
        inferred = networks.inferred(slate[r : r + 1])[0]
        rows.append(float((action[r] / action[r].norm() - inferred / inferred.norm()).square().sum()))
    assert float(learner._distance(known, action)) == pytest.approx(sum(rows) / 5, abs=1e-5)


def test_the_critic_waits_for_nobody_and_the_actor_for_the_critic(rig: Any) -> None:
    learner = rig.filled(HAC, HACConfig(**{**rig.small, "actor_starts": 2}))
    actor = [p.detach().clone() for p in learner.networks.actor.parameters()]
    critic = [p.detach().clone() for p in learner.networks.critic.parameters()]
    assert set(learner.update(0.0)) == {"train/loss"}
    assert all(torch.equal(a, b) for a, b in zip(actor, learner.networks.actor.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(critic, learner.networks.critic.parameters(), strict=True))
    assert "train/alignment_loss" in learner.update(0.0)
    assert any(not torch.equal(a, b) for a, b in zip(actor, learner.networks.actor.parameters(), strict=True))


def test_a_score_never_lowers_the_odds_and_alignment_leaves_the_kernel_alone(rig: Any) -> None:
    learner = bent(rig)
    networks = learner.networks
    networks.odds.data[0] = -1.0
    slate = torch.arange(10).unsqueeze(0)
    hyper = networks.items[3:4] @ networks.kernel.weight.T
    scores = networks.in_item_space(hyper) @ networks.items[:-1].T
    odds = networks.log_odds(hyper, slate)
    order = scores[0].argsort()
    assert bool((odds[0, order].diff() >= 0).all())
    known = networks.read(learner.replay.sample(5).seen)
    loss = learner._distance(known, networks.hyper_action(known))
    assert torch.autograd.grad(loss, networks.kernel.weight, allow_unused=True, retain_graph=True) == (None,)
    assert any(
        g.abs().sum() > 0
        for g in torch.autograd.grad(loss, list(networks.actor.parameters()), allow_unused=True)
        if g is not None
    )


def test_the_critic_is_fitted_to_what_the_actor_asks_it_about(rig: Any) -> None:
    """After enough of the critic alone, it knows drawn hyper-actions as well as inferred ones, at any length."""
    learner = rig.filled(HAC, HACConfig(**{**rig.small, "actor_starts": 10**6, "gamma": 0.0}))
    for _ in range(150):
        learner.update(0.0)
    batch = learner.replay.sample(64)
    known, networks = learner.networks.read(batch.seen), learner.networks
    target = learner._scaled(batch.reward)
    for hyper_action in (batch.extra["drawn"], 3 * batch.extra["drawn"], networks.inferred(batch.slate)):
        miss = (networks.value(known, hyper_action) - target).square().mean()
        assert float(miss.detach()) < 0.5 * float(target.var())


def test_supervision_alone_raises_the_scores_of_what_was_consumed(rig: Any) -> None:
    settings = {**rig.small, "alignment": 0.0, "supervision": 100.0, "learning_rate": 3e-3}
    learner = rig.filled(HAC, HACConfig(**settings))
    batch = learner.replay.sample(64)

    def surprise() -> float:
        known = learner.networks.read(batch.seen)
        return float(learner._surprise(batch, learner.networks.hyper_action(known)).detach())

    before = surprise()
    for _ in range(10):
        learner.update(0.0)
    assert surprise() < before


def test_negative_weights_are_named() -> None:
    with pytest.raises(PolicyError, match="alignment=-1; it must be at least 0"):
        HACConfig(alignment=-1)
