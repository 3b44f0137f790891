"""SAC's arithmetic: the density of a squashed Gaussian, soft targets, the temperature's direction, what is shown."""

import math
from typing import Any

import pytest
import torch

from recloop.agents.learners.off_policy.sac import SAC, SACConfig, squashed
from recloop.encoders.base.errors import PolicyError


def test_the_density_of_a_squashed_gaussian_sums_to_one() -> None:
    mean, log_std = torch.tensor([[0.4]]), torch.tensor([[-0.5]])
    before = torch.linspace(-8, 8, 20_001).unsqueeze(1)
    action, log_density = squashed(mean, log_std, (before - mean) / log_std.exp())
    assert float(torch.trapezoid(log_density.exp(), action[:, 0])) == pytest.approx(1, abs=1e-3)


def test_the_density_is_that_of_torchs_distributions_and_finite_far_out() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 3, generator=generator) * 0.5 for _ in range(3))
    action, log_density = squashed(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    reference = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    assert torch.allclose(log_density, reference.log_prob(action).sum(1), atol=1e-4)
    far = squashed(torch.full((1, 3), 40.0), torch.zeros(1, 3), torch.ones(1, 3))[1]
    assert bool(torch.isfinite(far).all())


@torch.no_grad()
def test_the_slate_is_the_items_nearest_to_the_squashed_mean(rig: Any) -> None:
    learner = rig.filled(SAC, SACConfig(**rig.small))
    networks = learner.networks
    known = networks.read(learner.replay.sample(5).seen)
    slates, direction = networks.best(known, 3), networks.direction(known)
    assert bool((direction.abs() < 1).all())
    for lane in range(5):
        allowed = [item for item in range(10) if known.observation["action_mask"][lane, item]]
        near = sorted(allowed, key=lambda item: -float(direction[lane] @ networks.items[item]))[:3]
        assert slates[lane].tolist() == near + [10] * (3 - len(near))


def test_of_an_action_only_the_direction_counts(rig: Any) -> None:
    learner = rig.filled(SAC, SACConfig(**rig.small))
    batch = learner.replay.sample(5)
    known, action = learner.networks.read(batch.seen), batch.extra["action"]
    assert torch.allclose(learner.networks.values(known, action), learner.networks.values(known, 3 * action), atol=1e-6)


@torch.no_grad()
def test_what_comes_after_is_the_smaller_target_less_what_certainty_costs(rig: Any) -> None:
    learner = rig.filled(SAC, SACConfig(**rig.small))
    batch, temperature = learner.replay.sample(6), torch.tensor(0.3)
    before = learner.generator.get_state()
    later = learner._later(batch, temperature)
    learner.generator.set_state(before)
    known = learner.networks.read(batch.next_observation)
    action, log_density = learner.networks.drawn(known, learner._noise(batch))
    values = learner.targets.values(known, action)  # (2, 6)
    for row in range(6):
        wanted = min(float(values[0, row]), float(values[1, row])) - 0.3 * float(log_density[row])
        assert float(later[row]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("entropy", "rises"), [(10.0, True), (-10.0, False)])
def test_the_temperature_rises_where_there_is_too_little_entropy(rig: Any, entropy: float, rises: bool) -> None:
    learner = rig.filled(SAC, SACConfig(entropy=entropy, **rig.small))
    before = float(learner.networks.log_temperature)
    learner.update(0.0)
    assert (float(learner.networks.log_temperature) > before) == rises


def test_a_fresh_temperature_is_the_configs_and_must_be_above_zero(rig: Any) -> None:
    learner = SAC(rig.task(), SACConfig(temperature=0.2, **rig.small))
    assert math.exp(float(learner.networks.log_temperature)) == pytest.approx(0.2)
    with pytest.raises(PolicyError, match="temperature=0"):
        SACConfig(temperature=0)
