"""Reads topics between offsets, all partitions side by side, beside any consumer group."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.servers.kafka import consumer_config, is_transient, record_of, retry_while_away
from schemas.envelope import StoredRecord, full_name
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.topics import Topic

CLIENT = "replay"
_BATCH = 100  # of 2000, whose objects live at the same time, Python's garbage collector took a third of all time
_WAIT_S = 0.02
_TIMEOUT_S = 10
_READING = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "fetch.queue.backoff.ms": 50,  # librdkafka's second is longer than a full queue takes to read
    "fetch.message.max.bytes": 250_000,  # of one partition at once, so that they come side by side
    "queued.max.messages.kbytes": 16_384,
}


class MissingTopicsError(Exception):
    """There is no topic of that name in the namespace."""


class Span(NamedTuple):
    """Offsets of a partition: from `begin` on, below `end`."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many records it has at most."""
        return max(0, self.end - self.begin)


class TopicLog:
    """One topic. A broker that is away is waited for, once it has been there. Raises MissingTopicsError."""

    def __init__(self, settings: Settings, topic: Topic[Event]) -> None:
        self._topic = topic.name
        self._full_name = full_name(topic.name, settings.namespace)
        self._consumer = Consumer(consumer_config(settings, CLIENT) | _READING)
        topics = self._consumer.list_topics(timeout=_TIMEOUT_S).topics  # of all: asked for one, Kafka may create it
        if self._full_name not in topics:
            raise MissingTopicsError(self._full_name)
        self._partitions = sorted(topics[self._full_name].partitions)

    def spans(self) -> dict[int, Span]:
        """What each partition holds by now."""
        return {place.partition: self._span(place) for place in self._places()}

    def since(self, time: datetime) -> dict[int, Span]:
        """What each partition holds by now, from the first record on that was published at that time or later."""
        spans = self.spans()
        wanted = self._places(int(time.timestamp() * 1000))
        for place in retry_while_away(lambda: self._consumer.offsets_for_times(wanted, timeout=_TIMEOUT_S), CLIENT):
            end = spans[place.partition].end
            spans[place.partition] = Span(place.offset if place.offset >= 0 else end, end)
        return spans

    def read(self, spans: Mapping[int, Span]) -> Iterator[list[StoredRecord]]:
        """The records of those spans, in batches. Compaction may have left gaps."""
        left = {partition: span.end for partition, span in spans.items() if span.size}
        places = [TopicPartition(self._full_name, partition, spans[partition].begin) for partition in left]
        self._consumer.assign(places)
        try:
            while left:
                batch: list[StoredRecord] = []
                for message in self._consumer.consume(_BATCH, _WAIT_S):
                    error, partition, offset = message.error(), message.partition(), message.offset()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        if not is_transient(error):
                            raise KafkaException(error)
                        continue
                    assert partition is not None
                    assert offset is not None
                    end = left.get(partition, -1)
                    if error is None and offset < end:
                        batch.append(record_of(message, self._topic))
                    if partition in left and offset + (error is None) >= end:
                        del left[partition]
                        self._consumer.pause([TopicPartition(self._full_name, partition)])
                if batch:
                    yield batch
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    def _places(self, offset: int = 0) -> list[TopicPartition]:
        return [TopicPartition(self._full_name, partition, offset) for partition in self._partitions]

    def _span(self, place: TopicPartition) -> Span:
        return Span(*retry_while_away(lambda: self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S), CLIENT))
