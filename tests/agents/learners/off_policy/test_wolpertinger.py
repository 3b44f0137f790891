"""Wolpertinger's arithmetic against plain loops: targets, retrieval and ranking, and what an actor ascends."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.off_policy.critics import PointCritic, follow
from recloop.agents.learners.off_policy.proto import ProtoLearner
from recloop.agents.learners.off_policy.wolpertinger import DDPG, TD3, DDPGConfig, TD3Config
from recloop.agents.networks.features import NetworkConfig
from recloop.encoders.base.errors import PolicyError


@torch.no_grad()
def test_the_best_slate_is_the_critics_choice_among_the_nearest(rig: Any) -> None:
    learner = rig.filled(DDPG, DDPGConfig(nearest=5, **rig.small))
    networks = learner.networks
    known = networks.read(learner.replay.sample(7).seen)
    slates = networks.best(known, 3)
    direction, mask = networks.direction(known), known.observation["action_mask"]
    values = networks.values(known, networks.items.expand(7, -1, -1))[0]  # (7, N+1)
    assert torch.allclose(direction.norm(dim=1), torch.ones(7))
    for lane in range(7):
        allowed = [item for item in range(10) if mask[lane, item]]
        near = sorted(allowed, key=lambda item: -float(direction[lane] @ networks.items[item]))[:5]
        best = sorted(near, key=lambda item: -float(values[lane, item]))[:3]
        assert slates[lane].tolist() == best + [10] * (3 - len(best))


def test_a_critics_first_head_alone_says_what_it_says_among_others(rig: Any) -> None:
    learner = rig.filled(TD3, TD3Config(**rig.small))
    known = learner.networks.read(learner.replay.sample(4).seen)
    points = torch.randn(4, 6, learner.networks.items.shape[1], generator=torch.Generator().manual_seed(0))
    both = learner.networks.critic(known, points)
    assert both.shape == (3, 4, 6)  # own earnings and the twins
    assert torch.allclose(learner.networks.critic(known, points, heads=1)[0], both[0], atol=1e-6)
    assert not torch.allclose(both[1], both[2])


def test_td3_takes_the_smaller_critic_after_the_step(rig: Any) -> None:
    learner = rig.filled(TD3, TD3Config(smoothing=0.0, **rig.small))
    batch = learner.replay.sample(9)
    known = learner.networks.read(batch.next_observation)
    slate = learner.targets.best(known, 3)
    values = learner.targets.values(known, learner.targets.vectors(slate))  # (2, 9, 3)
    later = learner._later(batch)
    for row in range(9):
        shown = [place for place in range(3) if slate[row, place] < 10]
        means = [float(values[head, row, shown].mean()) for head in range(2)]
        assert float(later[row]) == pytest.approx(min(means), abs=1e-5)


@pytest.mark.parametrize("kind", [DDPG, TD3])
def test_td3s_actor_moves_at_every_other_gradient_step_and_ddpgs_at_each(rig: Any, kind: type[ProtoLearner]) -> None:
    learner, moved = rig.filled(kind, kind.config_class(**{**rig.small, "updates": 1})), []
    for _ in range(4):
        before = [p.detach().clone() for p in learner.networks.actor.parameters()]
        learner.update(0.0)
        after = learner.networks.actor.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == ([True] * 4 if kind is DDPG else [True, False, True, False])


def test_the_actor_ascends_the_critic(rig: Any) -> None:
    """With the critic held still, its value at the actor's direction rises."""
    learner = rig.filled(DDPG, DDPGConfig(critic_learning_rate=0.0, learning_rate=1e-3, **rig.small))
    known = learner.networks.read(learner.replay.sample(64).seen)

    def gain() -> Tensor:
        return learner.networks.values(known, learner.networks.direction(known).unsqueeze(1)).mean()

    before = gain()
    for _ in range(10):
        learner.update(0.0)
    assert gain() > before


def test_rewards_are_told_as_multiples_of_their_mean_size(rig: Any) -> None:
    learner = DDPG(rig.task(), DDPGConfig(gamma=0.5, **rig.small))
    learner._earned.copy_(torch.tensor([12.0, 4.0]))  # four rewards of mean size 3
    assert learner._scaled(torch.tensor([3.0, -6.0])).tolist() == [0.5, -1.0]
    plain = DDPG(rig.task(), DDPGConfig(scale_rewards=False, **rig.small))
    assert plain._scaled(torch.tensor([3.0])).tolist() == [3.0]


def test_without_exploration_the_greedy_slate_is_shown_and_with_it_others_are(rig: Any) -> None:
    core = rig.core()
    seen, draw = core.observe(), core.draw()
    still = DDPG(rig.task(), DDPGConfig(noise=0.0, exploration=0.0, **rig.small))
    best = still.networks.best(still.networks.read(seen), 3)
    assert torch.equal(still.act(seen, draw).slate, best)
    wild = DDPG(rig.task(), DDPGConfig(noise=0.0, exploration=1.0, **rig.small))
    assert not torch.equal(wild.act(seen, draw).slate, best)


def test_targets_follow_by_their_share(rig: Any) -> None:
    spec, tables = rig.world.spec(), rig.task().tables
    critics = [PointCritic(tables, spec, NetworkConfig(hidden=4)) for _ in range(2)]
    wanted = [0.9 * a + 0.1 * b for a, b in zip(critics[0].parameters(), critics[1].parameters(), strict=True)]
    follow(critics[0], critics[1], 0.1)
    assert all(torch.allclose(a, b) for a, b in zip(critics[0].parameters(), wanted, strict=True))


def test_bad_settings_are_named() -> None:
    with pytest.raises(PolicyError, match="critics=3; choose 1 or 2"):
        DDPGConfig(critics=3)
    with pytest.raises(PolicyError, match=r"tau=0; it must lie in \(0, 1\]"):
        TD3Config(tau=0)
    with pytest.raises(PolicyError, match="exploration=2"):
        DDPGConfig(exploration=2)
