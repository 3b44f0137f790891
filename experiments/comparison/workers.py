"""Studies of many units: one after the other, or in processes of one thread each."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from recloop.encoders.base.progress import progress_bar
from recloop.experiments.provenance import use_threads


class Named(Protocol):
    """A unit of a study."""

    @property
    def name(self) -> str:
        """What the progress bar calls it."""
        ...


Unit = TypeVar("Unit", bound=Named)


def work_through(units: Sequence[Unit], work: Callable[[Unit], None], jobs: int, label: str, progress: bool) -> None:
    """Do `work` on every unit, `jobs` at a time, under a progress bar; for several it must be a module's own."""
    with progress_bar(total=len(units), desc=label, unit="unit", disable=not progress) as bar:
        if jobs == 1:
            use_threads(1)
            for unit in units:
                bar.set_postfix_str(unit.name)
                work(unit)
                bar.update()
            return
        with one_thread_workers(jobs) as workers:
            for _ in workers.map(work, units):
                bar.update()


@contextmanager
def one_thread_workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes of one thread each; what has not begun is dropped where one fails or the study is stopped."""
    context = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(jobs, mp_context=context, initializer=use_threads, initargs=(1,))
    try:
        yield workers
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
