"""Item space by hand: centring, the coordinate of popularity, and what an environment ranks by."""

import torch

from recloop.envs.interaction.item_space import item_space
from recloop.envs.skins.sb3_vector import SB3VecEnv
from recloop.envs.truth.built_in import built_in_world

VECTORS = torch.tensor([[5.0, 1.0], [5.0, -1.0], [5.0, 1.0], [5.0, -1.0], [0.0, 0.0]])


def test_items_of_one_text_are_told_apart_by_popularity_and_what_all_share_is_gone() -> None:
    space = item_space(VECTORS, torch.tensor([9.0, 9.0, 0.0, 0.0]))
    assert torch.equal(space[:, 0], torch.zeros(5))
    expected = torch.tensor([[1.0, 0.5], [-1.0, 0.5], [1.0, -0.5], [-1.0, -0.5]])
    torch.testing.assert_close(space[:4, 1:], expected / 1.25**0.5)  # of mean square length 1
    assert not space[4].any()


def test_an_environment_can_be_asked_for_what_is_popular() -> None:
    world = built_in_world()
    env = SB3VecEnv(world, num_envs=1, seed=0)
    assert env.action_space.shape == (world.state_encoder.dim + 1,)
    direction = torch.zeros(1, world.state_encoder.dim + 1)
    direction[0, -1] = 1.0
    slate = env.driver.codec.decode(direction, {})[0]
    assert set(slate.tolist()) == set(world.catalogue.popularity.topk(world.slate_size).indices.tolist())
