"""The log keeps its promises on a real broker."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from runtime.servers.kafka import client_config, consumer_config
from runtime.servers.log import Span, TopicLog
from schemas.envelope import Record, full_name
from schemas.events.base import Event
from schemas.topics import Topic
from tests.integration.world import World
from tests.log_promises import TOPIC, Broker, LogPromises, values


class _RealBroker(Broker):
    def __init__(self, world: World) -> None:
        self._world = world
        self._name = full_name(TOPIC.name, world.settings.namespace)

    def open(self, group: str | None = None, topic: Topic[Event] = TOPIC) -> TopicLog:
        return TopicLog(self._world.settings, topic, "test", group)

    def append(self, records: Iterable[Record]) -> None:
        self._world.publish_records(list(records))

    def leave_gap(self, partition: int) -> None:
        """Of a transaction that is aborted no record is handed over: to a reader it is what compaction leaves."""
        producer = Producer(client_config(self._world.settings, "gap") | {"transactional.id": f"{self._name}.gap"})
        producer.init_transactions(30)
        producer.begin_transaction()
        for _ in range(3):
            producer.produce(self._name, b"never read", b"c/x", partition=partition)
        producer.flush(30)
        producer.abort_transaction(30)

    def commit(self, group: str, partition: int, offset: int) -> None:
        consumer = Consumer(consumer_config(self._world.settings, group))
        consumer.commit(offsets=[TopicPartition(self._name, partition, offset)], asynchronous=False)
        consumer.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        kafka = self._world.stack.supervisor.children["kafka"]
        kafka.stop()
        try:
            yield
        finally:
            kafka.start()
            self._world.stack.wait_for_server("kafka")


class TestTopicLog(LogPromises):
    """On a broker."""

    @pytest.fixture
    def broker(self, world: World) -> Broker:
        return _RealBroker(world)

    def test_the_last_record_is_read_again_and_again_without_a_pause(self, broker: Broker) -> None:
        """A matcher looks single records up, of newcomers too; before, each but the first took half a second."""
        broker.write(2, "a", "b")
        begun = time.monotonic()
        with broker.open() as log:
            for _ in range(40):
                assert values(log.read({2: Span(1, 2)})) == ["b"]
        assert time.monotonic() - begun < 10
