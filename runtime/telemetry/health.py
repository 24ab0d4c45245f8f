"""The health of a worker: whether its loop moves, and what it waits for before it is ready."""

import threading
import time
from collections.abc import Callable

from runtime.telemetry.metrics import SERVER_RETRIES

# Longer than anything that a loop does or waits for without beating: a connection that nobody answers (2 min),
# an index of millions that is unpacked. Photos, whose time is set, have that beside it: see `consumers.pool_step`.
HUNG_AFTER_S = 300.0
NO_PARTITIONS = "no partition is assigned to it; where there are more workers than partitions, some have none"


class Health:
    """The health of a process. Thread-safe: the loop beats, and the thread of `/healthz` and `/readyz` reads it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beaten = clock()
        self._loop: int | None = None
        self.why_not_ready = "it is starting"

    def beat(self) -> None:
        """Record that the loop moves. For the loop's thread, in every round."""
        self._loop = threading.get_ident()
        self._beaten = self._clock()

    def still_waiting(self) -> None:
        """Record that the loop waits for a server: it does not hang. From other threads it has no effect."""
        if self._loop in {None, threading.get_ident()}:
            self._beaten = self._clock()

    def not_ready(self, why: str) -> None:
        """Set what the worker waits for, or does, before it is ready."""
        self.why_not_ready = why

    def ready(self) -> None:
        """Record that the worker does its work."""
        self.why_not_ready = ""

    @property
    def is_ready(self) -> bool:
        """Whether what it has to restore is restored, and its group has given it its partitions, if any."""
        return not self.why_not_ready

    @property
    def silent_s(self) -> float:
        """Seconds since the loop moved, or was seen waiting for a server."""
        return self._clock() - self._beaten

    @property
    def is_alive(self) -> bool:
        """Whether the loop moves, or waits for a server."""
        return self.silent_s < HUNG_AFTER_S


for _server in ("kafka", "redis", "postgres"):  # what has never happened is 0, not unknown: its first time is seen
    SERVER_RETRIES.labels(_server)
HEALTH = Health()  # one process is one worker


def server_is_away(server: str) -> None:
    """Count that Kafka, Redis or Postgres did not answer and is asked again."""
    SERVER_RETRIES.labels(server).inc()
    HEALTH.still_waiting()
