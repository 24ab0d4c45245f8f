"""The sink's loop: records of seven topics into Postgres, in batches."""

import logging
import threading
import time
from collections.abc import Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage
from sqlalchemy.engine import Engine

from consumers.sink.batch import LETTERS_OF, BatchWriter, WrittenBatch
from consumers.sink.gauges import TableGauges
from consumers.sink.metering import count_written
from consumers.sink.postgres import PostgresTables
from runtime.process.stopping import on_stop_signal
from runtime.servers.attempts import Attempts, Reader, attempts_of
from runtime.servers.erasures import ErasureLog
from runtime.servers.flow import Flow, is_behind
from runtime.servers.kafka import consumer_config
from runtime.servers.lag import Positions, begins
from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from runtime.servers.records import BrokenBatches, record_of
from runtime.servers.removed import RemovalWatch, committed_offsets
from runtime.telemetry.health import HEALTH, NO_PARTITIONS
from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.metrics import DEAD_LETTERS
from runtime.telemetry.tracing import Tracer, tracer_of
from schemas.envelope import Source, StoredRecord, full_name
from schemas.events.base import IndividualEvent
from schemas.events.encodings import EncodingErased
from schemas.events.registrations import IndividualDeleted, IndividualErased
from schemas.settings import Settings
from schemas.topics import CERTIFICATES, SINK

log = structlog.stdlib.get_logger(__name__)

_WAIT_S = 0.05


def run(settings: Settings) -> None:
    """Write until SIGTERM or SIGINT. arroyo's loop reads one topic a process; this one reads seven."""
    engine = postgres_engine(settings, pool_pre_ping=True)
    sink = build_sink(settings, engine)
    stopping = threading.Event()
    on_stop_signal(stopping.set)
    try:
        while not stopping.is_set():
            sink.step()
    finally:
        sink.attempts.close()
    sink.close()
    engine.dispose()


def build_sink(settings: Settings, engine: Engine) -> "Sink":
    """A sink on real servers. Returns once it knows everybody who was erased long ago."""
    erasures = ErasureLog(settings, SINK.name).follow()
    tables = PostgresTables(engine, erasures.key, erasures.erased)
    consumer = Consumer(consumer_config(settings, SINK.name))
    return Sink(
        consumer,
        {full_name(topic.name, settings.namespace): topic.name for topic in SINK.reads},
        BatchWriter(tables, Publisher(settings, SINK.name).publish_all),
        erasures,
        attempts_of(settings, Reader(SINK.name, SINK.name, Source.SINK)),
        TableGauges(engine),
        Positions(settings, SINK.name),
        RemovalWatch(settings, SINK, consumer),
        tracer_of(settings, SINK.name),
        settings.sink_batch,
    )


class Sink:
    """Reads, writes, stores offsets to be committed: in that order, a batch at a time."""

    def __init__(
        self,
        consumer: Consumer,
        topics: Mapping[str, str],
        writer: BatchWriter,
        erasures: ErasureLog,
        attempts: Attempts,
        gauges: TableGauges,
        positions: Positions,
        removals: RemovalWatch,
        tracer: Tracer | None,
        batch: int,
    ) -> None:
        """`topics` has the topic table's names by the broker's; a step takes `batch` records at most."""
        self.attempts = attempts
        self._consumer, self._topics, self._batch = consumer, topics, batch
        self._full_names = {name: full for full, name in topics.items()}
        self._writer, self._erasures, self._gauges = writer, erasures, gauges
        self._positions, self._removals, self._tracer = positions, removals, tracer
        self._flow = Flow(lambda: is_behind(consumer))
        self._broken = BrokenBatches(consumer)
        self._letters = {name: DEAD_LETTERS.labels(name) for name in LETTERS_OF}  # there before the first is counted
        HEALTH.not_ready(NO_PARTITIONS)
        consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked)

    def step(self) -> None:
        """One batch: into Postgres in one transaction, dead letters acknowledged, then the offsets stored.

        Raises StalledError, PublishError, and what Postgres raises that waiting does not mend.
        """
        HEALTH.beat()
        self._gauges.refresh()
        records = self._consume()
        if not records:
            self._flow.check()
            return
        self._flow.moved()
        for record in records:
            self._removals.read(self._full_names[record.topic], record.partition, record.offset)
        self._erasures.check()
        with self.attempts.working():
            for portion in self.attempts.portions(records):
                self._write(portion)
        if any(record.topic == CERTIFICATES.name for record in records):
            self._gauges.refresh(force=True)

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._consumer.close()

    def _write(self, records: list[StoredRecord]) -> None:
        begun = time.time_ns()
        written = self._writer.write(records)
        self._report(written, begun)
        self._store_offsets(records)
        count_written([message for message, _ in written.events])

    def _consume(self) -> list[StoredRecord]:
        # Asked for a whole batch, it would wait that long whenever there is less.
        messages = self._consumer.consume(1, _WAIT_S)
        if messages and self._batch > 1:
            messages += self._consumer.consume(self._batch - 1, 0)
        records = [self._record(message) for message in messages]
        return [record for record in records if record is not None]

    def _record(self, message: KafkaMessage) -> StoredRecord | None:
        """The record in a message; None of a passing error. Raises KafkaException of any other error."""
        topic = self._topics[str(message.topic())] if message.topic() is not None else ""
        return record_of(message, topic) if message.error() is None else self._broken.passed(message, topic)

    def _assigned(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._broken.forget()
        committed = committed_offsets(consumer, places)
        self._positions.assigned(begins(places, committed))
        self._removals.assigned(committed)
        self.attempts.assigned(
            {
                (self._topics[place.topic], place.partition): committed.get((place.topic, place.partition), -1)
                for place in places
            }
        )
        if places:
            HEALTH.ready()

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._positions.revoked((place.topic, place.partition) for place in places)
        self.attempts.revoked((self._topics[place.topic], place.partition) for place in places)
        HEALTH.not_ready(NO_PARTITIONS)

    def _report(self, written: WrittenBatch, begun: int) -> None:
        """Log what became of a batch: dead letters, and people who are erased, always; all else where it is asked for.

        `begun`: when its writing began, in nanoseconds since 1970.
        """
        for record, letter in written.letters:
            log.warning("dead letter", **fields_of_letter(letter))
            self._letters[record.topic].inc()
        kept = {id(message) for message, _ in written.remaining.events}
        is_verbose, ended = log.isEnabledFor(logging.DEBUG), time.time_ns()
        for message, _ in written.events:
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

    def _store_offsets(self, records: list[StoredRecord]) -> None:
        """Have the offsets behind these records committed.

        A partition that has gone to another sink is left out: its messages are written again there, to the same rows.
        """
        processed = {
            (self._full_names[record.topic], record.partition): (record.offset, record.timestamp) for record in records
        }
        for (topic, partition), (offset, _) in processed.items():
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset + 1)])
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise
                log.warning(
                    "partition went to another sink before its offset was stored", topic=topic, partition=partition
                )
        self._positions.processed(processed)
