"""What a world of a size takes: seconds to make it and to prepare its users, peak memory, bytes an item and a lane."""

import resource
import time
from dataclasses import dataclass
from functools import partial

from recloop.experiments.bench.steps import StepSubject, driver_of, item_bytes, lane_bytes
from recloop.experiments.bench.worlds import BenchFamily, bench_world
from recloop.experiments.comparison.workers import side_by_side

_LANES = 64


@dataclass(frozen=True)
class Footprint:
    """Of a world with so many items.

    Args:
        items: N.
        make_seconds: to stretch the catalogue; fits are read from the cache.
        prepare_seconds: to table items and arrivals for a core of 64 lanes.
        peak_bytes: most memory that the process held, Python and torch included.
        item_bytes: of an item's rows in the tables of encoder and users.
        lane_bytes: of a lane's state.
    """

    items: int
    make_seconds: float
    prepare_seconds: float
    peak_bytes: float
    item_bytes: float
    lane_bytes: float


def footprint(items: int, family: BenchFamily, members: int, slate: int) -> Footprint:
    """Measured in a process of its own, on the CPU."""
    (measured,) = side_by_side([items], partial(_measured, family, members, slate), jobs=1)
    return measured


def _measured(family: BenchFamily, members: int, slate: int, items: int) -> Footprint:
    start = time.perf_counter()
    world = bench_world(items, slate, family=family, members=members)
    made = time.perf_counter()
    driver = driver_of(StepSubject(world, _LANES))
    prepared = time.perf_counter()
    return Footprint(
        items,
        made - start,
        prepared - made,
        _peak_bytes(),
        item_bytes(driver),
        lane_bytes(driver),
    )


def _peak_bytes() -> float:
    """Most memory that this process held; `ru_maxrss`, where it is all there is, may be its parent's."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
