"""Whether a partition still belongs to this process: checked before anything is published or stored for it."""

import threading
import time
from collections.abc import Callable, Iterable

from runtime.servers.kafka import SESSION_TIMEOUT_S

# Kafka gives the partitions of a process to another when it has not heard from it for SESSION_TIMEOUT_S. The fifth that
# is left is for clocks that differ, and for what is published between a check and the next.
_FROZEN_S = 0.8 * SESSION_TIMEOUT_S
_TICK_S = 0.25  # a freeze is measured that exactly


class PartitionLostError(Exception):
    """A partition belongs to another process, which does the rest of the work."""


class ProcessWasFrozenError(Exception):
    """The process was frozen for so long that its partitions may belong to another: it must be started again."""


class Ownership:
    """The partitions that the group's coordinator has assigned to this process. Thread-safe.

    A process that was frozen (SIGSTOP, a suspended virtual machine) goes on in the middle of its work as if nothing had
    happened. It notices by a tick that is late, and owns nothing from then on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._partitions: frozenset[int] = frozenset()
        self._ticked = clock()
        self._was_frozen = False

    def start(self) -> None:
        """Tick in the background from now on."""
        threading.Thread(target=self._keep_ticking, name="ownership", daemon=True).start()

    def set(self, partitions: Iterable[int]) -> None:
        """The coordinator has assigned these partitions and no others."""
        self._partitions = frozenset(partitions)

    def tick(self) -> None:
        """Note that the process is running, or that it was frozen until now."""
        now = self._clock()
        if now - self._ticked > _FROZEN_S:
            self._was_frozen = True
        self._ticked = now

    def owns(self, partition: int) -> bool:
        """Whether a partition belongs to this process."""
        self.tick()
        return partition in self._partitions and not self._was_frozen

    def check(self, partition: int) -> None:
        """Raise PartitionLostError or ProcessWasFrozenError unless a partition belongs to this process."""
        if self.owns(partition):
            return
        if self._was_frozen:
            raise ProcessWasFrozenError(
                f"this process stood still for over {_FROZEN_S:.0f} s: its partitions may be another's"
            )
        raise PartitionLostError(f"partition {partition} has gone to another process")

    def _keep_ticking(self) -> None:
        while True:
            self.tick()
            time.sleep(_TICK_S)
