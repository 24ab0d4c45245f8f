"""A process that does batches of tasks, one after the other, and may die of any of them.

Not concurrent.futures: when one of its processes dies, ProcessPoolExecutor drops the work of all, and under Python
3.11.2, Debian 12's own, it deadlocks if that happens while a large task is written (CPython #94777). Here each process
has a pipe of its own, whose other end nobody else holds: what is written to a dead process fails.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from runtime.telemetry import logs

T = TypeVar("T")
R = TypeVar("R")

_NO_TASK = -1
_CLOSED_WITHIN_S = 5.0
_current: Any = None  # of this process: the number of the task in work, which its parent reads


class ProcessDiedError(Exception):
    """A process is gone. `task` is the number in its batch of the task that it was at, None where that is not known.

    `was_stuck`: it had no result in the time that it was given, and was killed.
    """

    def __init__(self, exit_code: int | None, task: int | None, was_stuck: bool) -> None:
        super().__init__(f"a process of the pool {'was stuck, and ' if was_stuck else ''}ended with {exit_code}")
        self.exit_code = exit_code
        self.task = task
        self.was_stuck = was_stuck


@dataclass(frozen=True, slots=True)
class Program(Generic[T, R]):
    """What a process runs: `begin`, once, then `handle` for each batch. Functions that the process can import.

    `handle` gives a result for each task, in their order. What it raises, the parent raises.
    """

    begin: Callable[..., object]
    arguments: tuple[object, ...]
    handle: Callable[[list[T]], list[R]]


class WorkerProcess(Generic[T, R]):
    """The parent's side of a process. It is started at once, and logs as its parent does. For one thread."""

    def __init__(self, program: Program[T, R]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._current = context.RawValue(c_int, _NO_TASK)
        self._process = context.Process(
            target=_serve, args=(theirs, self._current, logs.current(), program), name="pool process", daemon=True
        )
        self._process.start()
        theirs.close()

    def wait_until_begun(self) -> Any:
        """What `begin` returned. Raises ProcessDiedError, or what `begin` raised."""
        return self._receive(None)

    def do(self, tasks: list[T], longest_s: float) -> list[R]:
        """The result of each task. After `longest_s` the process is killed.

        Raises ProcessDiedError, or what `handle` raised.
        """
        self._current.value = _NO_TASK
        try:
            self._connection.send(tasks)
        except OSError:
            raise self._died() from None
        results: list[R] = self._receive(longest_s)
        return results

    def _receive(self, longest_s: float | None) -> Any:
        stuck = False
        try:
            if stuck := not self._connection.poll(longest_s):
                self._process.kill()
            succeeded, result = self._connection.recv()
        except (EOFError, OSError):
            raise self._died(stuck) from None
        if not succeeded:
            raise result
        return result

    def _died(self, stuck: bool = False) -> ProcessDiedError:
        self._process.join()
        number = self._current.value
        return ProcessDiedError(self._process.exitcode, None if number == _NO_TASK else number, stuck)

    def close(self) -> None:
        """Let the process end, which has nothing to do."""
        self._connection.close()
        self._process.join(_CLOSED_WITHIN_S)
        self._process.kill()
        self._process.join()


def now_at(task: int | None) -> None:
    """Say in a process of a pool which task of its batch is in work: if it dies of that, the others are blameless."""
    if _current is not None:
        _current.value = _NO_TASK if task is None else task


def _serve(connection: Connection, current: Any, log: logs.LogStyle | None, program: Program[Any, Any]) -> None:
    global _current  # noqa: PLW0603 - see there
    _current = current
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    if log is not None:
        logs.configure(log)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is done
        _reply(connection, lambda: program.begin(*program.arguments))
        while True:
            tasks = connection.recv()
            _reply(connection, lambda tasks=tasks: program.handle(tasks))  # type: ignore[misc]


def _reply(connection: Connection, work: Callable[[], object]) -> None:
    try:
        succeeded, result = True, work()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        error.add_note(traceback.format_exc())
        succeeded, result = False, error
    try:
        message = pickle.dumps((succeeded, result), pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - an exception may hold anything
        message = pickle.dumps((False, RuntimeError(traceback.format_exc())))
    connection.send_bytes(message)


def _end_with_parent() -> None:
    """Native code may run on when the parent is gone, and nobody takes its result."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
