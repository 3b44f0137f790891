"""The benchmark of the environment: user-steps a second by family, batch, catalogue and skin, beside their bounds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from recloop.encoders.base.errors import RecloopError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.envs.simulation.core import checked_device
from recloop.envs.simulation.item_index import IndexKind
from recloop.envs.truth.built_in import built_in_world
from recloop.envs.world.world import World
from recloop.experiments.bench.bounds import (
    LOOP_ITEMS,
    Cost,
    Machine,
    cart_pole,
    cost,
    machine_paces,
    numpy_loop,
    sardine,
)
from recloop.experiments.bench.memory import Footprint, footprint
from recloop.experiments.bench.steps import Skin, StepSubject, compulsory_bytes, driver_of, paced
from recloop.experiments.bench.timing import Pace, Paced, Row, in_turn
from recloop.experiments.bench.worlds import MOST_ITEMS, BenchFamily, bench_world
from recloop.experiments.provenance import use_threads
from recloop.experiments.settings import at_least

BATCHES, GPU_BATCHES = (1, 64, 1024, 4096, 16384), (65_536, 262_144)
MOST_LANES = 1_000_000
_ITEMS, _BATCH, _SKIN_BATCH, _FEW = 10_000, 4096, 1024, 64
"""Where families are compared, skins, and searches among a million items."""
_DEFAULT_AIM, _USERS_AIM, _SINGLE_AIM, _SKIN_AIM, _MILLION_AIM = 1 / 40, 1 / 17, 1 / 20, 0.8, 0.7
_NATIVE_AIM, _MANY = 10, 256
"""Least gain of the native step over torch's for few lanes."""
_MILLION = 1_000_000


@dataclass(frozen=True)
class BenchEnvConfig:
    """Time the environment: user-steps a second."""

    world: Path | None = None
    """World folder to measure in as it is; default made-up worlds of every size."""
    families: tuple[BenchFamily, ...] = ("recurrent", "attentive", "factor", "truth")
    """Whose answers are timed; the first one over all batches and catalogues."""
    batches: tuple[int, ...] = ()
    """Lanes at once; default 1 to 16,384, and to 262,144 on a GPU."""
    items: tuple[int, ...] = (1_000, _ITEMS, 100_000, _MILLION)
    """Items of the catalogue."""
    skins: tuple[Skin, ...] = ("core", "single", "vector", "tensors", "sb3")
    """What is stepped."""
    logs: tuple[Literal["exposures", "consumption"], ...] = ("exposures", "consumption")
    """Users fitted on what was shown, or on consumption alone."""
    compiled: bool = False
    """Whether every family, and the single env, is measured with a compiled step too: a minute's compilation each."""
    slate: int = 10
    """Items shown at once."""
    members: int = 3
    """Fits in an ensemble of users."""
    memory: bool = True
    """Whether memory and the time to make a world are measured, in processes of their own."""
    roofline: bool = True
    """Whether bytes and operations of a step are counted, and the bound that follows."""
    quick: bool = False
    """A minute's worth: fewer sizes and turns."""
    repeats: int = 7
    """Turns of a measurement; the median counts."""
    threads: int = 1
    """Torch threads."""
    device: str = "cpu"
    """Torch device."""
    seed: int = 0
    """Of worlds, lanes and actions."""
    out: Path | None = None
    """Folder for bench.json, bench.csv and the picture."""
    keep: Path | None = None
    """CSV into which the rows are put, such as experiments/results/speed.csv."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        for name, given, known in (
            ("family of users", self.families, get_args(BenchFamily)),
            ("skin", self.skins, get_args(Skin)),
            ("kind of log", self.logs, ("exposures", "consumption")),
        ):
            for value in given:
                if value not in known:
                    raise RecloopError(unknown_name(name, value, known))
            if not given:
                raise RecloopError(f"no {name} is named; choose among {', '.join(known)}")
        for name, sizes, most in (("batches", self.batches, MOST_LANES), ("items", self.items, MOST_ITEMS)):
            for size in sizes:
                if not 1 <= size <= most:
                    raise RecloopError(f"--{name} {size}; choose 1 to {most:,}")
        at_least(1, slate=self.slate, members=self.members, repeats=self.repeats, threads=self.threads)

    @property
    def lanes(self) -> tuple[int, ...]:
        """The batches that are measured."""
        if self.batches:
            return self.batches
        if self.quick:
            return (1, 64, 1024, _BATCH)
        return BATCHES + (GPU_BATCHES if self.device.startswith("cuda") else ())

    @property
    def catalogues(self) -> tuple[int, ...]:
        """The sizes that are measured."""
        return tuple(n for n in self.items if n <= _ITEMS) or self.items if self.quick else self.items

    @property
    def pace(self) -> Pace:
        """How long a measurement takes."""
        return Pace(3, 0.1) if self.quick else Pace(self.repeats)


@dataclass(frozen=True)
class Bound:
    """A measured rate beside what the machine allows.

    Args:
        what: of the row.
        value: user-steps a second, measured in turns with the machine.
        cost: of one user-step.
        machine: what it gave in the same turns.
    """

    what: str
    value: float
    cost: Cost
    machine: Machine


@dataclass(frozen=True)
class EnvFigures:
    """All that `recloop bench env` measured."""

    rows: list[Row]
    bounds: list[Bound]
    footprints: list[Footprint]


def bench_env(config: BenchEnvConfig) -> EnvFigures:
    """Measure; see `BenchEnvConfig`.

    Raises:
        RecloopError: a device that is not there, lanes that do not fit into memory (says how many do).
    """
    checked_device(config.device)
    use_threads(config.threads)
    plan = list(_plan(config))
    bench = _Bench(config)
    rows: list[Row] = []
    bounds: list[Bound] = []
    with progress_bar(plan, desc="bench env", unit="row", disable=not config.progress) as bar:
        for point in bar:
            bar.set_postfix_str(f"{point.what}, {point.batch:,} x {point.items:,}")
            row, bound = bench.measured(point)
            rows.append(row)
            bounds += [bound] if bound else []
            if config.progress:  # an interrupted run has said what it found
                bar.write(
                    f"{row.what}, {row.batch:,} x {row.items:,}: {row.value:,.0f} {row.unit}, ratio {row.ratio:.3g}"
                )
    rows += _references(config)
    prints: list[Footprint] = []
    if config.memory and config.world is None and not config.quick:
        prints = [footprint(n, config.families[0], config.members, config.slate) for n in config.catalogues]
    return EnvFigures(rows, bounds, prints)


def _references(config: BenchEnvConfig) -> list[Row]:
    """What the rows are held against, by itself."""
    loops = [numpy_loop(batch, config.slate) for batch in (_SKIN_BATCH, _BATCH)]
    others = [cart_pole(config.seed), *([sardine(config.seed)] if find_spec("sardine") else [])]
    rates = [float(rate) for rate in np.median(in_turn([*loops, *others], config.pace), axis=0)]
    at = partial(Row, device="cpu", threads=config.threads)
    rows = [
        at(what="bare NumPy loop", batch=loop.batch, items=LOOP_ITEMS, slate=config.slate, value=rate)
        for loop, rate in zip(loops, rates, strict=False)
    ]
    alone = zip(others, rates[len(loops) :], strict=True)
    return [*rows, *(at(what=one.name, batch=1, items=0, slate=0, value=rate, unit="steps/s") for one, rate in alone)]


@dataclass(frozen=True)
class _Point:
    """One row to come.

    Args:
        family, log, items, batch, skin: what is stepped; `log` of the users' fit.
        observation, action, index, compiled: as in `StepSubject`; `compiled` is measured without the native step.
        aim: least ratio asked for.
        against: the reference.
        rooted: whether its bytes and operations are counted.
    """

    family: BenchFamily | Literal["built-in"]
    log: Literal["exposures", "consumption"]
    items: int
    batch: int
    skin: Skin = "core"
    observation: Literal["dict", "no state", "state"] = "dict"
    action: Literal["slate", "proto"] = "slate"
    index: IndexKind | None = None
    compiled: bool = False
    aim: float | None = None
    against: Literal["loop", "cart pole", "core", "ten thousand", "torch"] = "loop"
    rooted: bool = False

    @property
    def what(self) -> str:
        """In words, for tables."""
        skins = {
            "core": "step",
            "single": "gym.make",
            "vector": "make_vec, NumPy",
            "tensors": "make_vec, tensors",
            "sb3": "SB3VecEnv",
        }
        words = [skins[self.skin], "the built-in world" if self.family == "built-in" else self.family]
        if self.family not in ("truth", "built-in") and self.log == "consumption":
            words.append("fitted on consumption")
        words += {"dict": [], "no state": ["state off"], "state": ["state alone"]}[self.observation]
        words += ["proto"] if self.action == "proto" else []
        words += [f"index {self.index}"] if self.index else []
        words += ["compiled"] if self.compiled else []
        words += ["against 10,000 items"] if self.against == "ten thousand" else []
        words += ["against torch"] if self.against == "torch" else []
        return ", ".join(words)


def _plan(config: BenchEnvConfig) -> Iterator[_Point]:
    """The rows, those of one world one after the other."""
    first, log = config.families[0], config.logs[0]
    yield from _native_points(config)
    items = _ITEMS if _ITEMS in config.catalogues else config.catalogues[0]
    batch = _BATCH if _BATCH in config.lanes else config.lanes[-1]
    modes = (False, True) if config.compiled else (False,)
    kinds = (log,) if config.quick or config.world is not None else config.logs
    standard = items == _ITEMS and batch == _BATCH and config.slate == 10
    for family in config.families if config.world is None else (first,):
        for kind in kinds if family != "truth" else (log,):
            if "core" not in config.skins:
                continue
            fitted = family != "truth"
            at = partial(_Point, family, kind, items, batch, rooted=config.roofline)
            for compiled in modes:
                yield at(compiled=compiled, aim=_DEFAULT_AIM if standard and fitted else None)
                users_aim = _USERS_AIM if standard and family == "recurrent" else None
                if family == first or not compiled:  # a compilation takes a minute
                    yield at(compiled=compiled, observation="no state", aim=users_aim)
    home = partial(_Point, first, log)
    if "core" in config.skins:
        swept = config.families if config.world is None and not config.quick else (first,)
        for family in swept:
            yield from (_Point(family, log, items, lanes) for lanes in config.lanes if lanes != batch)
        if not config.quick:
            yield from (home(items, batch, action="proto", index=index) for index in _searches())
    if "single" in config.skins:
        aim = _SINGLE_AIM if items == _ITEMS else None
        yield from (home(items, 1, "single", against="cart pole", compiled=compiled, aim=aim) for compiled in modes)
    lanes = min(_SKIN_BATCH, max(config.lanes))
    aim = _SKIN_AIM if lanes == _SKIN_BATCH else None
    for skin in config.skins:
        if skin in ("vector", "tensors"):
            yield home(items, lanes, skin, against="core", aim=aim)
        if skin == "sb3":
            yield home(items, lanes, skin, observation="state", against="core", aim=aim)
    if "core" in config.skins and config.world is None:
        for n in config.catalogues:
            if n != items:
                yield home(n, batch)
            if n == _MILLION and items == _ITEMS:
                yield home(n, batch, against="ten thousand", aim=_MILLION_AIM)
                yield from (home(n, min(batch, _FEW), action="proto", index=index) for index in _searches())


def _native_points(config: BenchEnvConfig) -> Iterator[_Point]:
    """What one meets first: `gym.make`, then some lanes, each in turns with the same stepped by torch."""
    if config.device != "cpu" or find_spec("numba") is None:
        return
    worlds: list[tuple[Any, int]] = [("built-in", 0), ("recurrent", min(config.catalogues))]
    for family, items in worlds if config.world is None else [(config.families[0], 0)]:
        at = partial(_Point, family, "consumption", items, against="torch")
        if "single" in config.skins:
            yield at(1, "single", aim=_NATIVE_AIM if family == "built-in" else None)
        if "core" in config.skins:
            yield from (at(lanes, aim=_NATIVE_AIM if lanes < _MANY else None) for lanes in (16, 64, _MANY))


def _searches() -> tuple[IndexKind | None, ...]:
    """How the nearest items are looked up: all scored, and by an index where FAISS is installed."""
    return (None, "ivf") if find_spec("faiss") else (None,)


class _Bench:
    """Measures points; keeps the world and the driver that the last ones used."""

    def __init__(self, config: BenchEnvConfig) -> None:
        self.config = config
        self.world = cache(self._world) if config.world is not None else _Latest(self._world)
        self.costs: dict[tuple[Any, ...], Cost] = {}

    def measured(self, point: _Point) -> tuple[Row, Bound | None]:
        """A point beside its reference and, where its bytes and operations are counted, beside the machine."""
        config = self.config
        task = self._task(point)
        reference = self._reference(point, task)
        sides = [paced(task, point.skin, point.what), reference, *(machine_paces(task.device) if point.rooted else ())]
        with torch.no_grad():
            rates = in_turn(sides, config.pace)
            found = self._cost(point, task) if point.rooted else None
        mine, theirs, *machine = (float(rate) for rate in np.median(rates, axis=0))
        row = Row(
            what=point.what,
            batch=point.batch,
            items=len(task.world.catalogue),
            slate=task.world.slate_size,
            device=config.device,
            threads=config.threads,
            value=mine,
            reference=f"{reference.name}: {theirs:,.0f}",
            ratio=float(np.median(rates[:, 0] / rates[:, 1])),
            aim=point.aim,
        )
        return row, None if found is None else Bound(point.what, mine, found, Machine(*machine))

    def _cost(self, point: _Point, task: StepSubject) -> Cost:
        """What one step takes, counted in eager mode."""
        key = (point.family, point.log, point.observation)
        if key not in self.costs:
            driver = driver_of(replace(task, compiled=False, native=False))  # operations are counted in torch
            actions = task.actions()[0].to(task.device)
            driver.step(actions)
            self.costs[key] = cost(lambda: driver.step(actions), point.batch, compulsory_bytes(driver))
        return self.costs[key]

    def _reference(self, point: _Point, task: StepSubject) -> Paced:
        if point.against == "cart pole":
            return cart_pole(task.seed)
        if point.against == "core":
            return paced(task, "core", "the core alone")
        if point.against == "torch":
            return paced(replace(task, native=False), point.skin, "by torch")
        if point.against == "ten thousand":
            return paced(replace(task, world=self._made(point, _ITEMS)), "core", "10,000 items")
        return numpy_loop(min(point.batch, _BATCH), task.world.slate_size)

    def _task(self, point: _Point) -> StepSubject:
        world = self.world((point.family, point.log, point.items))
        return StepSubject(
            world,
            point.batch,
            point.observation,
            point.action,
            point.index,
            point.compiled,
            not point.compiled,
            self.config.device,
            self.config.seed,
        )

    def _world(self, key: tuple[BenchFamily | Literal["built-in"], str, int]) -> World:
        family, log, items = key
        if family == "built-in":
            return built_in_world()
        if self.config.world is not None:
            return World.load(self.config.world)
        config = self.config
        return bench_world(
            items, config.slate, family=family, members=config.members, exposures=log == "exposures", seed=config.seed
        )

    def _made(self, point: _Point, items: int) -> World:
        return self._world((point.family, point.log, items))


class _Latest:
    """Calls a maker anew where the argument is another than last time: worlds are large, one is kept."""

    def __init__(self, make: Any) -> None:
        self.make, self.key, self.made = make, None, None

    def __call__(self, key: Any) -> Any:
        if key != self.key:
            self.made = None
            self.made, self.key = self.make(key), key
        return self.made
