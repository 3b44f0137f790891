"""A saved policy that knows its items by their texts alone, taken to another world.

policy = transferred("policies/films", books)             # zero-shot
policy = transferred("policies/films", books, users=20)   # few-shot
policy = transferred("policies/films", books, users=None)  # fine-tuned on all train users
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recloop.agents.policy import FitOptions, Policy
from recloop.agents.registry import load_policy
from recloop.agents.serving import Serving
from recloop.agents.transfer.contract import TextAlone
from recloop.encoders.base.errors import PolicyError
from recloop.envs.world.tables import PARTS
from recloop.envs.world.world import World


def transferred(
    policy: Policy | Path | str,
    world: World,
    options: FitOptions | None = None,
    users: int | None = 0,
    *,
    trust: bool = False,
) -> Policy:
    """The policy in another world, through text alone: no ids are shared, one language model reads both catalogues.

    Zero-shot recommendation after ZESRec (Ding et al. 2021) and UniSRec (Hou et al. 2022). Differences: one linear map
    of the texts' vectors, less their mean over each catalogue, in place of a whitened mixture of experts; what was
    popular in the first world stays there.

    Args:
        policy: made or saved in some world. `sasrec` and its kin with `items=text`, or `lm-ranker`.
        world: where it shall act. Its signals may be others: which items were consumed is all that is read.
        options: seed, device and, where it learns on, steps and settings.
        users: 0 reads nothing of the world's users; k fits on as many train users, drawn by the seed; None on all.
        trust: whether a folder may name a class of its own to import.

    Returns:
        A policy of `world`, which can be saved, served and compared there.

    Raises:
        PolicyError: a policy that knows items by more than their texts or whose texts another language model read,
            more users than there are, or a folder that is damaged.
    """
    options = options or FitOptions()
    source = policy if isinstance(policy, Policy) else load_policy(policy, trust=trust)
    if not isinstance(source, TextAlone):
        raise PolicyError(
            f"policy '{source.name}' knows the items of its own world, and world '{world.name}' has others; train one "
            "that reads texts alone: sasrec or its kin with --set items=text, or lm-ranker"
        )
    if users == 0:
        made = source.moved(world, options.device)
    else:
        made = source.tuned(few_users(world, users, options.seed), options)
    assert isinstance(made, Policy)
    made.serving, made.name = Serving.of(world), source.name
    return made


def few_users(world: World, users: int | None, seed: int = 0) -> World:
    """The world as if only some of its train users had been met; their counts are its popularity.

    Args:
        world: with its log.
        users: how many of those who consumed something; None for all. Of one seed, fewer are among the more.
        seed: of the draw.

    Raises:
        PolicyError: for fewer than one, or more than there are.
    """
    if users is None:
        return world
    train = world.users.rows("train").numpy()
    train = train[world.sequences.lengths[train] > 0]
    if not 1 <= users <= len(train):
        raise PolicyError(
            f"users={users} of the {len(train)} train users of world '{world.name}' who consumed something; choose 1 "
            f"to {len(train)}, or None (`all`)"
        )
    met = np.random.default_rng([seed, 0x5E]).permutation(train)[:users]
    part = world.users.part.clone()
    part[world.users.rows("train")] = PARTS.index("judge")  # whom no policy reads
    part[met] = world.users.part[met]
    counts = torch.from_numpy(world.sequences.popularity(np.sort(met)))
    return replace(
        world,
        users=replace(world.users, part=part),
        catalogue=replace(world.catalogue, popularity=counts),
    )
