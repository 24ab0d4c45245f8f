"""Whether a partition is still this process's, asked before anything that follows from its records leaves it."""

import threading
import time
from collections.abc import Callable, Iterable

from runtime.servers.kafka import SESSION_TIMEOUT_S

# Kafka gives the partitions of a process to another when it has not heard of it for SESSION_TIMEOUT_S.
_STILL_S = 0.8 * SESSION_TIMEOUT_S
_TICK_S = 0.25


class PartitionLostError(Exception):
    """A partition has gone to another process, which does what is left to do."""


class ProcessWasFrozenError(Exception):
    """The process was stopped for so long that its partitions may be another's: it must be started again."""


class Ownership:
    """What the group's coordinator has given to this process, as far as it can know. Thread-safe.

    A process that was stopped (SIGSTOP, a frozen virtual machine) goes on in the middle of its work as if nothing had
    been. A tick that is late tells it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._partitions: frozenset[int] = frozenset()
        self._ticked = clock()
        self._stood_still = False

    def start(self) -> None:
        """Begin to tick."""
        threading.Thread(target=self._keep_ticking, name="ownership", daemon=True).start()

    def set(self, partitions: Iterable[int]) -> None:
        """These and no others are given to this process."""
        self._partitions = frozenset(partitions)

    def tick(self) -> None:
        """Note that the process runs."""
        now = self._clock()
        if now - self._ticked > _STILL_S:
            self._stood_still = True
        self._ticked = now

    def owns(self, partition: int) -> bool:
        """Whether a partition is this process's."""
        self.tick()
        return partition in self._partitions and not self._stood_still

    def check(self, partition: int) -> None:
        """Raise PartitionLostError or ProcessWasFrozenError unless it is this process's."""
        if self.owns(partition):
            return
        if self._stood_still:
            raise ProcessWasFrozenError(
                f"this process stood still for over {_STILL_S:.0f} s: its partitions may be another's"
            )
        raise PartitionLostError(f"partition {partition} has gone to another process")

    def _keep_ticking(self) -> None:
        while True:
            self.tick()
            time.sleep(_TICK_S)
