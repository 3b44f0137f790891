"""A world grown in place: a newer log, new users and new items, with every encoder kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import WorldError
from recloop.encoders.state.config import EncoderState
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import TextVectors
from recloop.envs.interaction.item_columns import ItemColumns, Labels
from recloop.envs.logs.compile import compile_sequences
from recloop.envs.logs.schema import Columns, LoggedBehavior
from recloop.envs.logs.sequences import Ints, Sequences, Slates
from recloop.envs.world.data import WorldData, warm_states
from recloop.envs.world.tables import Catalogue, UserTable

W = TypeVar("W", bound=WorldData)
G = TypeVar("G", bound=np.generic)

_SAMPLE = 64
"""Items whose texts are read anew, to see that it is the encoder that the world was made with."""
_CLOSE = 0.999
"""Least cosine between what a text says now and the item's vector."""


def extended(world: W, log: LoggedBehavior, text: TextVectors | None = None) -> W:
    """A world with a newer log behind its own; see `World.extended`, which also looks after who answers."""
    _check_signals(world, log)
    items, users = _ids(world.catalogue.ids, log.items.index), _ids(world.users.ids, log.users.index)
    n, before = len(world.catalogue), world.sequences
    new_items, new_users = items[n:], len(users) - len(world.users)
    named = (pd.DataFrame(index=pd.Index(ids)) for ids in (items, users))
    newer = compile_sequences(replace(log, items=next(named), users=next(named)))[0]
    keeps_slates = before.slates is not None or not len(before.items)
    if before.slates is not None and newer.slates is None:
        raise WorldError(
            f"{log.name} does not say what was shown, the log of world '{world.name}' does; give a log with exposures"
        )
    if not keeps_slates:
        newer = replace(newer, slates=None, policies=())
    older = _grown(before, len(items), new_users)
    catalogue, encoder = world.catalogue, world.state_encoder
    if new_items:
        said = log.items.loc[list(new_items)]
        encoder = _with_items(world, _vectors(world, said, text))
        catalogue = _with_rows(catalogue, said)
    table = _arrivals(world.users, users, n, len(items), newer)
    train = table.rows("train").numpy()
    catalogue = replace(catalogue, popularity=catalogue.popularity + torch.from_numpy(newer.popularity(train)))
    grown = replace(
        world,
        catalogue=catalogue,
        users=table,
        sequences=_joined(older, newer),
        state_encoder=encoder,
        # Tables about the old catalogue and the old users, which nobody fitted on the new ones.
        support=None if new_items else world.support,
        patterns=None if new_items or new_users else world.patterns,
    )
    # Read before: a day's log is read on, and not everybody's whole history again.
    if "warm_states" in vars(world) and encoder.behavior is None:
        vars(grown)["warm_states"] = _followed(grown, world.warm_states, newer)
    return grown


def _followed(world: WorldData, before: EncoderState, newer: Sequences) -> EncoderState:
    """Where the encoder is after each user's whole history: read anew for those alone who did something."""
    encoder, users, rows = world.state_encoder, world.users, np.flatnonzero(newer.lengths)
    new_users = len(users) - len(before.count)
    states = before.concatenate([before, encoder.blank(users.profile[-new_users:])]) if new_users else before
    if not len(rows):
        return states
    who = torch.from_numpy(rows)
    tables = (users.profile[who], users.history[who], users.feedback[who])
    return states.put(who, warm_states(encoder, *tables, world.sequences.subset(rows)).to(torch.device("cpu")))


def _check_signals(world: WorldData, log: LoggedBehavior) -> None:
    if log.signals != world.signals:
        theirs, mine = [s.name for s in log.signals], [s.name for s in world.signals]
        raise WorldError(f"{log.name} has the signals {theirs}, world '{world.name}' has {mine}; give a log of those")
    if not len(log.interactions):
        raise WorldError(f"{log.name} is empty; there is nothing to extend world '{world.name}' by")


def _ids(known: Sequence[str], named: pd.Index) -> tuple[str, ...]:
    """The known ids and behind them those that a table names besides."""
    return tuple(dict.fromkeys((*known, *map(str, named))))


def _vectors(world: WorldData, items: pd.DataFrame, text: TextVectors | None) -> Tensor:
    """float32 (M, d) what the texts of new items say, by the encoder that the world's own vectors come from."""
    if text is None:
        raise WorldError(
            f"{len(items)} items are new in world '{world.name}', the first '{items.index[0]}'; pass the text encoder "
            "of its items as `text`, or leave them out of the log"
        )
    if world.state_encoder.behavior is not None:
        raise WorldError(f"world '{world.name}' reads whole histories as text; it takes no new items, build it anew")
    sample = np.unique(np.linspace(0, len(world.catalogue) - 1, _SAMPLE).astype(int))
    read, own = (
        text.encode([world.catalogue.texts[row] for row in sample]),
        world.item_vectors[torch.from_numpy(sample)],
    )
    alike = F.cosine_similarity(read, own.cpu()).min().item() if read.shape == own.shape else 0.0
    if alike < _CLOSE:
        raise WorldError(
            f"the item vectors of world '{world.name}' are not what {type(text).__name__} says of their texts (least "
            f"cosine {alike:.3f}, at least {_CLOSE} wanted): they were fused or fitted; build the world anew"
        )
    return text.encode(list(items[Columns.text].fillna("").astype(str)))


def _with_items(world: WorldData, vectors: Tensor) -> StateEncoder:
    """The world's encoder with rows for new items (M, d): their content, scaled as the others'."""
    kept, n = world.state_encoder, len(world.catalogue)
    rows = F.normalize(vectors.to(kept.item_vectors), dim=-1)
    scale = (kept.out_items * kept.item_vectors).sum() / kept.item_vectors.square().sum().clamp_min(1e-12)
    encoder = copy.deepcopy(kept)
    encoder.catalogue_size = n + len(rows)
    out = rows * scale
    relations = kept.relation_rows.new_zeros(len(rows), *kept.relation_rows.shape[1:])
    grown = {
        "item_vectors": rows,
        "out_items": out,
        "pattern_weights": encoder.looks(out),
        "relation_rows": relations,
        "popularity": kept.popularity.min().expand(len(rows)),
    }
    for name, more in grown.items():
        table = getattr(kept, name)
        setattr(encoder, name, torch.cat([table[:n], more, table[n:]]))
    return encoder


def _with_rows(catalogue: Catalogue, items: pd.DataFrame) -> Catalogue:
    """The catalogue with new items behind the others; they belong to no group, and to the labels that are known."""
    n, more = len(catalogue), len(items)

    def words(column: str) -> tuple[str, ...]:
        return tuple(items[column].fillna("").astype(str)) if column in items else ("",) * more

    numbers = {
        name: _spliced(values, pd.to_numeric(items[name]) if name in items else np.full(more, np.nan))
        for name, values in catalogue.columns.numbers.items()
    }
    labels = {}
    for name, found in catalogue.columns.labels.items():
        places = {word: place for place, word in enumerate(found.names)}
        said = items[name] if name in items else [None] * more
        codes = [places.get(str(word), len(found.names)) for word in said]
        labels[name] = Labels(_spliced(found.codes, np.array(codes)), found.names)
    groups = catalogue.groups
    if len(groups):
        groups = torch.cat([groups[:n], groups[n:].expand(more, -1), groups[n:]])
    return replace(
        catalogue,
        ids=(*catalogue.ids, *map(str, items.index)),
        titles=(*catalogue.titles, *words(Columns.title)),
        texts=(*catalogue.texts, *words(Columns.text)),
        popularity=F.pad(catalogue.popularity, (0, more)),
        groups=groups,
        entities=(*catalogue.entities, *(None,) * more) if catalogue.entities else (),
        columns=ItemColumns(numbers, labels),
    )


def _spliced(values: Tensor, more: npt.ArrayLike) -> Tensor:
    """A column (N+1,) with rows before the empty place."""
    return torch.cat([values[:-1], torch.from_numpy(np.asarray(more)).to(values), values[-1:]])


def _arrivals(users: UserTable, ids: tuple[str, ...], n: int, items: int, newer: Sequences) -> UserTable:
    """The users as they arrive after the newer log; new ones are train users of whom no profile is known."""
    more, rows = len(ids) - len(users), np.arange(len(ids))

    def padded(table: Tensor, value: float = 0.0) -> Tensor:
        return torch.cat([table, table.new_full((more, *table.shape[1:]), value)])

    def old_rows(table: Tensor) -> Tensor:
        return padded(torch.where(table == n, items, table), items)

    (length, shown_length, width) = users.history.shape[1], users.shown.shape[1], users.shown.shape[2]
    history, feedback = _newest(
        old_rows(users.history), padded(users.feedback), *newer.last(rows, length), empty=items, length=length
    )
    slates = newer.last_slates(rows, shown_length, width)
    shown, answers = _newest(old_rows(users.shown), padded(users.answers), *slates, empty=items, length=shown_length)
    wishes = users.instructions
    return replace(
        users,
        ids=ids,
        part=padded(users.part),
        profile=padded(users.profile),
        history=history,
        feedback=feedback,
        shown=shown,
        answers=answers,
        instructions=(*wishes, *("",) * more) if wishes else (),
        instruction_vectors=padded(users.instruction_vectors) if wishes else users.instruction_vectors,
    )


def _newest(
    items: Tensor, values: Tensor, more: Tensor, more_values: Tensor, *, empty: int, length: int
) -> tuple[Tensor, Tensor]:
    """The newest `length` places (U, L, ...) that hold anything, of an older and a newer table."""
    items, values = torch.cat([items, more], dim=1), torch.cat([values, more_values], dim=1)
    held = (items != empty).reshape(*items.shape[:2], -1).any(-1)
    order = torch.sort(held.to(torch.int8), dim=1, stable=True).indices[:, -length:]
    rows = torch.arange(len(items)).unsqueeze(1)
    return items[rows, order], values[rows, order]


def _grown(before: Sequences, items: int, new_users: int) -> Sequences:
    """The older sequences in a larger catalogue, with users who did nothing behind the others."""

    def offsets(held: Ints) -> Ints:
        return np.concatenate([held, np.full(new_users, held[-1])])

    slates, prefix = before.slates, before.profile_prefix
    if slates is not None:
        shown = np.where(slates.items == before.catalogue_size, items, slates.items)
        slates = replace(slates, items=shown, offsets=offsets(slates.offsets))
    return replace(
        before,
        catalogue_size=items,
        offsets=offsets(before.offsets),
        slates=slates,
        profile_prefix=None if prefix is None else np.concatenate([prefix, np.zeros(new_users, dtype=np.int64)]),
    )


def _joined(older: Sequences, newer: Sequences) -> Sequences:
    """User by user, the older consumption and slates before the newer ones."""
    order, offsets = _interleaved(older.offsets, newer.offsets)

    def both(a: npt.NDArray[G], b: npt.NDArray[G]) -> npt.NDArray[G]:
        joined: npt.NDArray[G] = np.concatenate([a, b])[order]
        return joined

    timed = newer.times is not None and (older.times is not None or not len(older.items))
    older_times = older.times if older.times is not None else np.zeros(0)
    slates, policies = _joined_slates(older, newer) if newer.slates is not None else (older.slates, older.policies)
    return replace(
        older,
        offsets=offsets,
        items=both(older.items, newer.items),
        feedback=both(older.feedback, newer.feedback),
        given=both(older.given, newer.given),
        slates=slates,
        policies=policies,
        times=both(older_times, newer.times) if timed and newer.times is not None else None,
    )


def _joined_slates(older: Sequences, newer: Sequences) -> tuple[Slates, tuple[str, ...]]:
    """Likewise, of slates: narrower ones are filled with empty places, sessions are counted on."""
    old, new = older.slates, newer.slates
    if new is None or old is None:
        return new, newer.policies  # type: ignore[return-value]
    order, offsets = _interleaved(old.offsets, new.offsets)
    width = max(old.items.shape[1], new.items.shape[1])
    owner = np.repeat(np.arange(newer.users), np.diff(new.offsets))
    sessions = np.zeros(newer.users, dtype=np.int64)
    np.maximum.at(sessions, np.repeat(np.arange(older.users), np.diff(old.offsets)), old.session + 1)
    policies = tuple(dict.fromkeys((*older.policies, *newer.policies)))
    later = {
        "session": new.session + sessions[owner],
        "consumed_before": new.consumed_before + older.lengths[owner],
        "policy": None if new.policy is None else np.array([policies.index(p) for p in newer.policies])[new.policy],
    }
    fills = {"items": newer.catalogue_size, "answers": 0.0, "given": False, "propensity": np.nan}
    found: dict[str, Any] = {}
    for name in vars(old):
        a, b = getattr(old, name), later.get(name, getattr(new, name))
        if name == "propensity" and (a is None) != (b is None):
            a = np.full(old.items.shape, np.nan, dtype=np.float32) if a is None else a
            b = np.full(new.items.shape, np.nan, dtype=np.float32) if b is None else b
        if name == "offsets" or a is None or b is None:
            found[name] = offsets if name == "offsets" else None
            continue
        if name in fills:
            a, b = (_widened(one, width, fills[name]) for one in (a, b))
        found[name] = np.concatenate([a, b])[order]
    return Slates(**found), policies


def _widened(table: npt.NDArray[Any], width: int, value: float) -> npt.NDArray[Any]:
    """Slates (Q, K, ...) of `width` places."""
    more = [(0, 0), (0, width - table.shape[1]), *[(0, 0)] * (table.ndim - 2)]
    return np.pad(table, more, constant_values=value)


def _interleaved(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Where rows of two tables behind one another go, user by user, the first table's before the second's; offsets."""
    a, b = np.diff(first), np.diff(second)
    owner = np.concatenate([np.repeat(np.arange(len(a)), a), np.repeat(np.arange(len(b)), b)])
    return np.argsort(owner, kind="stable").astype(np.int64), np.concatenate([[0], np.cumsum(a + b)]).astype(np.int64)
