"""A pool of processes that outlives the death of its processes: native libraries crash on hostile photos."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class DiedError(Exception):
    """The process died of this task: once in company, and once more alone."""


@dataclass(eq=False, slots=True)
class _Job(Generic[T, R]):
    task: T
    on_done: Callable[[R | BaseException], None]
    suspect: bool = False  # its process, or another of the pool, died with it


class TaskPool(Generic[T, R]):
    """Hands tasks to processes, in batches of what waits, and their results or exceptions to `on_done`.

    When a process dies, the pool begins anew. Each task that was under way is tried once more, alone, and if the
    process dies of it again, its result is a DiedError. `on_done` is called in threads of the pool.
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
        self._executor = start()
        self._lock = threading.RLock()
        self._waiting: deque[_Job[T, R]] = deque()
        self._suspects: deque[_Job[T, R]] = deque()
        self._running = 0
        self._alone = False
        self._broken = False

    def submit(self, task: T, on_done: Callable[[R | BaseException], None]) -> None:
        """Have a task done. Thread-safe."""
        with self._lock:
            self._waiting.append(_Job(task, on_done))
            self._dispatch()

    def poll(self) -> None:
        """Begin anew if a process died. Raises BrokenProcessPool if no process can be started."""
        with self._lock:
            if self._broken and not self._running:
                self._executor.shutdown(wait=True)
                self._executor = self._start()
                self._broken = False
                self._dispatch()

    def close(self) -> None:
        """End the processes, after what is in work; the rest is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _dispatch(self) -> None:
        while not self._broken and (jobs := self._next()):
            try:
                future = self._executor.submit(self._handle, [job.task for job in jobs])
            except BrokenProcessPool:
                self._broken = True
                self._waiting.extendleft(reversed(jobs))
                return
            self._running += 1
            self._alone = jobs[0].suspect
            future.add_done_callback(partial(self._done, jobs))

    def _next(self) -> list[_Job[T, R]]:
        if self._alone or (self._suspects and self._running) or self._running >= self._most_running:
            return []
        if self._suspects:
            return [self._suspects.popleft()]
        return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]

    def _done(self, jobs: list[_Job[T, R]], future: "Future[list[R]]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        results: list[R | BaseException] = []
        with self._lock:
            self._running -= 1
            self._alone = False
            if isinstance(error, BrokenProcessPool):
                self._broken = True
                if jobs[0].suspect:
                    results = [DiedError()]
                for job in jobs:
                    if not job.suspect:
                        job.suspect = True
                        self._suspects.append(job)
            elif error is not None:
                results = [error] * len(jobs)
            else:
                results += future.result()
            self._dispatch()
        if results:
            for job, result in zip(jobs, results, strict=True):
                job.on_done(result)


def process_pool(processes: int, initializer: Callable[..., None], *arguments: object) -> ProcessPoolExecutor:
    """A pool of fresh processes that have called the initializer. Raises BrokenProcessPool if it fails in one."""
    context = multiprocessing.get_context("spawn")
    all_there = context.Barrier(processes)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(all_there, initializer, arguments)
    )
    for started in [pool.submit(os.getpid) for _ in range(processes)]:
        started.result()
    return pool


def _begin(all_there: Barrier, initializer: Callable[..., None], arguments: tuple[object, ...]) -> None:
    initializer(*arguments)
    all_there.wait()
