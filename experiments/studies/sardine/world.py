"""SARDINE as a truth world: its items with texts and categories, and users who write logs there."""

from dataclasses import replace

import pandas as pd
import torch

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.logs.schema import Columns
from recloop.envs.truth.worlds import blank_world
from recloop.envs.world.world import Card, World
from recloop.experiments.studies.sardine.users import VARIANTS, SardineUsers, sardine_items, sardine_tastes

_WORDS = 6
"""Times that a text names an item's only topic."""


def sardine_world(
    variant: str, *, users: int = 2000, seed: int = 0, slate_size: int = 10, max_steps: int = 20
) -> World:
    """A world whose one simulator, `truth`, is SARDINE's users. An item's text names its topics as often as they weigh
    in it, its category is the heaviest.

    Args:
        variant: one of `VARIANTS`.
        users: U.
        seed: of the users.
        slate_size: K.
        max_steps: slates an episode.

    Raises:
        RecloopError: an unknown variant, or no SARDINE.
    """
    if variant not in VARIANTS:
        raise RecloopError(unknown_name("variant of SARDINE", variant, VARIANTS))
    vectors = sardine_items()
    generator = torch.Generator().manual_seed(seed)
    truth = SardineUsers(sardine_tastes(users, vectors.shape[1], generator), vectors, VARIANTS[variant])
    rows = []
    for row, weights in enumerate(vectors.tolist()):
        words = [f"topic{t}" for t, weight in enumerate(weights) for _ in range(round(weight * _WORDS))]
        rows.append((f"item-{row}", f"Item {row}", " ".join(words), f"topic{int(vectors[row].argmax())}"))
    columns = [Columns.item, Columns.title, Columns.text, Columns.category]
    items = pd.DataFrame(rows, columns=columns).set_index(Columns.item)
    card = Card(
        learned=("Nothing is learned: the users are SARDINE's.",),
        assumed=(f"All of it: {VARIANTS[variant]}.",),
        not_claimed=("Real people are not claimed to behave like these users.",),
        figures={"users": users, "items": len(items), "seed": seed},
    )
    ids = tuple(f"user-{i}" for i in range(users))
    world = blank_world(variant, truth, items, vectors.argmax(1), ids, generator, slate_size, card)
    return replace(world, max_steps=max_steps)
