"""Publishing records to Kafka: idempotent, acknowledged by all replicas, in order within a partition."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as ConsumedMessage

from runtime.servers.kafka import client_config, retry_while_away
from runtime.telemetry.health import HEALTH
from schemas.envelope import Record, full_name
from schemas.settings import Settings
from schemas.topics import MOST_RECORD_BYTES, partition_of, topic_named

log = structlog.stdlib.get_logger(__name__)
OnDelivered = Callable[[KafkaError | None], None]
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_OF_THE_RECORD = (*_TOO_LARGE, KafkaError.INVALID_RECORD)


class PublishError(Exception):
    """The broker refused a record for good. The work that it stands for must not be acknowledged."""


class UnacknowledgedError(Exception):
    """The broker is away, or acknowledges nothing. What was published may have arrived, or may not."""


class Publisher:
    """Publishes records: idempotent, acknowledged by all replicas, in order within a partition.

    A broker that is away is waited for, without limit unless one is given; what it refuses for good (a message too
    large, say) is reported as an error. Thread-safe.
    """

    def __init__(
        self,
        settings: Settings,
        client: str,
        give_up_after_s: float | None = None,
        batch_bytes: int = 1_000_000,
        producer: Producer | None = None,
    ) -> None:
        """`producer` is Kafka's client; it is made of the settings where none is handed in."""
        self._namespace = settings.namespace
        self._partitions: dict[str, int] = {}
        self._producer = producer or Producer(
            client_config(settings, client)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": int((give_up_after_s or 0) * 1000),  # 0: never
                "partitioner": "murmur2_random",  # as Java's clients do it
                "linger.ms": 2,
                "batch.size": batch_bytes,
                "message.max.bytes": MOST_RECORD_BYTES,  # each topic has a limit of its own at the broker
                "compression.type": "none",  # what is large is compressed already, and every client reads it
            }
        )

    def publish(self, record: Record, on_delivered: OnDelivered, before: Callable[[], None] = lambda: None) -> None:
        """Hand a record over. `on_delivered` is called from `poll` or `publish_all`, with the error if any.

        `before` is called immediately before, and may raise.
        """
        topic = full_name(record.topic, self._namespace)
        partition = record.partition
        if record.partition_by is not None:
            partition = self._partition(topic, record)
        place: dict[str, Any] = {} if partition is None else {"partition": partition}

        def delivered(error: KafkaError | None, _: ConsumedMessage | None) -> None:
            if error is not None and error.code() in _TOO_LARGE and record.smaller is not None:
                self.publish(record.smaller, on_delivered)
            else:
                on_delivered(error)

        while True:
            before()
            try:
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    on_delivery=delivered,
                    **place,
                )
                return
            except BufferError:  # as much is under way as memory was set aside for: wait until some is delivered
                self._producer.poll(0.1)
                HEALTH.still_waiting()
            except KafkaException as error:  # refused before it left: too large
                delivered(error.args[0], None)
                return

    def poll(self, seconds: float = 0.0) -> None:
        """Call `on_delivered` of what has been delivered since, waiting for the first up to `seconds`."""
        self._producer.poll(seconds)

    def publish_all(self, records: Iterable[Record], before_each: Callable[[], None] = lambda: None) -> None:
        """Publish records and return once all of them are acknowledged. Raises PublishError.

        What was given up for the time is published again, without limit, and what followed it too: the last record of
        each key is the last that is published. `before_each` is called immediately before
        every record and behind the last, and may raise: then what has not left yet does not. A process that was stopped
        goes on between asking and handing over, or with what it handed over already.
        """
        waiting = list(records)
        while waiting:
            outcomes: dict[int, KafkaError | None] = {}
            try:
                for number, record in enumerate(waiting):
                    self.publish(record, partial(outcomes.__setitem__, number), before_each)
                before_each()
            except BaseException:
                self._producer.purge(in_flight=False)
                raise
            while len(outcomes) < len(waiting):
                self._producer.poll(0.1)
                HEALTH.still_waiting()
            late = [number for number, error in outcomes.items() if error is not None and _is_late(error)]
            for error in outcomes.values():
                if error is not None and not _is_late(error):
                    raise PublishError(f"the broker refused a record: {error.str()}")
            if late:
                log.warning("not acknowledged in time, publishing again", records=len(late))
            waiting = waiting[min(late) :] if late else []

    def publish_each(self, records: Sequence[Record], patience_s: float) -> list[KafkaError | None]:
        """Publish records; of each, in their order: None once it is acknowledged, or why no broker takes this one.

        Raises PublishError for what is refused and not the record's fault, UnacknowledgedError where nothing is
        acknowledged for `patience_s` seconds: then what has not left yet does not. What a broker finds too large, it
        refuses together with its batch: let batches be small.
        """
        outcomes: dict[int, KafkaError | None] = {}
        for number, record in enumerate(records):
            self.publish(record, partial(outcomes.__setitem__, number))
        settled, deadline = 0, time.monotonic() + patience_s
        while len(outcomes) < len(records):
            self._producer.poll(0.1)
            HEALTH.still_waiting()
            if len(outcomes) > settled:
                settled, deadline = len(outcomes), time.monotonic() + patience_s
            elif time.monotonic() > deadline:
                self._producer.purge()
                raise UnacknowledgedError(f"the broker acknowledged nothing for {patience_s:.0f} s")
        for error in outcomes.values():
            if error is not None and error.code() not in _OF_THE_RECORD:
                raise PublishError(f"the broker refused a record: {error.str()}")
        return [outcomes[number] for number in range(len(records))]

    def flush(self, seconds: float) -> int:
        """Wait up to `seconds` for what is under way; returns how many records still are."""
        return int(self._producer.flush(seconds))

    def _partition(self, topic: str, record: Record) -> int:
        """The partition of a record's collection, by how many the broker has. Raises PublishError where they grew."""
        if topic not in self._partitions:
            found = retry_while_away(lambda: self._producer.list_topics(topic, timeout=5).topics[topic], "publish")
            if not found.partitions:
                raise PublishError(f"topic {topic} does not exist: `facematch setup` creates it")
            if (count := len(found.partitions)) != (wanted := topic_named(record.topic).partitions):
                raise PublishError(f"topic {topic} has {count} partitions in the place of {wanted}")
            self._partitions[topic] = count
        return partition_of(str(record.partition_by), self._partitions[topic])


def _is_late(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError._MSG_TIMED_OUT)
