"""Studies of many units: one after the other, or in processes of one thread each, which die with their parent."""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Protocol, TypeVar, cast

from recloop.encoders.base.errors import RecloopError
from recloop.encoders.base.progress import progress_bar
from recloop.experiments.provenance import use_threads


class Named(Protocol):
    """A unit of a study."""

    @property
    def name(self) -> str:
        """What the progress bar calls it."""
        ...


Unit = TypeVar("Unit")
NamedUnit = TypeVar("NamedUnit", bound=Named)
Result = TypeVar("Result")


def work_through(
    units: Sequence[NamedUnit], work: Callable[[NamedUnit], None], jobs: int, label: str, progress: bool
) -> None:
    """Do `work` on every unit, `jobs` at a time, under a progress bar; for several it must be a module's own."""
    with progress_bar(total=len(units), desc=label, unit="unit", disable=not progress) as bar:
        if jobs == 1:
            use_threads(1)
            for unit in units:
                bar.set_postfix_str(unit.name)
                work(unit)
                bar.update()
            return
        with closing(side_by_side(units, work, jobs)) as results:
            for _ in results:
                bar.update()


def side_by_side(units: Sequence[Unit], work: Callable[[Unit], Result], jobs: int) -> Generator[Result, None, None]:
    """Results of `work` as they are done, by at most `jobs` fresh processes of one thread each.

    Where a unit fails, those that have begun are finished, the rest is dropped, and its error is raised. Where the
    study is stopped, or its process dies in whatever way, the others end at once and nothing new begins.

    Raises:
        RecloopError: a process died; what `work` raised, too.
    """
    waiting, failure = deque(units), None
    with _interruptions_held_back():
        workers = [_Worker(work) for _ in range(min(jobs, len(waiting)))]
    try:
        for worker in workers:
            worker.give(waiting.popleft())
        busy = {worker.connection: worker for worker in workers}
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                error, result = worker.taken()
                failure = failure or error
                if error is None:
                    yield cast(Result, result)
                if waiting and failure is None:
                    worker.give(waiting.popleft())
                else:
                    del busy[worker.connection]
        if failure is not None:
            raise failure
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that does one unit after the other."""

    def __init__(self, work: Callable[[Unit], Result]) -> None:
        context: SpawnContext = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, pickle.dumps(work)), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, unit: object) -> None:
        """Begin a unit."""
        try:
            self.connection.send(unit)
        except BrokenPipeError:
            raise self._died() from None

    def taken(self) -> tuple[BaseException | None, object]:
        """What a unit raised, or what it gave."""
        try:
            error, result = self.connection.recv()
            return error, result
        except (EOFError, ConnectionResetError):
            return self._died(), None

    def end(self) -> None:
        """Be over at once; files are replaced whole, so that nothing half-written counts."""
        self.process.kill()
        self.connection.close()  # not before: it would complain
        self.process.join()

    def _died(self) -> RecloopError:
        self.process.join(1)
        return RecloopError(
            f"a process of --jobs died (exit code {self.process.exitcode}), perhaps for want of memory; "
            "lower --jobs, the same command goes on from what is finished"
        )


def _serve(connection: Connection, packed: bytes) -> None:
    """The life of a worker: units until there are no more, or until its parent is dead.

    Args:
        packed: the pickled work, so that its modules, which take seconds, are imported in a process that can die.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal asks all of them; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    work = pickle.loads(packed)  # our own bytes
    use_threads(1)
    while True:
        try:
            unit = connection.recv()
        except EOFError:
            return
        try:
            told: tuple[BaseException | None, object] = (None, work(unit))
        except BaseException as error:
            told = (_portable(error), None)
        connection.send(told)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _portable(error: BaseException) -> BaseException:
    """An error that another process can raise, with what happened here as a note."""
    if not isinstance(error, RecloopError):
        from recloop.encoders.base.plug_ins import plug_in_fault  # needs torch, which takes seconds to import

        error = plug_in_fault(error) or error
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # our own bytes
        return error
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))


@contextmanager
def _interruptions_held_back() -> Iterator[None]:
    """Processes started meanwhile never see a Ctrl-C, not even before they can say so; this one sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
