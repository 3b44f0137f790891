"""A world with the support of its log."""

from dataclasses import replace

import numpy as np

from recloop.envs.evidence.support.model import SupportConfig, SupportModel
from recloop.envs.logs.sequences import Ints
from recloop.envs.world.world import World


def with_support(world: World, users: Ints | None = None, config: SupportConfig | None = None) -> World:
    """The world with its log's support, which its card tells of.

    Args:
        world: its sequences are the log.
        users: int64 whose steps are the log; default all but those of part `evaluate`, who are what policies meet.
        config: how it is measured.
    """
    if users is None:
        users = np.sort(np.concatenate([world.users.rows(part).numpy() for part in ("train", "judge")]))
    support = SupportModel.fit(
        world.sequences,
        users,
        world.catalogue.groups,
        world.item_vectors,
        signals=world.signals,
        reward=world.reward,
        slate_size=world.slate_size,
        history=world.users.history.shape[1],
        shown=world.users.shown.shape[1],
        config=config,
    )
    card = world.card
    if support.is_empty:
        card = replace(card, not_claimed=(*card.not_claimed, support.sentence))
    else:
        card = replace(card, learned=(*card.learned, support.sentence))
    return replace(world, support=support, card=card)
