"""The relay: publishes the rows that registration systems write into their outbox, in order for each individual."""

import logging
import select
import socket
import time
from contextlib import suppress

import psycopg2
import structlog
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from producers.outbox.gauges import OutboxGauges
from producers.outbox.record import OutboxRow, record_from
from producers.outbox.table import CHANNEL, delete, mark, outbox_engine, take
from runtime.process.stopping import on_stop_signal
from runtime.servers.patience import growing_pauses
from runtime.servers.postgres import is_away
from runtime.servers.publisher import Publisher, UnacknowledgedError
from runtime.telemetry.health import HEALTH, server_is_away
from runtime.telemetry.log_fields import fields_of
from runtime.telemetry.metrics import OUTBOX_ROWS, POSTGRES_S
from runtime.telemetry.tracing import Tracer, tracer_of
from schemas.envelope import Record, UnreadableError, decode
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)

_CLIENT = "outbox"
_ROWS = 2000
_POLL_S = 5.0  # a notification is lost with its connection, and does not pass every pooler
_PATIENCE_S = 10.0
_BATCH_BYTES = 100_000


def run(settings: Settings) -> None:
    """Relay until SIGTERM or SIGINT. Raises what `Relay.run` raises."""
    engine = outbox_engine(settings)
    relay = build_relay(settings, engine)
    on_stop_signal(relay.stop)
    relay.run()
    relay.close()
    engine.dispose()


def build_relay(settings: Settings, engine: Engine, poll_s: float = _POLL_S, rows: int = _ROWS) -> "Relay":
    """A relay on real servers, from the outbox that `engine` leads to. See `Relay` for `poll_s` and `rows`."""
    publisher = Publisher(settings, _CLIENT, batch_bytes=_BATCH_BYTES)
    return Relay(engine, publisher, tracer_of(settings, _CLIENT), poll_s, rows)


class Relay:
    """Publishes rows, waits for Kafka's acknowledgement, deletes the rows: each round is one transaction.

    A relay that is killed may leave rows that it has published: they are published again, with the same ids. Any number
    of relays may run side by side.
    """

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        tracer: Tracer | None,
        poll_s: float,
        rows: int,
    ) -> None:
        """A round takes about `rows` rows; where nobody notifies it, the table is looked at every `poll_s` seconds."""
        self._engine, self._publisher, self._tracer = engine, publisher, tracer
        self._poll_s, self._rows = poll_s, rows
        self._gauges = OutboxGauges()
        self._pauses = growing_pauses()
        self._stopping = False
        self._woken, self._waker = socket.socketpair()

    def run(self) -> None:
        """Relay until `stop`. Postgres and Kafka are waited for while they are away.

        Raises PublishError: Kafka refused a record for good. Raises DBAPIError: Postgres failed, and is not away.
        """
        while not self._stopping:
            pause = 0.0
            try:
                self._relay()
            except DBAPIError as error:
                if not is_away(error):
                    raise
                pause = next(self._pauses)
                log.warning("Postgres does not answer", error=type(error.orig).__name__, again_in_s=pause)
                server_is_away("postgres")
                HEALTH.not_ready("the Postgres that has the outbox does not answer")
            except UnacknowledgedError as error:
                pause = next(self._pauses)
                log.warning("the broker acknowledges nothing", error=str(error), again_in_s=pause)
                server_is_away("kafka")
            self._wait(pause)

    def stop(self) -> None:
        """Have `run` return after the round that it is in. For signal handlers and other threads."""
        self._stopping = True
        self._waker.send(b"\0")

    def close(self) -> None:
        """Close its sockets, once `run` has returned."""
        self._woken.close()
        self._waker.close()

    def _relay(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(text(f"LISTEN {CHANNEL}"))
            connection.commit()
            HEALTH.ready()
            while not self._stopping:
                HEALTH.beat()
                self._gauges.refresh(connection)
                if not self._round(connection):
                    self._wait_for_rows(connection)
                self._pauses = growing_pauses()

    def _round(self, connection: Connection) -> int:
        """Publish and delete the rows that wait in some lanes, in one transaction. Returns how many rows there were.

        It ends when the broker acknowledges nothing more: an open transaction keeps the database from cleaning up.
        """
        with POSTGRES_S.labels("relay").time(), connection.begin():
            rows = take(connection, self._rows)
            if rows:
                problems = self._publish(rows)
                delete(connection, [row.position for row in rows if row.position not in problems])
                if problems:
                    mark(connection, problems)
        if rows:
            OUTBOX_ROWS.labels("published").inc(len(rows) - len(problems))
            OUTBOX_ROWS.labels("marked").inc(len(problems))
        if rows and problems:
            position, problem = next(iter(problems.items()))
            log.warning("rows are marked and left", rows=len(problems), position=position, problem=problem)
        return len(rows)

    def _publish(self, rows: list[OutboxRow]) -> dict[int, str]:
        """Publish the rows. Returns by position what is wrong with those that cannot be published."""
        problems: dict[int, str] = {}
        records: dict[int, Record] = {}
        for row in rows:
            try:
                records[row.position] = record_from(row)
            except UnreadableError as error:
                problems[row.position] = str(error)
        begun = time.time_ns()
        outcomes = self._publisher.publish_each(list(records.values()), _PATIENCE_S)
        refused = {at: error for at, error in zip(records, outcomes, strict=True) if error is not None}
        self._report([record for at, record in records.items() if at not in refused], begun)
        return problems | {at: f"Kafka does not take it: {error.str()}" for at, error in refused.items()}

    def _report(self, records: list[Record], begun: int) -> None:
        """Log and trace what was published since `begun` (nanoseconds since 1970), where that is asked for."""
        if self._tracer is None and not log.isEnabledFor(logging.DEBUG):
            return
        ended = time.time_ns()
        for message in map(decode, records):
            log.debug("published", **fields_of(message))
            if self._tracer is not None:
                self._tracer.stage("relay", message, begun, ended, is_producer=True)

    def _wait_for_rows(self, connection: Connection) -> None:
        """Return once somebody has written to the table, after `poll_s` seconds, or on `stop`."""
        listener = connection.connection.driver_connection
        assert listener is not None
        with suppress(psycopg2.OperationalError):  # the next statement raises it again
            if not listener.notifies:  # what came with the last answer is no longer in the socket
                self._wait(self._poll_s, listener)
                listener.poll()
        listener.notifies.clear()

    def _wait(self, seconds: float, *others: socket.socket) -> None:
        select.select([self._woken, *others], [], [], seconds)
