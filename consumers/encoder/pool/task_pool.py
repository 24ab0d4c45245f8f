"""A pool of processes that outlives the death of its processes: native libraries crash on hostile photos."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from queue import SimpleQueue
from typing import Generic, TypeVar

from runtime.process.background import Background
from runtime.telemetry import logs

T = TypeVar("T")
R = TypeVar("R")


class DiedError(Exception):
    """The process died of this task: once in company, and once more alone."""


@dataclass(frozen=True, eq=False, slots=True)
class _Job(Generic[T, R]):
    task: T
    on_done: Callable[[R | BaseException], None]


@dataclass(frozen=True, eq=False, slots=True)
class _Done(Generic[T, R]):
    jobs: list[_Job[T, R]]
    future: "Future[list[R]]"


class TaskPool(Generic[T, R]):
    """Hands tasks to processes, in batches of what waits, and their results or exceptions to `on_done`.

    When a process dies, the pool begins anew. Each batch that was under way is tried once more with nothing beside
    it, and if that dies again each of its tasks alone; the result of a task that a process died of alone is a
    DiedError.

    One thread of its own does all this, told by others through a queue. It also calls `on_done`.
    """

    def __init__(
        self,
        start: Callable[[], ProcessPoolExecutor],
        handle: Callable[[list[T]], list[R]],
        processes: int,
        batch: int,
    ) -> None:
        self._start = start
        self._handle = handle
        self._batch = batch
        self._most_running = 2 * processes  # one in work and one at hand for each
        self._told: SimpleQueue[_Job[T, R] | _Done[T, R] | None] = SimpleQueue()
        self._waiting: deque[_Job[T, R]] = deque()
        self._suspects: deque[list[_Job[T, R]]] = deque()
        self._running = 0
        self._trial = False  # of a suspect batch, the only one running
        self._broken = False
        self._executor = start()
        self._background = Background(self._run, "task pool").start()

    def submit(self, task: T, on_done: Callable[[R | BaseException], None]) -> None:
        """Have a task done. Thread-safe."""
        self._told.put(_Job(task, on_done))

    def poll(self) -> None:
        """Raise what the pool itself failed of: BrokenProcessPool where no process can be started."""
        self._background.check()

    def close(self) -> None:
        """End the processes, after what is in work; the rest is dropped."""
        self._told.put(None)
        self._background.join()

    def _run(self) -> None:
        try:
            while (what := self._told.get()) is not None:
                if isinstance(what, _Done):
                    self._settle(what.jobs, what.future)
                else:
                    self._waiting.append(what)
                self._dispatch()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _dispatch(self) -> None:
        if self._broken and not self._running:
            self._executor.shutdown(wait=True)
            self._executor = self._start()
            self._broken = False
        while not self._broken and not self._trial:
            trial = bool(self._suspects)
            if self._running >= (1 if trial else self._most_running) or not (trial or self._waiting):
                return
            if trial:
                jobs = self._suspects.popleft()
            else:
                jobs = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            self._trial = trial
            self._running += 1
            self._submit(jobs)

    def _submit(self, jobs: list[_Job[T, R]]) -> None:
        try:
            future = self._executor.submit(self._handle, [job.task for job in jobs])
        except BrokenProcessPool as error:  # a process died while it had nothing to do
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda future: self._told.put(_Done(jobs, future)))

    def _settle(self, jobs: list[_Job[T, R]], future: "Future[list[R]]") -> None:
        trial, self._trial = self._trial, False
        self._running -= 1
        error = future.exception()
        results: list[R | BaseException]
        if isinstance(error, BrokenProcessPool):
            self._broken = True
            if not trial:
                self._suspects.append(jobs)
                return
            if len(jobs) > 1:
                self._suspects.extendleft([job] for job in reversed(jobs))
                return
            results = [DiedError()]
        elif error is not None:
            results = [error] * len(jobs)
        else:
            results = list(future.result())
        for job, result in zip(jobs, results, strict=True):
            job.on_done(result)


def process_pool(processes: int, initializer: Callable[..., None], *arguments: object) -> ProcessPoolExecutor:
    """A pool of fresh processes that have called the initializer. Raises BrokenProcessPool if it fails in one.

    They log as this one does, and end with the process that started them, however that ends.
    """
    context = multiprocessing.get_context("spawn")
    all_there = context.Barrier(processes)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(all_there, logs.current(), initializer, arguments)
    )
    for started in [pool.submit(os.getpid) for _ in range(processes)]:
        started.result()
    return pool


def _begin(
    all_there: Barrier, log: logs.Log | None, initializer: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    if log is not None:
        logs.configure(log)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    initializer(*arguments)
    all_there.wait()


def _end_with_parent() -> None:
    """An executor's process holds both ends of its queue, so it never learns from it that the other side is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
