"""A tiny world for the core and its skins: forty items, thirty users whose luck is drawn and who may leave."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past, Response, State
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import Card, Catalogue, UserTable, World

SIGNALS = (
    Signal("watch"),
    Signal("rating", "ordinal", levels=(1.0, 2.0, 3.0, 4.0, 5.0), given_on="watch"),
)
ITEMS, USERS, DIM, HISTORY, SHOWN = 40, 30, 8, 6, 3


@dataclass(frozen=True)
class Fatigue(State):
    """taste float32 (B, d); tired float32 (B,), slates seen in this session."""

    taste: Tensor
    tired: Tensor


class CuriousUsers(UserSimulator):
    """Watch an item with probability sigmoid(taste . item); leave with a probability that grows with each slate."""

    signals = SIGNALS

    def __init__(self, leave: float = 0.05) -> None:
        self.leave = leave

    def prepare(self, world: World, device: torch.device | str) -> None:
        super().prepare(world, device)
        generator = torch.Generator().manual_seed(3)
        self.taste = torch.randn(len(world.users), DIM, generator=generator).to(device)
        self.items = world.item_vectors.to(device)

    def arrive(self, users: Tensor, draw: Draw) -> Fatigue:
        return Fatigue(self.taste[users], torch.zeros(len(users), device=self.device))

    def respond(self, state: Fatigue, past: Past, slate: Tensor, draw: Draw) -> tuple[Fatigue, Response]:
        liking = (self.items[slate] * state.taste.unsqueeze(1)).sum(-1)  # (B, K)
        shown = slate < ITEMS
        watch = (draw.uniform("watch", slate) < torch.sigmoid(liking)) & shown
        rating = torch.floor(1 + 5 * draw.uniform("rating", slate)).clamp(1, 5) * watch
        response = Response(
            signals=torch.stack([watch.float(), rating], dim=2),
            given=torch.stack([shown, watch], dim=2),
            left=draw.uniform("leave") < self.leave * (state.tired + 1),
            days_away=torch.full_like(state.tired, 2.0),
        )
        return Fatigue(state.taste, state.tired + 1), response

    def resume(self, state: Fatigue, days_away: Tensor, draw: Draw) -> Fatigue:
        return Fatigue(state.taste, torch.zeros_like(state.tired))


def make_world(consumes_twice: bool = True, leave: float = 0.05, max_steps: int = 6) -> World:
    """Users with 0 to 9 logged items each; no slates in the log."""
    rng = np.random.default_rng(0)
    lists = [rng.choice(ITEMS, size=u % 10, replace=False) for u in range(USERS)]
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    items = np.concatenate(lists).astype(np.int64)
    ratings = rng.integers(1, 6, len(items))
    feedback = np.stack([np.ones(len(items)), ratings], axis=1).astype(np.float32)
    sequences = Sequences(ITEMS, offsets, items, feedback, np.ones_like(feedback, dtype=np.bool_))
    rows = np.arange(USERS)
    history, history_feedback = sequences.last(rows, HISTORY)
    shown, answers = sequences.last_slates(rows, SHOWN, 4)
    generator = torch.Generator().manual_seed(1)
    return World(
        name="tiny",
        signals=SIGNALS,
        catalogue=Catalogue(
            ids=tuple(f"item-{100 + i}" for i in range(ITEMS)),
            titles=tuple(f"Film {i}" for i in range(ITEMS)),
            texts=tuple(f"Film {i}, a story" for i in range(ITEMS)),
            popularity=torch.from_numpy(sequences.popularity(rows)),
        ),
        users=UserTable(
            ids=tuple(f"u{u}" for u in range(USERS)),
            part=torch.arange(USERS) % 4,
            profile=torch.randn(USERS, 2, generator=generator),
            profile_names=("age", "income"),
            history=history,
            feedback=history_feedback,
            shown=shown,
            answers=answers,
        ),
        sequences=sequences,
        state_encoder=StateEncoder(
            torch.randn(ITEMS, DIM, generator=generator),
            [s.bounds for s in SIGNALS],
            profile_dim=2,
            config=StateEncoderConfig(dim=DIM, hidden=8),
        ),
        simulators={"train": CuriousUsers(leave)},
        user_model=None,
        slate_size=4,
        max_steps=max_steps,
        consumes_twice=consumes_twice,
        reward=WeightedReward({"watch": 1.0}),
        card=Card(),
    )


@pytest.fixture(scope="session")
def world() -> World:
    """Users may consume an item twice."""
    return make_world()


@pytest.fixture(scope="session")
def once_world() -> World:
    """Nobody consumes an item twice."""
    return make_world(consumes_twice=False)


@pytest.fixture(scope="session")
def world_maker() -> Callable[..., World]:
    """`make_world`, for worlds with another rate of leaving or another time limit."""
    return make_world
