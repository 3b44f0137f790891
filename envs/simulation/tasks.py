"""What one asks of an environment, and the driver that answers: shared by the three skins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import torch

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.envs.interaction.item_space import item_space
from recloop.envs.interaction.reward import Reward
from recloop.envs.interaction.reward_terms import parsed_reward
from recloop.envs.interaction.rules import Rules
from recloop.envs.simulation.actions import EncoderRetriever, Retriever, make_codec
from recloop.envs.simulation.core import Core
from recloop.envs.simulation.driver import Driver
from recloop.envs.simulation.item_index import IndexKind, IndexRetriever, ItemIndex
from recloop.envs.users.contract import UserSimulator
from recloop.envs.users.registry import ENTRY_POINTS, find_simulator
from recloop.envs.world.world import World


@dataclass(frozen=True)
class TaskOptions:
    """What one may ask of an environment beside its world.

    Args:
        action_mode: `slate`, `item`, `candidates`, `proto` or `ask`; see `recloop.envs.simulation.actions`.
        one_at_a_time: fill each slate in K micro-steps; mode `candidates` only. The reward comes with the K-th.
        observation: `dict` for the default keys (no `profile` where users have none), `state` for the flat vector
            alone, or a tuple of keys.
        candidates: C, items to choose from in mode `candidates`.
        retriever: a callable `World -> Retriever` that makes them; default the state encoder's best.
        index: `flat`, `ivf` or `hnsw` finds candidates, and the items of mode `proto`, by an index in place of the
            exact search; see `recloop.envs.simulation.item_index`.
        simulator: a name in the world, `my_package.module:MyUsers`, an installed entry point, or a `UserSimulator`.
        users: a part of the world's users, or rows of the users table, to draw from.
        reward: `purchase=1 click=0.1 leaving=-0.5`, the same as a mapping, a dotted path, or a callable of `Outcome`;
            default the world's.
        rules: what every slate keeps, whoever picks it: `Rules`, a mapping, a YAML or JSON file; default the world's.
        sessions: sessions an episode; default the world's.
        start: `history` or `cold`.
        slate_size: K; default the world's, and 1 in mode `item`.
        max_steps: time limit of an episode in slates; default the world's.
        device: any torch device.
        compile: generate code for this machine at the first step, which takes a minute; see `Core`.
        native: step in compiled loops on the CPU where there are any; see `Core`.
    """

    action_mode: str = "slate"
    one_at_a_time: bool = False
    observation: str | Sequence[str] = "dict"
    candidates: int | None = None
    retriever: Callable[[World], Retriever] | Retriever | None = None
    index: IndexKind | None = None
    simulator: str | UserSimulator | None = None
    users: str | Sequence[int] = "train"
    reward: str | Sequence[str] | Mapping[str, float] | Reward | None = None
    rules: Rules | Mapping[str, Any] | Path | str | None = None
    sessions: int | None = None
    start: Literal["history", "cold"] = "history"
    slate_size: int | None = None
    max_steps: int | None = None
    device: torch.device | str = "cpu"
    compile: bool = False
    native: bool = True


def make_driver(
    world: World | Path | str | None,
    lanes: int,
    *,
    seed: int = 0,
    watched: bool = False,
    own: Sequence[str] = (),
    kind: type[Driver] = Driver,
    **options: Any,
) -> Driver:
    """A driver over a new core of `lanes` lanes, which keeps what rendering needs where it is `watched`.

    `options` are those of `TaskOptions`; a name that is none of them is a `RecloopError`, which suggests the nearest of
    these and of the skin's `own`.
    """
    known = [*own, *(option.name for option in fields(TaskOptions))]
    for name in options:
        if name not in known:
            raise RecloopError(unknown_name("option of an environment", name, known))
    asked = TaskOptions(**options)
    found = open_world(world)
    reward = asked.reward
    if reward is not None:
        reward = parsed_reward(reward, found.signals, found.catalogue.columns)
    core = Core(
        found,
        _simulator(found, asked.simulator),
        batch=lanes,
        slate_size=1 if asked.action_mode == "item" and asked.slate_size is None else asked.slate_size,
        max_steps=asked.max_steps,
        users=asked.users,
        seed=seed,
        reward=reward,
        rules=None if asked.rules is None else Rules.of(asked.rules),
        sessions=asked.sessions,
        start=asked.start,
        device=asked.device,
        compile=asked.compile,
        native=asked.native,
    )
    mode, index, retriever = asked.action_mode, asked.index, asked.retriever
    among = not isinstance(asked.observation, str) and "candidates" in asked.observation
    if retriever is None and (among or mode in ("candidates", "ask")):
        chosen = partial(IndexRetriever, index=index) if index else EncoderRetriever
        retriever = chosen(core.encoder, asked.candidates)
    elif retriever is not None and not isinstance(retriever, Retriever):
        retriever = retriever(found)
    space = core.encoder.item_vectors
    if mode == "proto":
        space = item_space(space, found.catalogue.popularity)
    codec = make_codec(
        mode,
        core.spec,
        space,
        candidates=retriever.size if retriever is not None else 0,
        one_at_a_time=asked.one_at_a_time,
        search=ItemIndex(space[:-1], index).nearest if index and mode == "proto" else None,
    )
    return kind(core, codec, asked.observation, retriever, watched)


def open_world(world: World | Path | str | None) -> World:
    """A world as it is, from its folder, or the built-in truth world."""
    if world is None:
        from recloop.envs.truth.built_in import built_in_world

        return built_in_world()
    return world if isinstance(world, World) else World.load(world)


def _simulator(world: World, simulator: str | UserSimulator | None) -> str | UserSimulator | None:
    """A simulator of this world by name, else of your own by dotted path or entry point."""
    if not isinstance(simulator, str) or simulator in world.simulators:
        return simulator
    of_your_own = ":" in simulator or entry_points(group=ENTRY_POINTS, name=simulator)
    return find_simulator(simulator)() if of_your_own else simulator
