"""arroyo's Kafka consumer, which ends where the original would go on polling a consumer that gets nothing more."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.types import BrokerValue, Partition, Topic
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as ClientMessage

from runtime.servers.attempts import Attempts
from runtime.servers.flow import Flow, is_behind
from runtime.servers.kafka import consumer_config, is_transient, retry_while_away
from runtime.servers.lag import Positions
from runtime.servers.records import BrokenBatches, headers_of
from runtime.servers.removed import RemovalWatch
from runtime.telemetry.health import HEALTH, NO_PARTITIONS, server_is_away
from schemas.envelope import Headers, StoredRecord, full_name, readable_timestamp
from schemas.settings import Settings
from schemas.topics import ConsumerGroup

log = structlog.stdlib.get_logger(__name__)

_TIMEOUT_S = 5.0
_LONGEST_WAIT_S = 0.05  # arroyo commits what is answered between two polls, and would wait for a second


class _ReadableMessage:
    """A message of the client's without error, whose timestamp and headers can be read."""

    def __init__(self, message: ClientMessage) -> None:
        self._message = message

    def timestamp(self) -> tuple[int, int]:
        kind, milliseconds = self._message.timestamp()
        return kind, readable_timestamp(milliseconds)

    def headers(self) -> Headers:
        return headers_of(self._message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


class _UnreadableMessage:
    """What stands for a record that the client cannot take apart."""

    def __init__(self, topic: str, record: StoredRecord) -> None:
        self._topic, self._record = topic, record

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._record.partition

    def offset(self) -> int:
        return self._record.offset

    def key(self) -> None:
        return None

    def value(self) -> None:
        return None

    def headers(self) -> Headers:
        return self._record.headers

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_NOT_AVAILABLE, 0


class _ReadableMessages:
    """The client's consumer, as arroyo can go on with it whatever stands on the topic.

    arroyo makes a datetime of every timestamp, and brokers accept some that none can have; it ends at a batch that the
    client cannot unpack, and at what is said of a broker that is away.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.broken = BrokenBatches(consumer)

    def poll(self, *arguments: Any, **options: Any) -> _ReadableMessage | _UnreadableMessage | ClientMessage | None:
        message = self._consumer.poll(*arguments, **options)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return _ReadableMessage(message)
        if error.code() == KafkaError._BAD_COMPRESSION:
            record = self.broken.passed(message, "")
            return None if record is None else _UnreadableMessage(str(message.topic()), record)
        if is_transient(error):
            log.warning("the broker does not answer", asked_for="messages", error=error.name())
            server_is_away("kafka")
            return None
        return message

    def committed(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return retry_while_away(lambda: self._consumer.committed(places, timeout=_TIMEOUT_S), "committed offsets")

    def get_watermark_offsets(self, place: TopicPartition) -> tuple[int, int]:
        ask = self._consumer.get_watermark_offsets
        return retry_while_away(lambda: ask(place, timeout=_TIMEOUT_S), "offsets")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class CheckedConsumer(KafkaConsumer):
    """`poll` raises StalledError if nothing is handed over for a while although there is something.

    Not while the consumer is paused, which arroyo does as long as the step behind it takes no more.

    It keeps `positions`, from which the lag is measured, and hands `attempts` the partitions that it has. The worker is
    ready while the group has given it partitions.
    """

    def __init__(self, settings: Settings, group: ConsumerGroup, positions: Positions, attempts: Attempts) -> None:
        own = {"arroyo.enable.auto.commit": True, "arroyo.strict.offset.reset": False}
        super().__init__(consumer_config(settings, group.name) | own)
        consumer = self._KafkaConsumer__consumer  # arroyo offers no way to ask it
        self._readable = _ReadableMessages(consumer)
        self._KafkaConsumer__consumer: Any = self._readable
        self._flow = Flow(lambda: is_behind(consumer))
        self._positions, self._attempts = positions, attempts
        self._topics = {full_name(topic.name, settings.namespace): topic.name for topic in group.reads}
        self._removals = RemovalWatch(settings, group, consumer)

    def subscribe(
        self,
        topics: Sequence[Topic],
        on_assign: Callable[[Mapping[Partition, int]], None] | None = None,
        on_revoke: Callable[[Sequence[Partition]], None] | None = None,
    ) -> None:
        """See KafkaConsumer.subscribe."""

        def assigned(offsets: Mapping[Partition, int]) -> None:
            self._readable.broken.forget()
            begins = {(place.topic.name, place.index): at for place, at in offsets.items()}
            self._positions.assigned(begins)
            self._removals.assigned(begins)
            self._attempts.assigned({(self._topics[topic], partition): at for (topic, partition), at in begins.items()})
            if on_assign is not None:
                on_assign(offsets)
            HEALTH.ready()

        def revoked(places: Sequence[Partition]) -> None:
            HEALTH.not_ready(NO_PARTITIONS)
            self._positions.revoked((place.topic.name, place.index) for place in places)
            if on_revoke is not None:
                on_revoke(places)
            self._attempts.revoked((self._topics[place.topic.name], place.index) for place in places)

        super().subscribe(topics, assigned, revoked)
        HEALTH.not_ready(NO_PARTITIONS)

    def poll(self, timeout: float | None = None) -> BrokerValue[KafkaPayload] | None:
        """See KafkaConsumer.poll."""
        if not self._positions:
            HEALTH.beat()  # there is no step yet that does
        message = super().poll(_LONGEST_WAIT_S if timeout is None else min(timeout, _LONGEST_WAIT_S))
        if message is not None:
            self._removals.read(message.partition.topic.name, message.partition.index, message.offset)
        if message is not None or self.paused():
            self._flow.moved()
        else:
            self._flow.check()
        return message

    def processed(self, record: StoredRecord) -> None:
        """Note that a record is processed, and all before it."""
        self._positions.processed({(record.topic, record.partition): (record.offset, record.timestamp)})
