"""Processes of one thread each, for studies of many units."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from recloop.experiments.provenance import use_threads


@contextmanager
def one_thread_workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes of one thread each; what has not begun is dropped where one fails or the study is stopped."""
    context = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(jobs, mp_context=context, initializer=use_threads, initargs=(1,))
    try:
        yield workers
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
