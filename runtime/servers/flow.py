"""Whether a consumer still gets what its partitions hold. librdkafka and Faust have both been seen to stop quietly."""

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException

from runtime.servers.kafka import is_transient

_PATIENCE_S = 30.0
_GRACE_S = 5.0  # what came this moment is not behind yet
_TIMEOUT_S = 5.0


class StalledError(Exception):
    """Nothing is handed over although the log has more: the process must be started again."""


class Flow:
    """Keeps the time since something was handed over, and asks `is_behind` once that is long.

    After an outage a client may consume nothing more although the broker answers (faust-streaming #175, #523;
    librdkafka #3082, #2933). Nothing is lost by stopping: what was not committed comes again.
    """

    def __init__(self, is_behind: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_behind = is_behind
        self._clock = clock
        self._since = clock()
        self._behind_since: float | None = None

    def moved(self) -> None:
        """Something was handed over, or nothing is to be expected for the moment."""
        self._since = self._clock()
        self._behind_since = None

    def check(self) -> None:
        """Raise StalledError if nothing was handed over for a while although there is something, and still is."""
        now = self._clock()
        if now - self._since < _PATIENCE_S or (self._behind_since is not None and now - self._behind_since < _GRACE_S):
            return
        if not self._is_behind():
            self.moved()
        elif self._behind_since is None:
            self._behind_since = now
        else:
            raise StalledError(f"nothing was handed over for {now - self._since:.0f} s although the log has more")


def is_behind(consumer: Consumer) -> bool:
    """Whether the consumer's partitions hold more than it has handed over. False while the broker is away."""
    try:
        assignment = consumer.assignment()
        positions = consumer.position(assignment)
        committed = consumer.committed(assignment, timeout=_TIMEOUT_S)
        for position, began in zip(positions, committed, strict=True):
            begin, end = consumer.get_watermark_offsets(position, timeout=_TIMEOUT_S)
            if max(begin, began.offset, position.offset) < end:  # either is below 0 where there is none yet
                return True
    except KafkaException as error:
        if not is_transient(error.args[0]):
            raise
    return False
