"""Prometheus gauges of how much waits in the outbox."""

import time

from sqlalchemy.engine import Connection

from producers.outbox.table import counts
from runtime.telemetry.metrics import OUTBOX_MARKED, OUTBOX_OLDEST_S, OUTBOX_WAITING

_EVERY_S = 15.0
_SHARE = 0.01  # of the time at most is spent on counting, which takes long where many rows wait


class OutboxGauges:
    """Counts rows at intervals. Between two counts the oldest row of the last one grows older."""

    def __init__(self) -> None:
        self._count_at = 0.0
        self._oldest: float | None = None
        OUTBOX_OLDEST_S.source = lambda: {(): 0.0 if self._oldest is None else time.time() - self._oldest}

    def refresh(self, connection: Connection) -> None:
        """Count if the interval is over, in a transaction of its own.

        Raises DBAPIError, where the database has a statement_timeout, say; the next attempt waits its interval too.
        """
        begun = time.monotonic()
        if begun < self._count_at:
            return
        try:
            with connection.begin():
                found = counts(connection)
        finally:
            self._count_at = time.monotonic() + max(_EVERY_S, (time.monotonic() - begun) / _SHARE)
        OUTBOX_WAITING.set(found.waiting)
        OUTBOX_MARKED.set(found.marked)
        self._oldest = None if found.oldest_age_s is None else time.time() - found.oldest_age_s
