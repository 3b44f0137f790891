"""Double DQN over proposed slates: targets against a plain loop, values worked out by hand, exploration."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recloop.agents.learners.loop import Training
from recloop.agents.learners.off_policy.slate_dqn import SlateDQN, SlateDQNConfig
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.networks.proposals import ProposalConfig, Proposals
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.world.world import World

SMALL: dict[str, Any] = {
    "num_envs": 16,
    "network": NetworkConfig(hidden=16),
    "buffer_size": 4_000,
    "batch_size": 64,
    "validation_episodes": 4,
}


@pytest.fixture(scope="module")
def halved(tiny_world: World) -> World:
    """Users click on the three items of a slate that are of their half, at every one of the steps there may be."""
    halves = torch.tensor([0] * 5 + [1] * 5 + [2]).unsqueeze(1)
    catalogue = replace(tiny_world.catalogue, groups=halves, group_names=("half",))
    return replace(tiny_world, catalogue=catalogue, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def collected(world: World, rounds: int, **changes: Any) -> Training:
    config = SlateDQNConfig(**{**SMALL, "proposals": ProposalConfig(clusters=(), mixed=0.0), **changes})
    training = Training(SlateDQN, world, FitOptions(seed=1), config)
    seen = training._observed()
    for _ in range(rounds):
        seen = training._collect(seen)
    return training


@torch.no_grad()
def test_online_chooses_and_target_values(halved: World) -> None:
    learner: Any = collected(halved, 8).learner
    generator = torch.Generator().manual_seed(0)
    for network in (learner.online, learner.target):
        for parameter in network.parameters():
            parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    drawn = learner.replay.sample(200)
    after = Proposals(*(drawn.last_extra[f"after.{f.name}"] for f in fields(Proposals)))
    (online, _), (target, value) = learner.online(after), learner.target(after)
    own = 0
    for lane, later in enumerate(learner._later(after).tolist()):
        best = max(range(online.shape[1]), key=lambda p, lane=lane: float(online[lane, p]))
        assert later == pytest.approx(float(value[lane] + target[lane, best]), abs=1e-5)
        own += best != int(target[lane].argmax())
    assert own, "the two networks never disagreed"


class Known(nn.Module):
    """Values that are known: every slate of every user is worth this much."""

    def __init__(self, worth: float) -> None:
        super().__init__()
        self.worth = nn.Parameter(torch.tensor(worth))

    def forward(self, look: Proposals) -> tuple[Tensor, Tensor]:
        scores = torch.zeros(look.there.shape)
        return scores.masked_fill(~look.there, -1e9), self.worth.expand(len(scores))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_true_values_are_a_fixed_point(halved: World, steps: int) -> None:
    """Two a slate for ever, the time limit being no end: 2 / (1 - gamma); elsewhere much is missed."""
    world = replace(halved, reward=lambda outcome: torch.full((len(outcome.slate),), 2.0))  # type: ignore[arg-type]
    learner: Any = collected(world, 12, return_steps=steps, gamma=0.75).learner
    drawn = learner.replay.sample(500)
    for worth, missed in ((8.0, 0.0), (6.0, None)):
        learner.online = learner.target = Known(worth)
        loss = float(learner._loss(drawn)["train/loss"].detach())
        assert loss == pytest.approx(0.0, abs=1e-9) if missed is not None else loss > 0.1


@pytest.mark.slow
def test_it_finds_the_values_worked_out_by_hand(halved: World) -> None:
    """Three clicks a slate of one's own half, none of the other's: 3 / (1 - 1/2) = 6, and half of that after a slip."""
    training = collected(
        halved, 0, steps=12_000, gamma=0.5, return_steps=1, learning_starts=200, exploration=1.0, learning_rate=3e-3,
        validations=1, updates=2,
    )  # fmt: skip
    training.run()
    learner: Any = training.learner
    seen = training._observed()
    with torch.no_grad():
        scores, value = learner.online(learner.online.propose(seen, 3)[0])
    q = scores + value.unsqueeze(1)  # (B, 3): of all items, of the lower half, of the upper
    upper = training.core.world.users.profile[training.core.users, 0].long()
    lane = torch.arange(len(q))
    torch.testing.assert_close(q[lane, 1 + upper], torch.full((16,), 6.0), atol=0.3, rtol=0)
    torch.testing.assert_close(q[lane, 2 - upper], torch.full((16,), 3.0), atol=0.3, rtol=0)


@torch.no_grad()
def test_exploring_reaches_every_proposal_and_none_that_is_empty(halved: World) -> None:
    training = collected(halved, 0)
    learner: Any = training.learner
    seen, reached = training._observed(), set()
    seen = {**seen, "candidates": torch.tensor([[6, 1, 9, 3, 0, 8, 2]]).expand(16, -1)}
    for step in range(20):
        draw = replace(training.core.draw(), key=training.core.draw().key + step)
        reached |= set(learner.act(seen, draw).extra["which"].tolist())
    assert reached == {0, 1, 2}
    learner._epsilon.fill_(0.0)
    greedy = learner.act(seen, training.core.draw())
    best = learner.online(learner.online.propose(seen, 3)[0])[0].argmax(1)
    assert torch.equal(greedy.extra["which"], best)


def test_too_few_candidates_are_named(halved: World) -> None:
    with pytest.raises(PolicyError, match="candidates=2 is smaller than slate_size=3"):
        collected(halved, 0, candidates=2)
