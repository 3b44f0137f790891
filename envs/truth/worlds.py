"""Truth worlds by name: their users are written down, so that everything learned from their logs can be checked."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.state.config import StateEncoderConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import HashedText
from recloop.envs.build.columns import item_columns
from recloop.envs.build.pipeline import split_users
from recloop.envs.interaction.randomness import Draw
from recloop.envs.interaction.response import Past
from recloop.envs.interaction.reward import WeightedReward
from recloop.envs.logs.readers.published.kuairec import WatchTable
from recloop.envs.logs.schema import Columns
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.boredom import BoredomRules, BoredomUsers
from recloop.envs.truth.catalogue import CLIPS, QualityLaw, Theme, TruthCatalogue, truth_catalogue
from recloop.envs.truth.clickbait import ClickbaitRules, ClickbaitUsers
from recloop.envs.truth.clicks import CascadeRules, CascadeUsers, ClickRules, ClickUsers
from recloop.envs.truth.drift import DriftRules, DriftUsers
from recloop.envs.truth.matrix import MatrixRules, MatrixUsers, matrix_table
from recloop.envs.truth.retention import RetentionRules, RetentionUsers
from recloop.envs.truth.tastes import TasteUsers
from recloop.envs.users.contract import UserSimulator
from recloop.envs.world.world import Card, Catalogue, UserTable, World

_DIM = 64
_HIDDEN = 32
_HISTORY, _SHOWN = 50, 5
_SHARES = (0.45, 0.15, 0.2)


Make = Callable[[Tensor, TruthCatalogue, Any, torch.Generator], UserSimulator]
"""float32 (U, T) preferences, the catalogue, the rules and a generator for what else is drawn -> users."""


@dataclass(frozen=True)
class TruthKind:
    """One kind of truth world.

    Args:
        make: the users.
        rules: the laws unless others are given.
        tastes: (spread, shift) of the normals whose sigmoids are the preferences.
        topics: T; the planner of `boredom` is exact and pays for them dearly.
        max_steps: time limit of an episode in slates.
        sessions: most sessions of an episode.
        max_days: days away that an episode holds.
    """

    make: Make
    rules: Any
    tastes: tuple[float, float] = (1.5, -0.7)
    topics: int = 6
    max_steps: int = 20
    sessions: int = 1
    max_days: float | None = None


def _tastes(users: type[TasteUsers]) -> Make:
    def make(preference: Tensor, catalogue: TruthCatalogue, rules: Any, generator: torch.Generator) -> UserSimulator:
        traits = {name: getattr(catalogue, name) for name in users.trait_names}
        return users(preference, catalogue.topic, traits, rules)

    return make


def _matrix(
    preference: Tensor, catalogue: TruthCatalogue, rules: MatrixRules, generator: torch.Generator
) -> UserSimulator:
    return MatrixUsers(matrix_table(preference, catalogue.topic, catalogue.quality, rules.top, generator), rules)


TRUTHS: Mapping[str, TruthKind] = {
    "clicks": TruthKind(_tastes(ClickUsers), ClickRules()),
    "cascade": TruthKind(_tastes(CascadeUsers), CascadeRules()),
    "boredom": TruthKind(
        _tastes(BoredomUsers), BoredomRules(levels=3, fade=0.5, leave_bored=0.08), tastes=(2.0, -1.0), topics=5
    ),
    "clickbait": TruthKind(_tastes(ClickbaitUsers), ClickbaitRules()),
    "drift": TruthKind(_tastes(DriftUsers), DriftRules()),
    "retention": TruthKind(_tastes(RetentionUsers), RetentionRules(), max_steps=40, sessions=1000, max_days=10.0),
    "matrix": TruthKind(_matrix, MatrixRules()),
}
"""Name -> kind of truth world."""


def truth_world(
    name: str,
    *,
    users: int = 500,
    items: int = 200,
    seed: int = 0,
    slate_size: int = 5,
    max_steps: int | None = None,
    topics: int | None = None,
    tastes: tuple[float, float] | None = None,
    quality: QualityLaw | None = None,
    rules: Any = None,
    theme: Theme = CLIPS,
) -> World:
    """A world whose one simulator, `truth`, is users written down. Nobody has behaved in it yet: no log, no fit.

    Item vectors are hashed words of the items' texts, which tell the topic plainly and the traits roughly; the
    state encoder is untrained. Items carry one grouping, their category, and a knowledge graph that says what the texts
    say. Popularity is the items' mean true utility over the users, blurred as any count would be.

    Args:
        name: one of `TRUTHS`.
        users, items: U, N.
        seed: of users, items and popularity.
        slate_size: K.
        max_steps: time limit of an episode in slates; default the kind's.
        topics: T; default the kind's.
        tastes: (spread, shift) of the normals whose sigmoids are the preferences; default the kind's.
        quality: how good items are.
        rules: other laws than the kind's own.
        theme: what its items are about.

    Raises:
        RecloopError: an unknown name, or sizes that do not fit.
    """
    if name not in TRUTHS:
        raise RecloopError(unknown_name("truth world", name, TRUTHS))
    kind = TRUTHS[name]
    if rules is not None and type(rules) is not type(kind.rules):
        raise RecloopError(f"rules are {type(rules).__name__}; the world '{name}' goes by {type(kind.rules).__name__}")
    rules = kind.rules if rules is None else rules
    topics = topics or kind.topics
    catalogue = truth_catalogue(topics, items, seed, quality, theme)
    generator = torch.Generator().manual_seed(seed)
    spread, shift = tastes or kind.tastes
    preference = torch.sigmoid(spread * torch.randn(users, topics, generator=generator) + shift)
    truth = kind.make(preference.clamp(1e-4, 1.0), catalogue, rules, generator)
    ids = tuple(f"user-{i}" for i in range(users))
    card = Card(
        learned=(f"Nothing is learned: the users are written down ({type(truth).__module__}).",),
        assumed=(f"All of it: {type(rules).__name__} {asdict(rules)}.",),
        not_claimed=("Real people are not claimed to behave like these users.",),
        figures={"users": users, "items": items, "topics": topics, "seed": seed},
    )
    world = blank_world(name, truth, catalogue.items, catalogue.topic, ids, generator, slate_size, card)
    return replace(
        world,
        catalogue=replace(world.catalogue, entities=tuple(catalogue.items[Columns.entity])),
        knowledge=catalogue.knowledge,
        max_steps=max_steps or kind.max_steps,
        sessions=kind.sessions,
        max_days=kind.max_days,
    )


def matrix_world(
    watched: WatchTable, *, rules: MatrixRules | None = None, seed: int = 0, slate_size: int = 5, max_steps: int = 20
) -> World:
    """The truth world `matrix` over a published table, KuaiRec's small matrix: see `MatrixUsers.from_table`.

    The categories of the videos are the items' grouping and, with their ids, all that their texts tell.

    Args:
        watched: as `recloop.envs.logs.readers.published.kuairec.read_kuairec_matrix` gives it.
        rules: the laws; default those of the made-up matrix.
        seed: of the parts of the users, and of popularity's blur.
        slate_size: K.
        max_steps: time limit of an episode in slates.
    """
    rules = rules or MatrixRules()
    truth = MatrixUsers.from_table(torch.from_numpy(watched.watch_ratio), rules)
    number, names = pd.factorize(np.array([name or "none" for name in watched.category], dtype=object))
    said = [f"category {names[place]}" for place in number]
    items = pd.DataFrame(
        {
            Columns.title: [f"Video {item}" for item in watched.items],
            Columns.text: [f"Video {item}: {text}, {text}." for item, text in zip(watched.items, said, strict=True)],
        },
        index=pd.Index(watched.items, name=Columns.item),
    )
    card = Card(
        learned=("Nothing is learned: the mean watch ratio of every pair was observed.",),
        assumed=(
            f"Everything but the table: {asdict(rules)}.",
            f"{1 - watched.density:.2%} of the pairs were not observed and have their item's mean.",
        ),
        not_claimed=("What a second showing of a video, or its place in a slate, would have changed.",),
        figures={"users": len(watched.users), "items": len(watched.items), "seed": seed},
    )
    topic = torch.from_numpy(number.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    world = blank_world("matrix", truth, items, topic, watched.users, generator, slate_size, card)
    return replace(world, max_steps=max_steps)


def blank_world(
    name: str,
    truth: UserSimulator,
    items: pd.DataFrame,
    topic: Tensor,
    users: tuple[str, ...],
    generator: torch.Generator,
    slate_size: int,
    card: Card,
) -> World:
    """A world in which nobody has behaved: enough for `truth` to be shown slates in it."""
    n, u, signals, seed = len(items), len(users), len(truth.signals), generator.initial_seed()
    if not 1 <= slate_size <= n:
        raise RecloopError(f"slate_size={slate_size} does not fit a catalogue of {n} items; choose 1 to {n}")
    texts = tuple(items[Columns.text])
    encoder = StateEncoder(
        HashedText(_DIM).encode(texts),
        [signal.bounds for signal in truth.signals],
        config=StateEncoderConfig(dim=_DIM, hidden=_HIDDEN),
        seed=seed,
    )
    return World(
        name=name,
        signals=truth.signals,
        catalogue=Catalogue(
            ids=tuple(items.index),
            titles=tuple(items[Columns.title]),
            texts=texts,
            popularity=_popularity(truth, u, n, generator),
            groups=torch.cat([topic, topic.max(0, keepdim=True).values + 1]).unsqueeze(1),
            group_names=(Columns.category,),
            columns=item_columns(items),
        ),
        users=UserTable(
            ids=users,
            part=split_users(u, _SHARES, seed),
            profile=torch.zeros(u, 0),
            profile_names=(),
            history=torch.full((u, _HISTORY), n),
            feedback=torch.zeros(u, _HISTORY, signals),
            shown=torch.full((u, _SHOWN, slate_size), n),
            answers=torch.zeros(u, _SHOWN, slate_size, signals),
        ),
        sequences=Sequences.empty(u, n, signals),
        state_encoder=encoder,
        simulators={"truth": truth},
        user_model=None,
        slate_size=slate_size,
        max_steps=20,
        consumes_twice=True,
        reward=WeightedReward({truth.signals[0].name: 1.0}),
        card=card,
    )


def _popularity(truth: UserSimulator, users: int, items: int, generator: torch.Generator) -> Tensor:
    """float32 (N,) as if counted: mean utility of each item, over all users, times log-normal noise."""
    rows = torch.arange(users)
    zeros = torch.zeros_like(rows)
    none = torch.zeros(users, 1)
    nothing = Past(none, none, none, none, none, none)
    state = truth.arrive(rows, Draw.at(0, rows, zeros, zeros))
    wanted = truth.utility(state, nothing, torch.arange(items))
    if wanted is None:
        raise RecloopError(f"{type(truth).__name__} has no utility; a truth world's users need one")
    return wanted.mean(0) * users * torch.exp(0.2 * torch.randn(items, generator=generator))
