"""PPO's and A2C's arithmetic: what is reused must be what would be worked out anew."""

from dataclasses import fields, replace

import pytest
import torch

from recloop.agents.learners.contract import Step
from recloop.agents.learners.loop import Training, learn
from recloop.agents.learners.on_policy.a2c import A2C, A2CConfig
from recloop.agents.learners.on_policy.actor_critic import RolloutInputs
from recloop.agents.learners.on_policy.ppo import PPO, PPOConfig
from recloop.agents.networks.features import NetworkConfig
from recloop.agents.policy import FitOptions
from recloop.agents.sb3.zoo import agent
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.world import World

SMALL = NetworkConfig(hidden=16, slate_dim=4, layers=1)


def training(world: World, **changes: object) -> Training:
    config = PPOConfig(**{"num_envs": 6, "validation_episodes": 4, "network": SMALL, "steps": 96, **changes})  # type: ignore[arg-type]
    return Training(PPO, world, FitOptions(seed=1), config)


@pytest.mark.parametrize("consumes_twice", [True, False])
def test_what_was_worked_out_when_acting_gives_the_scores_of_the_saved_actor(
    tiny_world: World, consumes_twice: bool
) -> None:
    run = training(replace(tiny_world, consumes_twice=consumes_twice))
    networks = run.learner.networks
    torch.nn.init.normal_(networks.actor.head.scores.query.weight)
    seen = run._observed()
    for _ in range(3):
        acted = run.learner.act(seen, run.core.draw())
        run.core.step(acted.slate)
        look = RolloutInputs(*(acted.extra[f.name] for f in fields(RolloutInputs)))
        scores, value = networks(look)
        torch.testing.assert_close(scores, networks.actor(seen))
        torch.testing.assert_close(value, acted.extra["value"])
        torch.testing.assert_close(value, networks.value(networks.actor.features(seen))[:, 0])
        seen = run._observed()


def test_the_first_batch_finds_the_ratio_one_and_the_loss_of_a_plain_loop(tiny_world: World) -> None:
    run = training(tiny_world, rollout=4)
    run._collect(run._observed())
    learner, rollout = run.learner, run.learner.rollout
    advantages = learner._advantages().flatten()
    batch = {name: rollout.flat(name) for name in rollout.buffers}
    batch |= {"advantage": advantages, "target": advantages + batch["value"]}
    loss, parts = learner._loss_of(batch)
    assert float(parts["train/clip_fraction"]) == 0
    assert abs(float(parts["train/approx_kl"])) < 1e-6
    standard = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    gain, miss, unsure = 0.0, 0.0, 0.0
    for row in range(len(advantages)):
        alone = RolloutInputs(*(batch[f.name][row : row + 1] for f in fields(RolloutInputs)))
        odds = torch.softmax(learner.networks(alone)[0][0].detach(), 0)
        gain += float(standard[row])  # every ratio is 1
        miss += float(advantages[row]) ** 2  # the target is value + advantage
        unsure += float(-(odds * odds.clamp_min(1e-30).log()).sum())
    wanted = (0.5 * miss - gain - 0.01 * unsure) / len(advantages)
    assert float(loss.detach()) == pytest.approx(wanted, abs=1e-4)


def test_the_probability_of_a_drawn_slate_is_that_of_its_items_one_after_the_other(tiny_world: World) -> None:
    run = training(tiny_world)
    acted = run.learner.act(run._observed(), run.core.draw())
    scores, _ = run.learner.networks(RolloutInputs(*(acted.extra[f.name] for f in fields(RolloutInputs))))
    for lane in range(6):
        left, total = scores[lane].double().exp(), 0.0
        for position in acted.extra["positions"][lane]:
            total += float((left[position] / left.sum()).log())
            left[position] = 0
        assert float(acted.extra["log_prob"][lane]) == pytest.approx(total, abs=1e-4)


def test_values_after_the_time_limit_are_those_of_the_last_observation(tiny_world: World) -> None:
    """Episodes of four steps, cut off together: the value owed is of `after`, not of the next user's first look."""
    run = training(replace(tiny_world, consumes_twice=True), rollout=8)
    seen, wanted = run._observed(), []
    for _ in range(8):
        acted = run.learner.act(seen, run.core.draw())
        step = run.core.step(acted.slate)
        run.learner.keep(
            Step(seen, acted, step.response, step.reward, step.terminated, step.truncated, step.next_observation)
        )
        wanted.append(run.learner.networks.value_of(step.next_observation))
        seen = run._observed()
    rollout = run.learner.rollout
    assert rollout["done"][[3, 7]].all()
    torch.testing.assert_close(rollout["next_value"][3], wanted[3])
    torch.testing.assert_close(rollout["next_value"][7], wanted[7])
    advantages = run.learner._advantages()
    expected = rollout["reward"][3] + 0.9 * wanted[3] - rollout["value"][3]
    torch.testing.assert_close(advantages[3], expected)


def test_an_update_stops_early_where_the_policy_moved_too_far(tiny_world: World) -> None:
    moved = []
    for target in (None, 1e-9):
        run = training(tiny_world, target_kl=target, learning_rate=1e-2, batch_size=16)
        run._collect(run._observed())
        before = run.learner.networks.value.layers[0].weight.clone()
        run.learner.update(0.0)
        moved.append(float((run.learner.networks.value.layers[0].weight - before).abs().max()))
    assert moved[1] < moved[0]


def test_settings_equal_to_those_of_stable_baselines() -> None:
    theirs = agent("ppo").config_class(num_envs=32, n_epochs=3, ent_coef=0.02)  # type: ignore[call-arg]
    mine = PPOConfig.equal_to(theirs)
    assert (mine.num_envs, mine.epochs, mine.entropy, mine.rollout) == (32, 3, 0.02, 8)
    assert (mine.batch_size, mine.clip, mine.learning_rate, mine.network) == (512, 0.4, 5e-4, theirs.network)


def test_what_cannot_be_is_refused_in_one_line(tiny_world: World) -> None:
    with pytest.raises(PolicyError, match="candidates=2 is smaller than slate_size=3"):
        training(tiny_world, candidates=2)
    for wrong in ({"epochs": 0}, {"rollout": 0}, {"batch_size": 0}, {"clip": 0.0}, {"gae_lambda": 1.5}):
        name = next(iter(wrong))
        with pytest.raises(PolicyError, match=f"{name}={wrong[name]}"):
            PPOConfig(**wrong)  # type: ignore[arg-type]


def test_a2c_takes_one_step_of_the_size_that_its_schedule_says(tiny_world: World) -> None:
    config = A2CConfig(num_envs=6, validation_episodes=4, network=SMALL, steps=96)
    run = Training(A2C, tiny_world, FitOptions(seed=1), config)
    run._collect(run._observed())
    before = run.learner.networks.value.layers[2].bias.clone()
    told = run.learner.update(0.5)
    assert float(told["train/learning_rate"]) == pytest.approx(config.learning_rate / 2)
    moved = (run.learner.networks.value.layers[2].bias - before).abs()
    assert float(moved) == pytest.approx(config.learning_rate / 2, rel=0.01)  # Adam's first step


@pytest.mark.parametrize(("learner", "config"), [(PPO, PPOConfig), (A2C, A2CConfig)])
def test_without_a_compiler_training_goes_on_as_it_is(
    tiny_world: World, learner: type[PPO] | type[A2C], config: type[PPOConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> object:
        raise RuntimeError("no compiler")

    settings = config(num_envs=6, validation_episodes=4, network=SMALL, steps=96)
    plain = learn(learner, tiny_world, FitOptions(seed=1), settings)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.warns(RuntimeWarning, match=r"runs as it is \(RuntimeError: no compiler\)") as told:
        found = learn(learner, tiny_world, FitOptions(seed=1, compile=True), settings)
    assert sum(f"of {learner.name} cannot be compiled" in str(one.message) for one in told) == 1
    for name, value in plain.tensors().items():
        assert torch.equal(found.tensors()[name], value)
