"""The sink: what the topics say, into Postgres, in batches."""

import logging
import threading
import time
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from consumers.sink.certificates import CertificateGauges
from consumers.sink.erasing import Events, Remaining, apply_erasures
from consumers.sink.metering import count_written
from consumers.sink.restored import restore_after_null
from consumers.sink.rows import CHECKED, TableRow, TableRows, completed, rows_of
from consumers.sink.statements import (
    add_certificates,
    add_decisions,
    add_retractions,
    merge_checks,
    upsert_duplicates,
    upsert_individuals,
)
from runtime.process.stopping import on_stop_signal
from runtime.servers.erasures import ErasureLog
from runtime.servers.flow import Flow, is_behind
from runtime.servers.kafka import consumer_config, is_transient, record_of
from runtime.servers.lag import Positions, begins
from runtime.servers.patience import growing_pauses
from runtime.servers.postgres import is_away, postgres_engine
from runtime.servers.publisher import Publisher
from runtime.telemetry.health import HEALTH, NO_PARTITIONS, server_is_away
from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.metrics import DEAD_LETTERS, POSTGRES_S
from runtime.telemetry.tracing import tracer_of
from schemas.envelope import Record, UnreadableError, decode, encode, full_name
from schemas.erased import Erased, ErasureKey
from schemas.events.base import IndividualEvent
from schemas.events.encodings import EncodingErased
from schemas.events.pairs import KeyErased
from schemas.events.registrations import IndividualDeleted, IndividualErased
from schemas.letters import dead_letter
from schemas.settings import Settings
from schemas.topics import CERTIFICATES, DECISIONS, DUPLICATES, ERASURES, REJECTIONS, SINK

log = structlog.stdlib.get_logger(__name__)

# The worker that a topic is made for writes its dead letters: of individuals the encoder, of encodings the matcher.
_LETTERS_OF = tuple(topic.name for topic in (REJECTIONS, DUPLICATES, DECISIONS, ERASURES, CERTIFICATES))
_WAIT_S = 0.05
_WRITE_S = POSTGRES_S.labels("write")


def run(settings: Settings) -> None:
    """Write until SIGTERM or SIGINT. arroyo's loop reads one topic a process; this one reads seven."""
    sink = Sink(settings)
    stopping = threading.Event()
    on_stop_signal(stopping.set)
    while not stopping.is_set():
        sink.step()
    sink.close()


class Sink:
    """Reads, writes, stores offsets to be committed: in that order, a batch at a time."""

    def __init__(self, settings: Settings) -> None:
        self._batch = settings.sink_batch
        self._engine = postgres_engine(settings, pool_pre_ping=True)
        self._publisher = Publisher(settings, SINK.name)
        # What was erased long ago is known before anything is written: tables that are filled anew don't bring it back.
        self._erasures = ErasureLog(settings, SINK.name).follow()
        self._topics = {full_name(topic.name, settings.namespace): topic.name for topic in SINK.reads}
        self._consumer = Consumer(consumer_config(settings, SINK.name))
        self._positions = Positions(settings, SINK.name)
        self._consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked)
        self._flow = Flow(lambda: is_behind(self._consumer))
        self._tracer = tracer_of(settings, SINK.name)
        self._certified = CertificateGauges(self._engine)
        self._letters = {name: DEAD_LETTERS.labels(name) for name in _LETTERS_OF}
        HEALTH.not_ready(NO_PARTITIONS)

    def step(self) -> None:
        """One batch: into Postgres in one transaction, dead letters acknowledged, then the offsets stored.

        Raises StalledError, PublishError, and whatever Postgres says that waiting does not mend.
        """
        HEALTH.beat()
        self._certified.look()
        # Told to wait for a whole batch, it would wait that long whenever there is less.
        messages = self._consumer.consume(1, _WAIT_S)
        if messages and self._batch > 1:
            messages += self._consumer.consume(self._batch - 1, 0)
        messages = [message for message in messages if _has_value(message)]
        records = [record_of(message, self._topics[str(message.topic())]) for message in messages]
        if not records:
            self._flow.check()
            return
        self._flow.moved()
        events: Events = []
        letters: list[Record] = []
        for record in records:
            try:
                events.append((decode(record), record.timestamp or 0))
            except UnreadableError as error:
                if record.topic in _LETTERS_OF:
                    letters.append(dead_letter(record, error, "facematch/sink"))
                    self._letters[record.topic].inc()
        self._publisher.publish_all(letters)
        self._erasures.check()
        begun = time.time_ns()
        sieved = write(self._engine, events, self._erasures.key, self._erasures.erased, self._publisher.publish_all)
        self._tell(letters, events, sieved, begun)
        self._store_offsets(messages)
        count_written([message for message, _ in events])
        if any(record.topic == CERTIFICATES.name for record in records):
            self._certified.look(now=True)

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._positions.assigned(begins(consumer, places))
        if places:
            HEALTH.ready()

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._positions.revoked((place.topic, place.partition) for place in places)
        HEALTH.not_ready(NO_PARTITIONS)

    def _tell(self, letters: list[Record], events: Events, sieved: Remaining, begun: int) -> None:
        """Say what became of a batch: of people who are erased, or were and came again, always."""
        for letter in letters:
            log.warning("dead letter", **fields_of_letter(letter))
        kept = {id(message) for message, _ in sieved.events}
        is_verbose, ended = log.isEnabledFor(logging.DEBUG), time.time_ns()
        for message, _ in events:
            event = message.event
            if isinstance(event, EncodingErased):
                log.info("erased from the tables", **fields_of(message))
            elif id(message) in kept or isinstance(event, IndividualDeleted | IndividualErased):
                if is_verbose:
                    log.debug("written", type=type(event).__name__, **fields_of(message))
            elif is_verbose or isinstance(event, IndividualEvent):
                log.info("erased: not written", type=type(event).__name__, **fields_of(message))
            if self._tracer is not None:
                self._tracer.stage("write", message, begun, ended)

    def _store_offsets(self, messages: list[KafkaMessage]) -> None:
        """Have the offsets behind these messages committed.

        What belongs to a partition that has gone to another sink is left out: it is written again there, to the same.
        """
        ends = {(str(message.topic()), message.partition()): message for message in messages}
        processed = {}
        for (topic, partition), message in ends.items():
            offset = message.offset()
            assert partition is not None
            assert offset is not None
            processed[topic, partition] = offset, message.timestamp()[1]
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset + 1)])
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise
                log.warning(
                    "partition went to another sink before its offset was stored", topic=topic, partition=partition
                )
        self._positions.processed(processed)

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._consumer.close()
        self._engine.dispose()


def _has_value(message: KafkaMessage) -> bool:
    error = message.error()
    if error is not None and not is_transient(error):
        raise KafkaException(error)
    return error is None


def write(
    engine: Engine,
    events: Events,
    key: ErasureKey,
    registry: Erased,
    publish: Callable[[list[Record]], None],
) -> Remaining:
    """All rows in one transaction; returns what of it counted. A Postgres that is away is waited for, ever longer.

    `publish` returns once what it is given is acknowledged: null values for what was said of erased people, and what
    null values hide that is known to be newer. They are published before the transaction ends: afterwards nobody would
    know their keys any more.
    """
    pauses = growing_pauses()
    while True:
        try:
            with _WRITE_S.time(), engine.begin() as connection:
                sieved = apply_erasures(connection, events, key, registry)
                _execute(connection, rows_of(sieved.events))
                nulls = [message for message, _ in events if isinstance(message.event, KeyErased)]
                hidden = [one for null in nulls for one in restore_after_null(connection, null)]
                publish([encode(message) for message in sieved.nulls + hidden])
            return sieved
        except DBAPIError as error:
            if not is_away(error):
                raise
            pause = next(pauses)
            log.warning("Postgres does not answer", error=type(error.orig).__name__, again_in_s=pause)
            server_is_away("postgres")
        time.sleep(pause)


def _execute(connection: Connection, rows: TableRows) -> None:
    for guard, group in rows.individuals.items():
        _write_individuals(connection, guard, group)
    if rows.checks:
        merged = connection.execute(merge_checks(), rows.checks).mappings()
        _write_individuals(connection, CHECKED, completed(dict(row) for row in merged))
    if rows.duplicates:
        connection.execute(upsert_duplicates(rows.duplicates[0]), rows.duplicates)
    for statement, group in (
        (add_retractions(), rows.retractions),
        (add_decisions(), rows.decisions),
        (add_certificates(), rows.certificates),
    ):
        if group:
            connection.execute(statement, group)


def _write_individuals(connection: Connection, guard: str, rows: list[TableRow]) -> None:
    if rows:
        connection.execute(upsert_individuals(guard, rows[0]), rows)
