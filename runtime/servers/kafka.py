"""How every part of facematch talks to the broker: one client configuration, one way to publish."""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # all are exported
    AdminClient,
    ListOffsetsResultInfo,
    OffsetSpec,
)

from runtime.servers.patience import growing_pauses
from runtime.telemetry.health import server_is_away
from schemas.envelope import full_name
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")  # talkative while a broker comes and goes

T = TypeVar("T")

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
    KafkaError._DESTROY_BROKER,
    KafkaError._UNKNOWN_PARTITION,  # the client has forgotten it while the broker was away
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # every worker begins by waiting for its topics: a broker that comes back
)
_ERROR_EVERY_S = 10.0
SASL_MECHANISM = "SCRAM-SHA-512"
COMMIT_EVERY_S = 0.2  # a replay sees by the committed offsets whether it delays anybody
SESSION_TIMEOUT_S = 10  # until the work of a consumer that was killed goes to another


def client_config(settings: Settings, client: str) -> dict[str, Any]:
    """librdkafka's configuration, shared by every client. `client` names it in the broker's logs."""
    return _access(settings) | {
        "bootstrap.servers": settings.kafka,
        "client.id": f"{settings.namespace}.{client}",
        "reconnect.backoff.max.ms": 2_000,
        "topic.metadata.refresh.interval.ms": 60_000,
        "log.connection.close": False,
        "error_cb": _ErrorLog(),
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

    It commits the offsets that are stored with it, and no others: every COMMIT_EVERY_S, when partitions go to another
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


def retry_while_away(ask: Callable[[], T], what: str) -> T:
    """The answer of a broker; one that is away is asked again, with growing pauses."""
    pauses = growing_pauses()
    while True:
        try:
            return ask()
        except KafkaException as error:
            if not is_transient(error.args[0]):
                raise
            log.warning("the broker does not answer", asked_for=what, error=error.args[0].name())
            server_is_away("kafka")
        time.sleep(next(pauses))


def groups_on(admin: AdminClient, namespace: str) -> list[str]:
    """Names, without the namespace, of its consumer groups that the broker knows. Raises KafkaException."""
    listing = admin.list_consumer_groups(request_timeout=5).result()
    if listing.errors:
        raise KafkaException(listing.errors[0])
    prefix = full_name("", namespace)
    return [one.group_id.removeprefix(prefix) for one in listing.valid if one.group_id.startswith(prefix)]


def offsets(
    admin: AdminClient, places: Iterable[TopicPartition], which: Literal["earliest", "latest"], timeout_s: float
) -> dict[TopicPartition, "Future[ListOffsetsResultInfo]"]:
    """The offset of the first record of partitions, or that which their next one will get; asked for at once.

    Whoever takes a result that the broker refuses gets a KafkaException.
    """
    spec = getattr(OffsetSpec, which)()
    return admin.list_offsets(dict.fromkeys(places, spec), request_timeout=timeout_s)


class _ErrorLog:
    """Takes librdkafka's errors. It recovers from all but fatal ones by itself: they are logged every few seconds."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            server_is_away("kafka")
        if error.fatal() or time.monotonic() > self._quiet_until:
            self._quiet_until = time.monotonic() + _ERROR_EVERY_S
            level = logging.ERROR if error.fatal() else logging.WARNING
            log.log(level, "an error of the Kafka client", error=error.name(), detail=error.str())
