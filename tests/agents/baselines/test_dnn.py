import pytest
import torch

from recloop.agents.baselines.dnn import DNN, DNNConfig, DNNPolicy
from recloop.agents.policy import FitOptions
from recloop.encoders.base.errors import PolicyError
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.world.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return built_in_world()


def test_a_fresh_net_ranks_as_the_encoder_does(world: World) -> None:
    encoder = world.state_encoder
    net = DNN(encoder.out_items, encoder.popularity, hidden=8)
    state = torch.rand(3, encoder.dim) * 2 - 1
    torch.testing.assert_close(net(state), encoder.scores(state))


def test_it_learns_more_than_the_encoder_knew(world: World) -> None:
    """Held-out loss falls below that of the fresh net, and equal seeds give equal weights."""
    curves: dict[str, list[float]] = {}
    options = FitOptions(seed=1, steps=4, log=lambda tag, value, step: curves.setdefault(tag, []).append(value))
    policy = DNNPolicy.fit(world, options)
    assert curves["train/loss"][-1] < curves["train/loss"][0]
    assert len(curves["validation/loss"]) == 4
    again = DNNPolicy.fit(world, FitOptions(seed=1, steps=4))
    assert all(torch.equal(value, again.tensors()[name]) for name, value in policy.tensors().items())


def test_settings_without_sense_are_named() -> None:
    with pytest.raises(PolicyError, match="hidden=0 of the dnn"):
        DNNConfig(hidden=0)
