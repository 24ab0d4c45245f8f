"""The log in memory keeps the promises of the real one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from runtime.servers.log import TopicLog
from schemas.envelope import Record
from schemas.events.base import Event
from schemas.topics import Topic
from tests.log_promises import TOPIC, Broker, LogPromises, public_methods
from tests.memory_kafka import MemoryKafka, MemoryLog


class _BrokerInMemory(Broker):
    def __init__(self) -> None:
        self.kafka = MemoryKafka()

    def open(self, group: str | None = None, topic: Topic[Event] = TOPIC) -> TopicLog:
        return MemoryLog(self.kafka, topic, group)

    def append(self, records: Iterable[Record]) -> None:
        for record in records:
            self.kafka.append(record)

    def leave_gap(self, partition: int) -> None:
        self.kafka.leave_gap(TOPIC.name, partition, 4)

    def commit(self, group: str, partition: int, offset: int) -> None:
        self.kafka.committed[group, TOPIC.name, partition] = offset

    @contextmanager
    def away(self) -> Iterator[None]:
        self.kafka.stop()
        yield
        self.kafka.start()


class TestMemoryLog(LogPromises):
    """In memory."""

    @pytest.fixture
    def broker(self) -> Broker:
        return _BrokerInMemory()


def test_nothing_of_the_real_log_is_left_that_would_ask_a_broker() -> None:
    inherited = {name for name in public_methods(TopicLog) if name not in vars(MemoryLog)}
    assert inherited == {"spans", "partition_of"}  # which ask `span` and `_partitions`


def test_compaction_keeps_the_last_record_of_each_key() -> None:
    kafka = MemoryKafka()
    for key, value in ((b"c/a", b"1"), (b"c/b", b"2"), (b"c/a", b"3"), (b"c/b", None)):
        kafka.append(Record(TOPIC.name, key, value, partition=0))
    kafka.compact(TOPIC.name)
    left = [(record.offset, record.value) for record in kafka.records(TOPIC.name)]
    assert left == [(2, b"3"), (3, None)]
    assert MemoryLog(kafka, TOPIC).span(0).end == 4
