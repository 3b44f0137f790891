"""Double DQN: targets of places, who chooses and who values, exploration, and what is kept of a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloop.agents.learners.contract import Step
from recloop.agents.learners.loop import Training
from recloop.agents.learners.off_policy.double_dqn import DoubleDQN, DoubleDQNConfig
from recloop.agents.learners.off_policy.item_values import ItemValueLearner
from recloop.agents.learners.off_policy.replay import Replayed
from recloop.agents.learners.off_policy.slate_q import SlateQ
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.slates import explored_places
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=16, slate_dim=4, layers=1, prior=0.3, state_gain=3.0)


def collected(world: World, rounds: int, **changes: int | float) -> tuple[DoubleDQN, Training]:
    """A learner with `rounds` x 4 steps of 16 lanes in its replay, target unlike online."""
    config = DoubleDQNConfig(num_envs=16, network=SMALL, learning_starts=10**6, buffer_size=4_000, **changes)
    training = Training(DoubleDQN, world, FitOptions(seed=1), config)
    seen = training._observed()
    for _ in range(rounds):
        seen = training._collect(seen)
    learner = training.learner
    assert isinstance(learner, DoubleDQN)
    generator = torch.Generator().manual_seed(0)
    for network in (learner.online, learner.target):
        for parameter in network.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return learner, training


def textbook_later(learner: DoubleDQN, drawn: Replayed) -> Tensor:
    """The K best items by online, worth what target says, one lane and item after the other."""
    look = learner.online.look(drawn.next_observation)
    (value, online), (target_value, target) = learner.online(look), learner.target(look)
    del value  # one for all items of a lane
    later = torch.zeros(len(online))
    for lane in range(len(online)):
        left = {c: float(online[lane, c]) for c in range(online.shape[1]) if look.mask[lane, c]}
        for _ in range(min(learner.slate_size, len(left))):
            best = max(left, key=lambda c: left[c])
            del left[best]
            later[lane] += float(target[lane, best] + target_value[lane, 0])
    return later


@pytest.mark.parametrize("consumes_twice", [True, False])
@torch.no_grad()
def test_online_chooses_and_target_values(tiny_world: World, consumes_twice: bool) -> None:
    learner, _ = collected(replace(tiny_world, consumes_twice=consumes_twice), 3)
    drawn = learner.replay.sample(64)
    expected = textbook_later(learner, drawn)
    assert torch.allclose(learner._later(drawn.next_observation), expected, atol=1e-4)
    own_choice = learner.target(learner.online.look(drawn.next_observation))[1].topk(3).indices
    assert not torch.equal(
        own_choice, learner._best(drawn.next_observation, learner.online.look(drawn.next_observation))
    )


@torch.no_grad()
def test_the_sum_over_places_is_fitted_and_own_earnings_place_by_place(tiny_world: World) -> None:
    learner, _ = collected(replace(tiny_world, consumes_twice=True), 3, gamma=0.7, return_steps=1)
    drawn = learner.replay.sample(32)
    told, chosen = learner._loss(drawn), learner._chosen(drawn)
    value, scores = learner.online(chosen)
    own, rest = learner.online.parts(chosen)
    assert torch.allclose(own + rest, value + scores, atol=1e-5)
    target = drawn.reward + drawn.discount * textbook_later(learner, drawn)
    wanted = torch.nn.functional.smooth_l1_loss((value + scores).sum(1), target)
    assert float(told["train/q_loss"]) == pytest.approx(float(wanted), rel=1e-4)
    earned = torch.nn.functional.smooth_l1_loss(own, drawn.extra["own"])
    assert float(told["train/own_loss"]) == pytest.approx(float(earned), rel=1e-4)


@torch.no_grad()
def test_values_of_what_was_shown_are_those_it_had_among_the_candidates(tiny_world: World) -> None:
    """The shown items are valued from the facts kept with the step: what the whole look at candidates would give."""
    learner, training = collected(tiny_world, 3)
    seen = training._observed()
    acted = learner.act(seen, training.core.draw())
    value, scores = learner.online(learner.online.look(seen))
    assert torch.equal(seen["candidates"].gather(1, acted.extra["positions"]), acted.slate)
    training._collect(seen)
    drawn = learner.replay.sample(400)
    kept_value, kept_scores = learner.online(learner._chosen(drawn))
    found = 0
    for lane in range(16):  # where the step just kept was drawn
        same = [(drawn.seen[key] == seen[key][lane]).flatten(1).all(1) for key in ("state", "shown", "answers")]
        rows = torch.stack([*same, (drawn.slate == acted.slate[lane]).all(1)]).all(0)
        for row in rows.nonzero()[:, 0].tolist():
            assert torch.allclose(kept_value[row], value[lane], atol=1e-5)
            assert torch.allclose(kept_scores[row], scores[lane].gather(0, acted.extra["positions"][lane]), atol=1e-5)
            found += 1
    assert found


def test_a_place_earns_what_its_signals_weigh(tiny_world: World) -> None:
    world = replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0, "rating": 0.2}))
    learner, _ = collected(world, 2, return_steps=1)
    drawn = learner.replay.sample(64)
    assert torch.equal(drawn.extra["own"], 2.0 * drawn.extra["consumed"])  # a click, rated 5
    assert torch.allclose(drawn.extra["own"].sum(1), drawn.reward)
    assert 0 < float(drawn.extra["consumed"].float().mean()) < 1


def test_exploring_repeats_nothing_keeps_to_masks_and_reaches_everything(tiny_world: World) -> None:
    _, training = collected(tiny_world, 1)
    mask = torch.ones(16, 10, dtype=torch.bool)
    mask[:, 9] = False
    best = torch.tensor([[0, 1, 2]]).expand(16, -1)
    reached: set[int] = set()
    for step in range(20):
        draw = replace(training.core.draw(), key=training.core.draw().key + step)
        slate = explored_places(best, mask, 1.0, draw)
        assert all(len(set(row)) == 3 for row in slate.tolist())
        reached |= set(slate.flatten().tolist())
    assert reached == set(range(9))
    assert torch.equal(explored_places(best, mask, 0.0, training.core.draw()), best)


def test_epsilon_falls_over_its_share_of_training(tiny_world: World) -> None:
    learner, _ = collected(tiny_world, 1, exploration=0.5, last_epsilon=0.1)
    found = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        assert learner.update(progress) == {}, "too little is kept to learn from"
        found.append(float(learner._epsilon))
    assert found == pytest.approx([1.0, 0.55, 0.1, 0.1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", [DoubleDQN, SlateQ])
def test_on_a_gpu_acting_keeping_and_learning_never_wait_for_the_device(kind: type[ItemValueLearner]) -> None:
    config = kind.config_class(num_envs=16, network=SMALL, learning_starts=32, batch_size=32, buffer_size=4_000)
    training = Training(kind, built_in_world(), FitOptions(device="cuda"), config)
    learner, core = training.learner, training.core
    for _ in range(4):
        seen, draw = training._observed(), core.draw()
        with waiting_forbidden():
            acted = learner.act(seen, draw)
        moved = core.step(acted.slate)
        after = training._completed(moved.next_observation)
        step = Step(seen, acted, moved.response, moved.reward, moved.terminated, moved.truncated, after)
        with waiting_forbidden():
            learner.keep(step)
            told = learner.update(0.5)
    assert bool(torch.isfinite(told["train/loss"]))


@contextmanager
def waiting_forbidden() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_settings_that_cannot_be_are_named(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match=r"tau=0; it must lie in \(0, 1\]"):
        DoubleDQNConfig(tau=0)
    with pytest.raises(PolicyError, match="updates=0; it must be at least 1"):
        DoubleDQNConfig(updates=0)
    with pytest.raises(PolicyError, match="candidates=2 is smaller than slate_size=3"):
        collected(tiny_world, 0, candidates=2)
