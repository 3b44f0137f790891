"""GRPO: its advantages by hand, that it learns the obvious from a supervised start, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from recloop.agents.learners.grpo import GRPOConfig, advantages
from recloop.agents.policy import FitOptions
from recloop.agents.registry import load_policy, make_policy, save_policy
from recloop.encoders.base.errors import PolicyError
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.world.world import World

QUICK = {"steps": 1_500, "users": 4, "group": 4, "learning_rate": 3e-3, "validations": 2, "validation_episodes": 12}


def test_advantages_are_what_followed_less_the_groups_mean_over_its_spread() -> None:
    """Two groups of two lanes, two slates; the last lane left after the first slate.

    With gamma 0.5 lanes earn 1 + 1 and 0 + 1 in all and 2, 2 in the second slate; the other group 4 and 0.
    """
    reward = torch.tensor([[1.0, 0.0, 4.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    counted = torch.tensor([[True, True, True, True], [True, True, True, False]])
    found = advantages(reward, counted, group=2, gamma=0.5, whole=False)
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]), atol=1e-4, rtol=0)
    whole = advantages(reward, counted, group=2, gamma=0.5, whole=True)
    torch.testing.assert_close(whole[1], torch.tensor([1.0, -1.0, 0.0, 0.0]), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def obvious(tiny_world: World) -> World:
    """Clicks are all that counts, and items may be consumed again: there is a best slate for ever."""
    return replace(tiny_world, consumes_twice=True, reward=WeightedReward({"click": 1.0}))


def test_grpo_betters_its_start_repeats_to_the_bit_and_is_saved_as_what_it_tuned(obvious: World, tmp_path) -> None:  # type: ignore[no-untyped-def]
    found: list[float] = []

    def log(tag: str, value: float, step: int) -> None:
        if tag == "validation/return":
            found.append(value)

    before = torch.random.get_rng_state()
    policy = make_policy("grpo", obvious, FitOptions(seed=1, settings=QUICK, log=log))
    again = make_policy("grpo", obvious, FitOptions(seed=1, settings=QUICK))
    assert torch.equal(before, torch.random.get_rng_state())
    assert max(found) > found[0] + 1
    assert all(torch.equal(a, b) for a, b in zip(policy.tensors().values(), again.tensors().values(), strict=True))
    save_policy(policy, tmp_path / "tuned")
    read = load_policy(tmp_path / "tuned")
    assert (policy.name, read.name, read.kind) == ("grpo", "grpo", "sasrec")
    assert all(torch.equal(a, read.tensors()[name]) for name, a in policy.tensors().items())


def test_a_heavy_charge_for_leaving_the_start_keeps_the_policy_near_it(obvious: World) -> None:
    moved = {}
    for kl in (0.0, 100.0):
        curve: list[float] = []

        def log(tag: str, value: float, step: int, curve: list[float] = curve) -> None:
            if tag == "train/kl":
                curve.append(value)

        make_policy("grpo", obvious, FitOptions(seed=1, settings={**QUICK, "steps": 600, "kl": kl}, log=log))
        moved[kl] = curve[-1]
    assert moved[100.0] < 0.2 * moved[0.0]


def test_what_cannot_be_tuned_is_refused_in_one_line(obvious: World) -> None:
    with pytest.raises(PolicyError, match=r"cannot tune 'popularity'.*start from sasrec"):
        make_policy("grpo", obvious, FitOptions(settings={"start": "popularity"}))
    with pytest.raises(PolicyError, match="group=1 of grpo"):
        GRPOConfig(group=1)
    with pytest.raises(PolicyError, match="temperature=0"):
        GRPOConfig(temperature=0.0)
