"""Threads beside the one that matches: an index takes minutes to build, and matching goes on meanwhile."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class BackgroundThreads:
    """Runs each piece of work in a thread of its own, one at a time over all partitions of the process.

    Two at once would each get half of the cores and need twice the memory. The threads are daemons: a process that is
    stopped does not wait for an index.
    """

    def __init__(self, cores: int) -> None:
        """`cores` of the processor are shared: a piece of work leaves one of them to matching."""
        self.threads = max(1, cores - 1)
        self.search_threads = cores
        self._one_at_a_time = threading.Lock()

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """Begin a piece of work. The future has its result, or what it raised."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                with self._one_at_a_time:
                    result = work()
            except BaseException as error:  # noqa: BLE001 - raised again where the outcome is taken
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        threading.Thread(target=run, name="sealer", daemon=True).start()
        return outcome
