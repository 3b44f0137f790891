"""A tiny world that one can hold in the head: ten items, twelve users, two tastes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Expected, Past, Response, State
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import Card, Catalogue, UserTable, World

SIGNALS = (
    Signal("click"),
    Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="click"),
)
ITEMS = 10
USERS = 12
LENGTH = 6


@dataclass(frozen=True)
class Taste(State):
    """Which of two tastes each user has, (B,): 0 likes the lower half of the catalogue, 1 the upper."""

    taste: Tensor


class TwoTastes(UserSimulator):
    """Users consume exactly the items of their half; a user's profile says which half."""

    signals = SIGNALS

    def prepare(self, world: World, device: torch.device | str) -> None:
        super().prepare(world, device)
        self.taste = world.users.profile[:, 0].long().to(device)

    def arrive(self, users: Tensor, draw: Draw) -> Taste:
        return Taste(self.taste[users])

    def infer(self, past: Past, profile: Tensor) -> Taste:
        return Taste(profile[:, 0].long())

    def likes(self, state: Taste, items: Tensor) -> Tensor:
        return ((items >= ITEMS // 2).long() == state.taste.unsqueeze(1)) & (items < ITEMS)

    def respond(self, state: Taste, past: Past, slate: Tensor, draw: Draw) -> tuple[Taste, Response]:
        click = self.likes(state, slate)
        given = torch.stack([slate < ITEMS, click], dim=2)
        signals = torch.stack([click.float(), 5.0 * click], dim=2)
        return state, Response(signals, given, torch.zeros(len(slate), dtype=torch.bool))

    def expected(self, state: Taste, past: Past, slate: Tensor) -> Expected:
        click = self.likes(state, slate).float()
        return Expected(torch.stack([click, torch.full_like(click, 5.0)], dim=2))

    def utility(self, state: Taste, past: Past, items: Tensor) -> Tensor:
        return self.likes(state, items.expand(len(state.taste), -1)).float()


def make_tiny_world(name: str = "tiny", consumes_twice: bool = False) -> World:
    """Even users consumed items 0 to 2 in order, odd users 5 to 7; item 0 is the most popular."""
    taste = torch.arange(USERS) % 2
    lists = [[0, 1, 2] if u % 2 == 0 else [5, 6, 7] for u in range(USERS)]
    lists[1] = [0, 5, 6]
    lists[3] = [0, 5]
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    items = np.array([i for row in lists for i in row], dtype=np.int64)
    feedback = np.tile(np.array([[1.0, 4.0]], dtype=np.float32), (len(items), 1))
    sequences = Sequences(ITEMS, offsets, items, feedback, np.ones_like(feedback, dtype=np.bool_))
    rows = np.arange(USERS)
    history, history_feedback = sequences.last(rows, LENGTH)
    shown, answers = sequences.last_slates(rows, 2, 3)
    part = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
    train = (part < 2).nonzero()[:, 0].numpy()
    generator = torch.Generator().manual_seed(1)
    return World(
        name=name,
        signals=SIGNALS,
        catalogue=Catalogue(
            ids=tuple(f"item-{100 + i}" for i in range(ITEMS)),
            titles=tuple(f"Film {i}" for i in range(ITEMS)),
            texts=tuple(f"Film {i}, a story" for i in range(ITEMS)),
            popularity=torch.from_numpy(sequences.popularity(train)),
        ),
        users=UserTable(
            ids=tuple(f"u{u}" for u in range(USERS)),
            part=part,
            profile=taste.float().unsqueeze(1),
            profile_names=("taste",),
            history=history,
            feedback=history_feedback,
            shown=shown,
            answers=answers,
        ),
        sequences=sequences,
        state_encoder=StateEncoder(
            torch.randn(ITEMS, 8, generator=generator),
            [s.bounds for s in SIGNALS],
            profile_dim=1,
            config=StateEncoderConfig(dim=8, hidden=8),
        ),
        simulators={"train": TwoTastes()},
        user_model=TwoTastes(),
        slate_size=3,
        max_steps=4,
        consumes_twice=consumes_twice,
        reward=WeightedReward({"click": 1.0, "rating": 0.2}),
        card=Card(),
    )


@pytest.fixture(scope="session")
def tiny_world() -> World:
    return make_tiny_world()
