"""Worlds of groups: who sits together, and the world in which a row of the users table is a group.

from recloop.envs.users.together.forming import grouped
world = grouped(truth_world("clicks"), size=5, reward="least-misery")
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.state.encoder import StateEncoder
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.logs.schema import Signal
from recloop.envs.logs.sequences import Sequences
from recloop.envs.users.together.members import group_signals, of_group, put_last
from recloop.envs.users.together.rewards import group_reward
from recloop.envs.users.together.users import GroupUsers
from recloop.envs.world.tables import PARTS, Card, UserTable
from recloop.envs.world.world import World

FORMATIONS: dict[str, Callable[[int], int]] = {
    "random": lambda size: 1,
    "similar": lambda size: size,
    "family": lambda size: (size + 1) // 2,
}
"""Name -> how many members of a group of this size are alike, the first of them included; the others are drawn at
random. Friends are `similar`; in a `family` one half are alike, and the rest are whoever they are."""


def grouped(world: World, size: int, formation: str = "random", reward: str = "mean", seed: int = 0) -> World:
    """The world whose users are groups of another world's users; everything that acts in a world acts in it.

    A user is in one group, and groups never mix the parts of the users (`train`, `judge`, ...); who is left over is in
    none. What is known of a group is what is known of its members: their profiles side by side, and their logs put
    together by how many consumptions ago each thing happened. In a world where nobody consumes an item twice a group is
    not shown what one of its members consumed. The state encoder is the world's; it reads the mean of the members'
    profiles and of their signals besides consumption. Every simulator becomes `GroupUsers`, see there for the laws.
    Nobody has logs of groups, so none of this is fitted: the card says so. Support, patterns, instructions and the user
    model of single users are left out.

    Args:
        world: of single users.
        size: g, members a group.
        formation: `random`; `similar`: each group is the user drawn next and those nearest to them; `family`: half.
            Near is by cosine: of the state encoder's vectors, or, where nothing was logged and users are written down,
            of the true utilities of items.
        reward: one of `recloop.envs.users.together.rewards`.
        seed: of who sits together.

    Raises:
        RecloopError: a size below 1 or for which no part has users enough, an unknown formation or reward, users who
            cannot be told apart, groups of groups, or a world whose encoder reads histories as text.
    """
    _check(world, size, formation)
    members = form_groups(world, size, formation, seed)  # (G, g)
    signals = group_signals(world.signals, size)
    return replace(
        world,
        name=f"{world.name}-{formation}-groups-of-{size}",
        signals=signals,
        users=_users(world, members),
        sequences=_sequences(world.sequences, members.numpy()),
        state_encoder=_encoder(world.state_encoder, size, signals),
        simulators={name: GroupUsers(world, name, members) for name in world.simulators},
        user_model=None,
        reward=group_reward(reward),
        card=_card(world.card, len(members), size, formation),
        support=None,
        patterns=None,
        instruction=None,
    )


def single_world(world: World) -> World:
    """The world of single users that a world of groups was made of; `RecloopError` where it was made of none."""
    return _any_users(world).world


def members_of(world: World) -> Tensor:
    """Who sits together: int64 (G, g) rows of the single world's users table."""
    return _any_users(world).members


def form_groups(world: World, size: int, formation: str, seed: int) -> Tensor:
    """Who sits together: int64 (G, g) rows of the users table, groups of one part behind one another."""
    alike = FORMATIONS[formation](size)
    vectors = _likeness(world) if alike > 1 else None
    generator = torch.Generator().manual_seed(seed)
    found = []
    for part in PARTS:
        rows = world.users.rows(part)
        order = rows[torch.randperm(len(rows), generator=generator)]
        free = torch.ones(len(order), dtype=torch.bool)
        for _ in range(len(order) // size):
            place = free.nonzero()[:, 0]
            if vectors is not None:
                close = vectors[order[place]] @ vectors[order[place[0]]]
                close[0] = torch.inf  # whoever is next is in
                nearest = close.topk(alike).indices
                others = torch.ones(len(place), dtype=torch.bool).index_fill(0, nearest, False)
                place = torch.cat([place[nearest], place[others]])
            free[place[:size]] = False
            found.append(order[place[:size]])
    return torch.stack(found)


def _check(world: World, size: int, formation: str) -> None:
    if size < 1:
        raise RecloopError(f"size={size}; a group has at least 1 member")
    if formation not in FORMATIONS:
        raise RecloopError(unknown_name("formation of groups", formation, FORMATIONS))
    if any(isinstance(users, GroupUsers) for users in world.simulators.values()):
        raise RecloopError(f"world '{world.name}' is a world of groups already; form groups of single users")
    most = max((len(world.users.rows(part)) for part in PARTS), default=0)
    if size > most:
        raise RecloopError(
            f"groups of {size} do not fit world '{world.name}': its largest part has {most} of {len(world.users)} "
            f"users (groups stay within a part); choose a size from 1 to {most}"
        )
    if world.state_encoder.behavior is not None:
        raise RecloopError(
            f"the state encoder of world '{world.name}' reads histories as text, and nobody wrote how a group's reads; "
            "build the world without a language model in the loop"
        )


def _any_users(world: World) -> GroupUsers:
    found = next((users for users in world.simulators.values() if isinstance(users, GroupUsers)), None)
    if found is None:
        raise RecloopError(f"world '{world.name}' is no world of groups; make one with `grouped(world, size)`")
    return found


@torch.no_grad()
def _likeness(world: World) -> Tensor:
    """Vectors (U, d) of length one whose inner products say who is alike."""
    vectors = world.state_encoder.vector(world.warm_states)
    if world.is_truth and not len(world.sequences.items):
        truth, rows = world.simulator("truth"), torch.arange(len(world.users))
        truth.prepare(world, "cpu")
        users, zeros = world.users, torch.zeros_like(rows)
        past = Past(users.history, users.feedback, users.shown, users.answers, zeros, zeros.float())
        state = truth.arrive(rows, Draw.at(0, rows, zeros, zeros))
        wanted = truth.utility(state, past, torch.arange(len(world.catalogue)))
        vectors = vectors if wanted is None else wanted - wanted.mean(0)
    if bool((vectors == vectors[:1]).all()):
        raise RecloopError(f"nobody has behaved in world '{world.name}', so nobody is alike; form random groups")
    return F.normalize(vectors, dim=1)


def _users(world: World, members: Tensor) -> UserTable:
    users, size, empty = world.users, members.shape[1], len(world.catalogue)
    history = users.history[members].transpose(1, 2).flatten(1)  # (G, H g), by age
    feedback = _as_group(users.feedback[members].transpose(1, 2).flatten(1, 2), size)
    history, feedback = put_last(history, feedback, empty)
    shown, answers = users.shown[members[:, 0]], _as_group(users.answers[members[:, 0]].flatten(1, 2), 1)
    answers = answers.view(*shown.shape, -1)
    if size > 1:  # nobody was shown a slate together with others
        shown = torch.full_like(shown, empty)
        answers = answers.new_zeros(*shown.shape, feedback.shape[2])
    return UserTable(
        ids=tuple("+".join(users.ids[row] for row in rows) for rows in members.tolist()),
        part=users.part[members[:, 0]],
        profile=users.profile[members].flatten(1),
        profile_names=tuple(f"member {j} {name}" for j in range(1, size + 1) for name in users.profile_names),
        history=history,
        feedback=feedback,
        shown=shown,
        answers=answers,
    )


def _as_group(signals: Tensor, size: int) -> Tensor:
    """Signals (G, M, S) of places that belong to members 1 to g in turn, as signals of groups (G, M, 1 + g S)."""
    owner = torch.arange(signals.shape[1]) % size
    own = signals.new_zeros(*signals.shape[:2], size, signals.shape[2])
    own[:, torch.arange(len(owner)), owner] = signals
    return of_group(signals[..., 0], own)


def _sequences(log: Sequences, members: np.ndarray) -> Sequences:
    """The members' logs put together: oldest first by how many consumptions ago, then by place in the group."""
    groups, size = members.shape
    if not len(log.items):
        return Sequences.empty(groups, log.catalogue_size, 1 + size * log.feedback.shape[1])
    single = log.subset(members.flatten())
    owner = np.repeat(np.arange(groups * size), single.lengths)
    age = single.offsets[owner + 1] - np.arange(len(owner))
    order = np.lexsort((owner % size, -age, owner // size))
    place = owner[order] % size

    def own(values: np.ndarray) -> np.ndarray:
        wide = np.zeros((len(order), size, values.shape[1]), dtype=values.dtype)
        wide[np.arange(len(order)), place] = values[order]
        return np.concatenate([values[order, :1], wide.reshape(len(order), -1)], axis=1)

    return Sequences(
        catalogue_size=log.catalogue_size,
        offsets=np.concatenate([[0], single.offsets[size::size]]).astype(np.int64),
        items=single.items[order],
        feedback=own(single.feedback),
        given=own(single.given),
        times=None if single.times is None else single.times[order],
    )


@torch.no_grad()
def _encoder(encoder: StateEncoder, size: int, signals: tuple[Signal, ...]) -> StateEncoder:
    """The encoder for groups: weights of a single user's signals and profile, shared out evenly among members."""
    r, n = len(encoder.relations), encoder.catalogue_size
    entity = encoder.key_projection.in_features if r else 0
    made = StateEncoder(
        torch.zeros(n, encoder.dim),
        [signal.bounds for signal in signals],
        encoder.profile_dim * size,
        encoder.relations,
        torch.zeros(n + 1, r, entity) if r else None,
        encoder.config,
    )
    weights = dict(encoder.state_dict())
    for name in ("signal.weight", "relation_gate.weight"):
        own = weights[name].clone()
        own[:, 0] = 0.0  # that a member took it: the group's own consumption says that it counts
        weights[name] = torch.cat([weights[name][:, :1], own.repeat(1, size) / size], dim=1)
    if encoder.profile_dim:
        weights["profile.weight"] = weights["profile.weight"].repeat(1, size) / size
    weights.update(signal_low=made.signal_low, signal_high=made.signal_high)
    made.load_state_dict(weights)
    made.report = encoder.report
    return made


def _card(card: Card, groups: int, size: int, formation: str) -> Card:
    said = (
        f"{groups} groups of {size} ({formation}): who sits together was drawn, not observed; each member answers as "
        "alone, and nobody influences anybody.",
        "A group consumes what at least half of its members take, and leaves once more than half want to.",
    )
    no_claim = "Nobody has logs of groups: how real groups choose, talk and leave is not claimed."
    return replace(card, assumed=(*card.assumed, *said), not_claimed=(*card.not_claimed, no_claim))
