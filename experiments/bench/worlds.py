"""Worlds to measure speed in: small ones fitted as `build` fits them, their catalogue stretched to any size.

    from recloop.experiments.bench.worlds import bench_world
    world = bench_world(items=10_000, slate=10, family="recurrent", members=3)

What a step costs depends on sizes, on how much is consumed, and on how often users leave, and hardly on what was
learned. So a log of a small truth world is fitted for seconds, at default sizes, and rows of its item tables repeat.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.knowledge.graph import KnowledgeGraph
from recloop.encoders.state.batches import NextItemConfig
from recloop.encoders.state.encoder import StateEncoder
from recloop.encoders.text.encoder import HashedText, default_cache
from recloop.envs.build.encoders import EncoderConfig
from recloop.envs.build.pipeline import BuildConfig, build_world
from recloop.envs.build.stages import StageCache
from recloop.envs.logs.schema import Columns, LoggedBehavior, Times
from recloop.envs.logs.sequences import Sequences
from recloop.envs.truth.boredom import BoredomUsers
from recloop.envs.truth.built_in import BoredomWorldConfig, unlearned_world, written_log
from recloop.envs.users.fitted import FitConfig, fit_ensemble
from recloop.envs.users.fitted.ensemble import EnsembleUsers
from recloop.envs.users.fitted.neural import NeuralUsers
from recloop.envs.users.registry import load_simulator, save_simulator
from recloop.envs.world.world import UserTable, World

BenchFamily = Literal["recurrent", "attentive", "factor", "truth"]
"""Whose answers are timed: a fitted family, or users that are written down."""
MOST_ITEMS = 10_000_000
_TRUTH = BoredomWorldConfig(users=512, topics=6, items=1002, slate_size=10, logged_slates=30, sessions=4)
_NOISE = 0.05
"""Relative noise on repeated rows, so that scores have no ties."""
_NOISY = ("item_vectors", "out_items", "heads.residual", "heads.item_bias")
_DECADES, _LANGUAGES, _COUNTRIES = 8, 5, 8


@dataclass(frozen=True)
class _Base:
    """What is kept on disk: the world before it is stretched.

    Args:
        exposures: whether its users were fitted on what was shown, or on consumption alone.
        members: fits in the ensemble.
        seed: of the truth, the log and the fits.
    """

    exposures: bool
    members: int
    seed: int


def bench_world(
    items: int = 10_000,
    slate: int = 10,
    *,
    family: BenchFamily = "recurrent",
    members: int = 3,
    exposures: bool = True,
    users: int = 512,
    seed: int = 0,
    cache: Path | None = None,
) -> World:
    """A world as `build` would make it, of any number of items; the second call reads its fits from the cache.

    It has the default state encoder (d = 64, five relations, nine profile features), users of default sizes, H = 50,
    L = 10, and ends episodes after 20 slates. Rows beyond the 1,002 fitted items repeat them with a little noise.

    Args:
        items: N.
        slate: K, items shown at once.
        family: who answers: an ensemble of a fitted family under the name `train`, or the `truth`.
        members: fits in the ensemble.
        exposures: users fitted on what was shown, who feel the slate and their groups' past, may consume an item
            again, and stay away for days; False: on consumption alone, each item once, as MovieLens has it.
        users: U, rows of the users table; those beyond 512 repeat them.
        seed: of the truth, the log and the fits.
        cache: where fits are kept; default `$RECLOOP_CACHE` or `~/.cache/recloop`.

    Raises:
        RecloopError: sizes outside their limits, an unknown family.
    """
    if family not in get_args(BenchFamily):
        raise RecloopError(unknown_name("family of users", family, get_args(BenchFamily)))
    for name, value, least, most in (
        ("items", items, slate, MOST_ITEMS),
        ("slate", slate, 1, 1000),
        ("members", members, 1, 32),
        ("users", users, 8, 1_000_000),
    ):
        if not least <= value <= most:
            raise RecloopError(f"{name}={value}; a world to measure in takes {least} to {most:,}")
    stages = StageCache((cache or default_cache()) / "stages", by_code=False)
    base = _Base(exposures, members, seed)
    world = stages.keep("bench-world", _inputs(base), lambda: _built(base), _save, _load)
    if family in ("attentive", "factor") or (family == "recurrent" and exposures):  # `build` trains others there
        fitted = _fitted(family, world, base, stages)
        world = replace(world, simulators={**world.simulators, "train": fitted}, user_model=fitted)
    wanted = {"truth": world.simulators["truth"]} if family == "truth" else {"train": world.simulators["train"]}
    chosen = replace(world, simulators=wanted, user_model=None, knowledge=None, support=None, patterns=None)
    return replace(stretched(chosen, items, users, seed), slate_size=slate)


def stretched(world: World, items: int, users: int, seed: int = 0) -> World:
    """The world with so many items and users: rows are repeated, or cut. Each user stays within one copy of the items.

    Needs about 4 KB an item for three members and five relations; graph, support and patterns are left out.
    """
    n = len(world.catalogue)
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(items) % n
    simulators = {name: _stretched_users(s, n, source, users, generator) for name, s in world.simulators.items()}
    copy = torch.randint(max(items // n, 1), (users,), generator=generator) * n  # (U,) where a user's copy begins
    table, sequences = _stretched_behaviour(world, copy, items)
    old = world.catalogue
    ids = tuple(f"{old.ids[row]}/{number // n}" for number, row in enumerate(source.tolist()))
    catalogue = replace(
        old,
        ids=ids,
        titles=tuple(old.titles[row] for row in source.tolist()),
        texts=tuple(old.texts[row] for row in source.tolist()),
        popularity=old.popularity[source],
        groups=torch.cat([old.groups[:-1][source], old.groups[-1:]]),
        entities=(),
    )
    return replace(
        world,
        catalogue=catalogue,
        users=table,
        sequences=sequences,
        state_encoder=_stretched_encoder(world.state_encoder, source, generator),
        simulators=simulators,
        user_model=None,
        knowledge=None,
        support=None,
        patterns=None,
        instruction=None,
    )


def _stretched_encoder(encoder: StateEncoder, source: Tensor, generator: torch.Generator) -> StateEncoder:
    n, r = encoder.catalogue_size, len(encoder.relations)
    entity_dim = encoder.key_projection.in_features if r else 0
    longer = StateEncoder(
        torch.zeros(len(source), encoder.dim),
        encoder.signal_bounds,
        encoder.profile_dim,
        encoder.relations,
        torch.zeros(1, 1, 1).expand(len(source) + 1, r, entity_dim) if r else None,
        encoder.config,
    )
    tensors = _repeated(encoder.state_dict(), n, source, generator)
    tensors["item_vectors"] = F.normalize(tensors["item_vectors"], dim=-1)
    longer.load_state_dict(tensors, assign=True)
    return longer


def _stretched_users(users: Any, n: int, source: Tensor, count: int, generator: torch.Generator) -> Any:
    """The same users over a longer catalogue; those of a truth repeat."""
    if isinstance(users, EnsembleUsers):
        return EnsembleUsers([_stretched_users(m, n, source, count, generator) for m in users.members])
    if isinstance(users, NeuralUsers):
        sizes = replace(users.sizes, catalogue_size=len(source))
        longer = type(users)(users.signals, sizes, users.leaving)
        longer.parts().load_state_dict(_repeated(users.parts().state_dict(), n, source, generator), assign=True)
        longer.parts().requires_grad_(False)
        return longer
    if isinstance(users, BoredomUsers):
        rows = torch.arange(count) % len(users.preference)
        return _some_of(users, rows, source)
    raise RecloopError(f"the catalogue of {type(users).__name__} cannot be stretched; measure the world as it is")


def _some_of(users: BoredomUsers, rows: Tensor, items: Tensor) -> BoredomUsers:
    """The users in `rows` over the items in `items`, both in that order and however often."""
    traits = {name: values[items] for name, values in users.traits.items()}
    return BoredomUsers(users.preference[rows], users.topic[items], traits, users.rules)


def _repeated(tensors: dict[str, Tensor], n: int, source: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Tables by item (N+1, ...) or (N,) with the rows `source`, and the row of the empty place; all else as it is."""
    found = {}
    for name, tensor in tensors.items():
        if tensor.dim() and len(tensor) in (n, n + 1):
            rows = tensor[:n][source]
            if name in _NOISY and len(source) > n:
                rows[n:] *= 1 + _NOISE * torch.randn(rows[n:].shape, generator=generator)
            tensor = torch.cat([rows, tensor[n:]])
        found[name] = tensor
    return found


def _stretched_behaviour(world: World, copy: Tensor, items: int) -> tuple[UserTable, Sequences]:
    """Users and what they consumed, each in one copy of the catalogue, which begins at `copy` (U,)."""
    n, old = len(world.catalogue), world.users
    rows = torch.arange(len(copy)) % len(old)

    def moved(table: Tensor) -> Tensor:
        mine = table[rows]
        begin = copy.view(-1, *[1] * (mine.dim() - 1))
        return torch.where(mine < n, (mine + begin) % items, items)

    table = replace(
        old,
        ids=tuple(f"{old.ids[row]}/{number // len(old)}" for number, row in enumerate(rows.tolist())),
        part=old.part[rows],
        profile=old.profile[rows],
        history=moved(old.history),
        feedback=old.feedback[rows],
        shown=moved(old.shown),
        answers=old.answers[rows],
    )
    sequences = world.sequences.subset(rows.numpy())
    begin = np.repeat(copy.numpy(), sequences.lengths)
    return table, replace(sequences, catalogue_size=items, items=(sequences.items + begin) % items, slates=None)


# ---- what is fitted


def _built(base: _Base) -> World:
    """Truth, log and world, with the truth beside the users fitted on it."""
    sizes = replace(_TRUTH, seed=base.seed)
    truth = unlearned_world(sizes)
    users = truth.simulators["truth"]
    if not isinstance(users, BoredomUsers):
        raise TypeError(f"the boredom world is simulated by {type(users).__name__}")
    log = _as_logged(truth, written_log(truth, sizes), base.seed)
    log = log if base.exposures else _consumption_only(log)
    config = BuildConfig(
        slate_size=_TRUTH.slate_size,
        seed=base.seed,
        encoder=EncoderConfig(kg_epochs=5, segments=-1, topics=0, next_item=NextItemConfig(epochs=1)),
        users=_fit_config(base.seed),
        members=base.members,
        examine=False,
        use_cache=False,
    )
    world = build_world(log, config, text=HashedText(128))
    order = [truth.users.ids.index(name) for name in world.users.ids]
    items = [truth.catalogue.rows[name] for name in world.catalogue.ids]
    same = _some_of(users, torch.tensor(order), torch.tensor(items))
    return replace(world, simulators={"train": world.simulators["train"], "truth": same}, support=None, patterns=None)


def _as_logged(truth: World, log: LoggedBehavior, seed: int) -> LoggedBehavior:
    """The log with what a published one has beside it: a graph of five relations, and features of its users."""
    rng = np.random.default_rng(seed)
    graph, entities = truth.knowledge, [str(name) for name in truth.catalogue.entities]
    if graph is None:
        raise TypeError("the boredom world has a knowledge graph")
    heads = [graph.entities[row] for row in graph.triples[:, 0]] + entities * 2
    kinds = [graph.relations[row] for row in graph.triples[:, 1]]
    kinds += ["decade"] * len(entities) + ["language"] * len(entities)
    tails = [graph.entities[row] for row in graph.triples[:, 2]]
    tails += [f"decade {number}" for number in rng.integers(_DECADES, size=len(entities))]
    tails += [f"language {number}" for number in rng.integers(_LANGUAGES, size=len(entities))]
    ages, countries = rng.integers(15, 80, len(log.users)), rng.integers(_COUNTRIES, size=len(log.users))
    people = pd.DataFrame({"age": ages, "country": [f"country {c}" for c in countries]}, index=log.users.index)
    return replace(
        log,
        users=people,
        items=log.items.assign(**{Columns.entity: entities}),
        knowledge=KnowledgeGraph.from_names(heads, kinds, tails),
    )


def _consumption_only(log: LoggedBehavior) -> LoggedBehavior:
    """What was consumed, each item once and nothing else, as MovieLens has it."""
    names = [Columns.user, Columns.item, Columns.time, *(signal.name for signal in log.signals)]
    rows = log.interactions[log.interactions[log.consumption.name] == 1][names]
    rows = rows.drop_duplicates([Columns.user, Columns.item], ignore_index=True)
    return replace(log, interactions=rows, times=Times.entry, has_exposures=False)


def _fit_config(seed: int) -> FitConfig:
    """Default sizes, few and short epochs."""
    return FitConfig(epochs=2, windows_per_epoch=512, window=20, lead=10, seed=seed)


def _fitted(
    family: Literal["recurrent", "attentive", "factor"], world: World, base: _Base, stages: StageCache
) -> EnsembleUsers:
    """An ensemble of another family than `build` takes, fitted on the same users."""

    def make() -> EnsembleUsers:
        vectors, profile, groups = world.item_vectors, world.users.profile, world.catalogue.groups
        rows = world.users.rows("fit").numpy()
        settings = _fit_config(base.seed)
        return fit_ensemble(
            family, world.sequences, rows, vectors, profile, world.signals,
            members=base.members, groups=groups, config=settings,
        )[0]  # fmt: skip

    def load(folder: Path) -> EnsembleUsers:
        users = load_simulator(folder / "users")
        if not isinstance(users, EnsembleUsers):
            raise RecloopError(f"{folder} holds no ensemble")
        return users

    def save(users: EnsembleUsers, folder: Path) -> None:
        save_simulator(users, folder / "users")

    return stages.keep(f"bench-users-{family}", _inputs(base), make, save, load)


def _inputs(base: _Base) -> dict[str, object]:
    """All that the fits depend on."""
    return {"base": asdict(base), "truth": asdict(_TRUTH), "source": Path(__file__).read_text("utf-8")}


def _save(world: World, folder: Path) -> None:
    world.save(folder / "world")


def _load(folder: Path) -> World:
    return World.load(folder / "world")
