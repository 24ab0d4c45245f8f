"""A pool of processes that outlives the death of its processes: native libraries crash on hostile photos."""

import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from consumers.encoder.pool.worker_process import ProcessDiedError, Program, WorkerProcess
from runtime.process.background import Background

T = TypeVar("T")
R = TypeVar("R")
OUT_OF_TIME = -signal.SIGPROF  # the exit code of a process whose task took more processor time than it is given


class TaskFailedError(Exception):
    """A task has no result: its process died of it. Others were not harmed."""


class CrashedError(TaskFailedError):
    """The process died of it twice: in company, and once more alone."""


class OutOfTimeError(TaskFailedError):
    """It took all the processor time that a task is given. How busy the machine is does not matter to that."""


class StuckError(TaskFailedError):
    """The process was killed twice after a long while without a result: it hung, or hardly got a processor."""


@dataclass(eq=False, slots=True)
class _QueuedTask(Generic[T, R]):
    task: T
    on_done: Callable[[R | BaseException], None]
    is_suspect: bool = False  # a process died that may have died of it


class TaskPool(Generic[T, R]):
    """Hands tasks to processes, in batches of what waits, and their results or exceptions to `on_done`.

    When a process dies, another takes its place, and the other processes go on. The task that it died of, or where
    that is not known each of its batch, is tried once more alone; the others wait at the front again. A task that a
    process dies of alone gets a TaskFailedError, and so does one at once that has used up its processor time.

    Each process has a thread of its own here, which also calls `on_done`.
    """

    def __init__(
        self,
        program: Program[T, R],
        processes: int,
        batch: int,
        longest_s: float,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """`longest_s` is the time for a batch, after which its process is killed; `on_death` is called of each death.

        Returns once all processes have begun. Raises ProcessDiedError if one cannot.
        """
        self._program = program
        self._batch = batch
        self._longest_s = longest_s
        self._on_death = on_death
        self._changed = threading.Condition()
        self._waiting: deque[_QueuedTask[T, R]] = deque()
        self._closed = False
        workers = [WorkerProcess(program) for _ in range(processes)]
        self.begun = [worker.wait_until_begun() for worker in workers]
        """What the program's `begin` returned in each process."""
        self._threads = [
            Background(lambda worker=worker: self._work(worker), f"pool {number}").start()  # type: ignore[misc]
            for number, worker in enumerate(workers)
        ]

    def submit(self, task: T, on_done: Callable[[R | BaseException], None]) -> None:
        """Have a task done. Thread-safe."""
        with self._changed:
            self._waiting.append(_QueuedTask(task, on_done))
            self._changed.notify()

    def poll(self) -> None:
        """Raise what the pool itself failed of: ProcessDiedError where a process cannot be started again."""
        for thread in self._threads:
            thread.check()

    def close(self) -> None:
        """End the processes, after what is in work; the rest is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: WorkerProcess[T, R]) -> None:
        try:
            while batch := self._next_batch():
                try:
                    results: list[R | BaseException] = list(worker.do([one.task for one in batch], self._longest_s))
                except ProcessDiedError as death:
                    self._on_death()
                    self._after_death(batch, death)
                    worker.close()
                    worker = WorkerProcess(self._program)
                    worker.wait_until_begun()
                    continue
                except Exception as error:  # noqa: BLE001 - of the program: the result of each
                    results = [error] * len(batch)
                for one, result in zip(batch, results, strict=True):
                    one.on_done(result)
        finally:
            worker.close()

    def _next_batch(self) -> list[_QueuedTask[T, R]]:
        """What waits, once something does: a suspect alone. Empty when the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[_QueuedTask[T, R]] = []
            while self._waiting and not self._closed and len(batch) < self._batch:
                if self._waiting[0].is_suspect and batch:
                    break
                batch.append(self._waiting.popleft())
                if batch[0].is_suspect:
                    break
            return batch

    def _after_death(self, batch: list[_QueuedTask[T, R]], death: ProcessDiedError) -> None:
        culprits = batch if death.task is None else [batch[death.task]]
        again = [one for one in batch if one not in culprits]
        failed: list[tuple[_QueuedTask[T, R], TaskFailedError]] = []
        for one in culprits:
            if death.exit_code == OUT_OF_TIME and len(culprits) == 1:
                failed.append((one, OutOfTimeError()))
            elif one.is_suspect:
                failed.append((one, StuckError() if death.was_stuck else CrashedError()))
            else:
                one.is_suspect = True
                again.append(one)
        with self._changed:
            self._waiting.extendleft(reversed(again))
            self._changed.notify_all()
        for one, error in failed:
            one.on_done(error)
