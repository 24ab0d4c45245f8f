"""How every part of facematch talks to the broker: one client configuration, one way to publish."""

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as ConsumedMessage
from confluent_kafka.admin import AdminClient

from schemas.envelope import Record, full_name
from schemas.health import HEALTH, server_is_away
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")  # talkative while a broker comes and goes

T = TypeVar("T")
OnDelivered = Callable[[KafkaError | None], None]

_AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._NOENT,  # no leader is known of a partition yet
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,  # of a topic created a moment ago
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # every worker begins by waiting for its topics: a broker that comes back
)
_OF_THE_RECORD = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD)
_LONGEST_PAUSE_S = 10.0
SASL_MECHANISM = "SCRAM-SHA-512"
COMMIT_EVERY_S = 0.2  # a replay sees by the committed offsets whether it delays anybody
SESSION_TIMEOUT_S = 10  # until the work of a consumer that was killed goes to another


class PublishError(Exception):
    """The broker refused a record for good. The work that it stands for must not be acknowledged."""


class UnacknowledgedError(Exception):
    """The broker is away, or acknowledges nothing. What was published may have arrived, or may not."""


def client_config(settings: Settings, client: str) -> dict[str, Any]:
    """librdkafka's configuration, shared by every client. `client` names it in the broker's logs."""
    return _access(settings) | {
        "bootstrap.servers": settings.kafka,
        "client.id": f"{settings.namespace}.{client}",
        "reconnect.backoff.max.ms": 2_000,
        "topic.metadata.refresh.interval.ms": 60_000,
        "log.connection.close": False,
        "error_cb": _Complaints(),
        "logger": _librdkafka_log,
    }


def _access(settings: Settings) -> dict[str, Any]:
    """By TLS or not, and as whom."""
    tls, user, password = settings.kafka_tls, settings.kafka_user, settings.kafka_password
    access: dict[str, Any] = {"security.protocol": ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT")}
    if user is not None and password is not None:
        access |= {
            "sasl.mechanism": SASL_MECHANISM,
            "sasl.username": user,
            "sasl.password": password.get_secret_value(),
        }
    if settings.kafka_ca is not None:
        access["ssl.ca.location"] = str(settings.kafka_ca)
    return access


def consumer_config(settings: Settings, group: str) -> dict[str, Any]:
    """A consumer that begins at the beginning where its group has not been.

    It commits the offsets that it is told to store, and no others: every COMMIT_EVERY_S, when partitions go to another
    consumer, and when it is closed. librdkafka does so beside the loop that reads. A commit that waits in that loop
    for a broker that is away may wait for ever.
    """
    return client_config(settings, group) | {
        "group.id": full_name(group, settings.namespace),
        "enable.auto.commit": True,
        "auto.commit.interval.ms": int(COMMIT_EVERY_S * 1000),
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": SESSION_TIMEOUT_S * 1000,
        "enable.partition.eof": False,
    }


def is_transient(error: KafkaError) -> bool:
    """Whether the world is down (wait and go on) rather than the client being in the wrong."""
    return bool(error.retriable()) or error.code() in _AWAY


def patiently(ask: Callable[[], T], what: str) -> T:
    """The answer of a broker; one that is away is asked again, with growing pauses."""
    pause = 0.1
    while True:
        try:
            return ask()
        except KafkaException as error:
            if not is_transient(error.args[0]):
                raise
            log.warning("the broker does not answer", asked_for=what, error=error.args[0].name())
            server_is_away("kafka")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def groups_on(admin: AdminClient, namespace: str) -> list[str]:
    """Names, without the namespace, of its consumer groups that the broker knows. Raises KafkaException."""
    listing = admin.list_consumer_groups(request_timeout=5).result()
    if listing.errors:
        raise KafkaException(listing.errors[0])
    prefix = full_name("", namespace)
    return [one.group_id.removeprefix(prefix) for one in listing.valid if one.group_id.startswith(prefix)]


def partition_of(collection: str, partitions: int) -> int:
    """The partition of a collection: CRC-32 of its name, modulo the number of partitions.

    The same as librdkafka's partitioner "consistent" with the collection as key.
    """
    return zlib.crc32(collection.encode()) % partitions


def record_of(message: ConsumedMessage, topic: str) -> Record:
    """The record in a message without error, as a consumer without deserializers hands it over."""
    return Record(
        topic=topic,
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),  # type: ignore[arg-type] # consumed headers hold bytes or None
        partition=message.partition(),
        offset=message.offset(),
        timestamp=message.timestamp()[1],
    )


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
    ) -> None:
        self._namespace = settings.namespace
        self._partitions: dict[str, int] = {}
        self._producer = Producer(
            client_config(settings, client)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": int((give_up_after_s or 0) * 1000),  # 0: never
                "partitioner": "murmur2_random",  # as Java's clients do it
                "linger.ms": 2,
                "batch.size": batch_bytes,
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
            partition = self._partition(topic, record.partition_by)
        place: dict[str, Any] = {} if partition is None else {"partition": partition}

        def delivered(error: KafkaError | None, _: ConsumedMessage) -> None:
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
                on_delivered(error.args[0])
                return

    def poll(self, seconds: float = 0.0) -> None:
        """Call `on_delivered` of what has been delivered since, waiting for the first up to `seconds`."""
        self._producer.poll(seconds)

    def publish_all(self, records: Iterable[Record], before_each: Callable[[], None] = lambda: None) -> None:
        """Publish records and return once all of them are acknowledged. Raises PublishError.

        What was given up for the time is published again, without limit. `before_each` is called immediately before
        every record and behind the last, and may raise: then what has not left yet does not. A process that was stopped
        goes on between asking and handing over, or with what it handed over already.
        """
        waiting = list(records)
        while waiting:
            outcomes: list[KafkaError | None] = []
            late: list[Record] = []
            try:
                for record in waiting:
                    self.publish(record, partial(_take_outcome, outcomes, late, record), before_each)
                before_each()
            except BaseException:
                self._producer.purge(in_flight=False)
                raise
            while len(outcomes) < len(waiting):
                self._producer.poll(0.1)
                HEALTH.still_waiting()
            for error in outcomes:
                if error is not None:
                    raise PublishError(f"the broker refused a record: {error.str()}")
            if late:
                log.warning("not acknowledged in time, publishing again", records=len(late))
            waiting = late

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

    def _partition(self, topic: str, collection: str) -> int:
        if topic not in self._partitions:
            found = patiently(lambda: self._producer.list_topics(topic, timeout=5).topics[topic], "publish")
            if not found.partitions:
                raise PublishError(f"topic {topic} does not exist: `facematch setup` creates it")
            self._partitions[topic] = len(found.partitions)
        return partition_of(collection, self._partitions[topic])


def _take_outcome(
    outcomes: list[KafkaError | None], late: list[Record], record: Record, error: KafkaError | None
) -> None:
    if error is not None and error.code() == KafkaError._MSG_TIMED_OUT:
        late.append(record)
        error = None
    outcomes.append(error)


class _Complaints:
    """Takes librdkafka's errors. It recovers from all but fatal ones by itself: they are said every few seconds."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            server_is_away("kafka")
        if error.fatal() or time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + _LONGEST_PAUSE_S
            level = logging.ERROR if error.fatal() else logging.WARNING
            log.log(level, "Kafka complains", error=error.name(), detail=error.str())
