"""Reads a topic between offsets, all partitions side by side, beside any consumer group."""

import math
from collections.abc import Generator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Self

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ConsumedMessage

from runtime.servers.kafka import consumer_config, retry_while_away
from runtime.servers.records import BrokenBatches, record_of
from runtime.telemetry.health import HEALTH
from runtime.telemetry.metrics import REMOVED
from schemas.envelope import StoredRecord, full_name
from schemas.events.base import Event
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.topics import Topic, partition_of

log = structlog.stdlib.get_logger(__name__)

BATCH = 100  # of 2000, whose objects live at the same time, Python's garbage collector took a third of all time
_WAIT_S = 0.5
_TIMEOUT_S = 10
# How long the broker waits for a next record where there is none yet. A client has one such request at a time: a read
# that begins while the request before it waits at the end of the log waits as long.
_IDLE_WAIT_MS = 5
FOLLOWING_WAIT_MS = 500
_READING = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # or what Kafka removed meanwhile would be passed over without a word
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 50,  # librdkafka's second is longer than a full queue takes to read
    "fetch.message.max.bytes": 250_000,  # of one partition at once, so that they come side by side
    "queued.max.messages.kbytes": 16_384,
}


class MissingTopicsError(UserFault):
    """Topics are not there. The text says which, and what creates them."""


class Span(NamedTuple):
    """Offsets of a partition: from `begin` on, below `end`."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many records it has at most."""
        return max(0, self.end - self.begin)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What is left to read: of each partition the offset that is next, and that below which it is read."""

    next: dict[int, int]
    ends: Mapping[int, float]


class TopicLog:
    """A topic, read by partition and offset beside any consumer group; nothing is ever committed. Not thread-safe.

    A broker that is away is waited for, whatever it is asked; it is asked nothing before it has to be. Where the topic
    is not there, or has not that partition, everything raises MissingTopicsError: it would be waited for without end.
    """

    def __init__(
        self,
        settings: Settings,
        topic: Topic[Event],
        client: str,
        group: str | None = None,
        idle_wait_ms: int = _IDLE_WAIT_MS,
    ) -> None:
        """`client` names it in the broker's logs; `committed` returns offsets of `group`.

        The broker waits `idle_wait_ms` for a next record before it answers that there is none: FOLLOWING_WAIT_MS for a
        topic that is followed, which would else be asked for hundreds of times a second.
        """
        self._topic = topic.name
        self._full_name = full_name(topic.name, settings.namespace)
        self._client = client
        own = {"client.id": full_name(client, settings.namespace), "fetch.wait.max.ms": idle_wait_ms}
        self._consumer = Consumer(consumer_config(settings, group or client) | _READING | own)
        self._broken = BrokenBatches(self._consumer)
        self._reading: _Reading | None = None  # whose partitions are assigned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def spans(self) -> dict[int, Span]:
        """What each partition holds by now, by the partitions that the broker has."""
        return {partition: self.span(partition) for partition in self._partitions}

    def partition_of(self, collection: str) -> int:
        """The partition of a collection, by how many the broker has."""
        return partition_of(collection, len(self._partitions))

    def span(self, partition: int) -> Span:
        """What a partition holds by now: from its first record on, below the offset that the next one will get."""
        self._check({partition})
        place = TopicPartition(self._full_name, partition)
        ask = self._consumer.get_watermark_offsets
        return Span(*retry_while_away(lambda: ask(place, timeout=_TIMEOUT_S), self._client))

    def since(self, time: datetime) -> dict[int, Span]:
        """What each partition holds by now, from the first record on that was published at that time or later."""
        spans = self.spans()
        milliseconds = int(time.timestamp() * 1000)
        wanted = [TopicPartition(self._full_name, partition, milliseconds) for partition in spans]
        ask = self._consumer.offsets_for_times
        for place in retry_while_away(lambda: ask(wanted, timeout=_TIMEOUT_S), self._client):
            end = spans[place.partition].end
            spans[place.partition] = Span(place.offset if place.offset >= 0 else end, end)
        return spans

    def committed(self, partition: int) -> int | None:
        """The offset that the group has committed, None where it has none."""
        place = TopicPartition(self._full_name, partition)
        ask = self._consumer.committed
        offset = retry_while_away(lambda: ask([place], timeout=_TIMEOUT_S), self._client)[0].offset
        return None if offset < 0 else offset

    def read(self, spans: Mapping[int, Span]) -> Generator[list[StoredRecord], None, None]:
        """The records of those spans, in batches of up to BATCH, none of them empty.

        In order within a partition; compaction may have left gaps. What a log does not have yet is waited for. It may
        be closed before its end; another may be read between two batches, and this one goes on where it was.
        """
        left = {partition: span for partition, span in spans.items() if span.size}
        reading = _Reading({at: span.begin for at, span in left.items()}, {at: span.end for at, span in left.items()})
        for batch in self._batches(reading):
            if batch:
                yield batch

    def follow(self, begins: Mapping[int, int]) -> Generator[list[StoredRecord], None, None]:
        """The records of partitions from offsets on, in batches, without end; an empty one while nothing comes."""
        return self._batches(_Reading(dict(begins), dict.fromkeys(begins, math.inf)))

    def _batches(self, reading: _Reading) -> Generator[list[StoredRecord], None, None]:
        self._check(reading.next.keys())
        try:
            while reading.next:
                if self._reading is not reading:
                    self._reading = reading
                    self._broken.forget()
                    self._consumer.assign([TopicPartition(self._full_name, *place) for place in reading.next.items()])
                records = [self._record(message, reading) for message in self._messages()]
                yield [record for record in records if record is not None]
        finally:
            if self._reading is reading:
                self._reading = None
                self._consumer.unassign()

    def _messages(self) -> list[ConsumedMessage]:
        """The next ones. Told to wait for a whole batch, the client would wait that long whenever there is less."""
        messages = self._consumer.consume(1, _WAIT_S)
        if messages:
            return messages + self._consumer.consume(BATCH - 1, 0)
        HEALTH.still_waiting()
        return messages

    def _record(self, message: ConsumedMessage, reading: _Reading) -> StoredRecord | None:
        """The record in a message, None if it is not of what is left to read. Notes how far that is read."""
        error, partition, end = message.error(), message.partition(), message.offset()
        record = None
        if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET and partition in reading.next:
            self._go_on_where_it_begins(partition, reading)
            return None
        if error is None:
            record = record_of(message, self._topic)
        elif error.code() != KafkaError._PARTITION_EOF:
            record = self._broken.passed(message, self._topic)
            if record is None:
                return None
        read_to = end if record is None else record.offset + 1
        if partition is None or read_to is None or read_to < reading.next.get(partition, math.inf):
            return None
        reading.next[partition] = read_to
        if read_to >= reading.ends[partition]:
            del reading.next[partition]
            if reading.next:
                self._consumer.incremental_unassign([TopicPartition(self._full_name, partition)])
        return record if record is not None and record.offset < reading.ends[partition] else None

    def _go_on_where_it_begins(self, partition: int, reading: _Reading) -> None:
        """What was to be read next is not there: Kafka has removed it, or it is another log, which ends before."""
        position, begin = reading.next[partition], self.span(partition).begin
        if begin > position:
            lost = int(min(begin, reading.ends[partition])) - position
            REMOVED.labels(self._client, self._topic).inc(lost)
            log.error(
                "records were removed before they were read",
                group=self._client,
                topic=self._topic,
                partition=partition,
                records=lost,
                first_offset=position,
                last_offset=position + lost - 1,
            )
        reading.next[partition] = begin
        if begin >= reading.ends[partition]:
            del reading.next[partition]
        self._reading = None  # to be assigned anew

    def _check(self, partitions: Set[int]) -> None:
        if missing := partitions - set(self._partitions):
            raise MissingTopicsError(f"topic {self._topic} has no partition {min(missing)} on this Kafka")

    @cached_property
    def _partitions(self) -> list[int]:
        def ask() -> list[int]:
            found = self._consumer.list_topics(self._full_name, timeout=_TIMEOUT_S).topics[self._full_name]
            if found.error is None:
                return sorted(found.partitions)
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise MissingTopicsError(
                    f"there is no topic {self._full_name} on this Kafka: is FACEMATCH_NAMESPACE right? "
                    "`facematch setup` creates topics"
                )
            raise KafkaException(found.error)

        return retry_while_away(ask, self._client)
