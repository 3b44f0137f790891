"""What a user's history says in the world's knowledge graph, by the attention of the world's state encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.knowledge.context import GraphContext, HistoryPath
from recloop.envs.logs.sequences import Ints

if TYPE_CHECKING:
    from recloop.envs.world.data import WorldData


@torch.no_grad()
def user_paths(
    world: WorldData, user: int, top: int = 8, because_of: int | None = None, telling: bool = False
) -> list[HistoryPath]:
    """The weightiest paths of a user's logged history, as the state encoder weighs them.

    An item counts by the encoder's gate of its signals, decayed by its age; a relation by the encoder's attention. So
    weights have the proportions that the user's vector was made with (`GraphContext`) and are not fitted afterwards. An
    encoder that does not read the graph has no attention: all relations that the history has then count alike.

    Args:
        user: row of the user.
        top: how many at most.
        because_of: row of an item; only paths that lead to it, see `GraphContext.explain`.
        telling: what sets the history apart instead, see `GraphContext.paths`.

    Returns:
        none where the world has no graph, or its graph says nothing of the history.
    """
    if world.knowledge is None:
        return []
    encoder, table = world.state_encoder, world.users
    items, signals = table.history[[user]], table.feedback[[user]]  # (1, H), (1, H, S)
    length = int(world.sequences.lengths[user]) if world.sequences.users == len(table) else 0
    if length > items.shape[1]:
        items, signals = world.sequences.last(np.array([user]), length)
    state = encoder.start(table.profile[[user]], items, signals)
    held = items[0] < len(world.catalogue)
    age = held.flip(0).cumsum(0).flip(0) - 1  # 0 the newest
    weights = encoder.gate(signals)[0] * encoder.config.decay**age * held
    focus = dict(zip(encoder.relations, encoder.relation_weights(state)[0].tolist(), strict=True))
    attention = focus if sum(focus.values()) > 0 else None
    context, history, by_item = GraphContext(world.knowledge, world.entity_rows), items[0].numpy(), weights.numpy()
    if because_of is not None:
        return context.explain(history, because_of, by_item, attention, top)
    return context.paths(history, by_item, attention, top, telling)


def user_row(world: WorldData, name: str) -> int:
    """The row of a user by external id; `RecloopError` names some that exist."""
    try:
        return world.users.ids.index(name)
    except ValueError:
        some = ", ".join(world.users.ids[:3])
        raise RecloopError(
            f"world '{world.name}' has no user '{name}'; its {len(world.users):,} users are {some}, ..."
        ) from None


def newest_items(world: WorldData, user: int, count: int) -> Ints:
    """Rows of the items a user consumed last, newest first, at most `count`."""
    history = world.users.history[user].numpy()
    return history[history < len(world.catalogue)][::-1][:count]
