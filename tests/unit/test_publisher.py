"""Published means acknowledged: what timed out is published again, what is refused is an error."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from runtime.servers.publisher import Publisher, PublishError, UnacknowledgedError
from schemas.envelope import Record
from schemas.settings import Settings

OnDelivered = Callable[[KafkaError | None, Any], None]
TIMED_OUT, TOO_LARGE = KafkaError._MSG_TIMED_OUT, KafkaError.MSG_SIZE_TOO_LARGE
FORBIDDEN = KafkaError.TOPIC_AUTHORIZATION_FAILED
RECORDS = [Record("duplicates", key, b"value", ()) for key in (b"a", b"b", b"c")]


class PartitionLostError(Exception):
    pass


class Broker:
    """In the place of librdkafka's producer: acknowledges what is polled for, but for what is told of a key."""

    def __init__(self) -> None:
        self.published: list[bytes] = []
        self.outcomes: dict[bytes, list[int | None]] = {}
        self.at_once: dict[bytes, Exception] = {}
        self._under_way: list[tuple[bytes, OnDelivered]] = []
        self.purged: list[bytes] = []
        self.silent: set[bytes] = set()

    def purge(self, *, in_flight: bool = True) -> None:
        """What was handed over and never leaves; what has left is not retried, if that is purged too."""
        assert in_flight == bool(self.silent)  # otherwise it is not known whether it arrived
        self.purged += [key for key, _ in self._under_way]

    def produce(self, _topic: str, _value: bytes, key: bytes, *, on_delivery: OnDelivered, **_: object) -> None:
        if key in self.at_once:
            raise self.at_once.pop(key)
        self.published.append(key)
        self._under_way.append((key, on_delivery))

    def poll(self, _seconds: float) -> int:
        """The acknowledgement of one of them."""
        if not self._under_way:
            raise AssertionError("it waits for what was never published")
        if self._under_way[0][0] in self.silent:
            return 0
        key, on_delivery = self._under_way.pop(0)
        outcomes = self.outcomes.get(key, [])
        code = outcomes.pop(0) if outcomes else None
        on_delivery(None if code is None else KafkaError(code), None)
        return 1


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr("runtime.servers.publisher.Producer", lambda _: broker)
    return broker


def publish(before_each: Callable[[], None]) -> None:
    Publisher(Settings(_env_file=None), "test", give_up_after_s=5).publish_all(RECORDS, before_each)


def nothing() -> None:
    pass


def test_all_are_acknowledged_when_it_returns(broker: Broker) -> None:
    publish(nothing)
    assert broker.published == [b"a", b"b", b"c"]
    assert not broker._under_way


def test_what_timed_out_is_published_again_until_it_is_acknowledged(broker: Broker) -> None:
    """Each time only if it is still allowed: it is asked before anything leaves."""
    broker.outcomes = {b"a": [TIMED_OUT], b"c": [TIMED_OUT, TIMED_OUT]}
    asked: list[int] = []
    publish(lambda: asked.append(len(broker.published)))
    assert broker.published == [b"a", b"b", b"c", b"a", b"b", b"c", b"c"]
    assert asked == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7]
    assert broker.purged == []


def test_what_followed_is_published_again_too_so_that_the_last_of_a_key_stays_the_last(broker: Broker) -> None:
    """A retraction that timed out came behind the finding that followed it: Kafka's compaction kept the retraction."""
    broker.outcomes = {b"b": [TIMED_OUT]}
    publish(nothing)
    assert broker.published == [b"a", b"b", b"c", b"b", b"c"]


def test_nothing_is_published_again_once_it_is_not_allowed(broker: Broker) -> None:
    broker.outcomes = {b"b": [TIMED_OUT]}

    asked: list[int] = []

    def check() -> None:
        asked.append(len(broker.published))
        if asked.count(3) == 2:
            raise PartitionLostError

    with pytest.raises(PartitionLostError):
        publish(check)
    assert broker.published == [b"a", b"b", b"c"]


def test_who_is_stopped_in_the_middle_publishes_nothing_more(broker: Broker) -> None:
    def check() -> None:
        if broker.published:
            raise PartitionLostError

    with pytest.raises(PartitionLostError):
        publish(check)
    assert broker.published == [b"a"] == broker.purged  # it was handed over perhaps after the process was stopped


def test_what_was_handed_over_last_is_asked_for_too(broker: Broker) -> None:
    """A process that was stopped between asking and handing over finds out before it leaves."""

    def check() -> None:
        if len(broker.published) == 3:
            raise PartitionLostError

    with pytest.raises(PartitionLostError):
        publish(check)
    assert broker.purged == [b"a", b"b", b"c"]


def test_who_waited_for_a_full_queue_is_asked_again(broker: Broker) -> None:
    broker.at_once = {b"c": BufferError()}
    asked: list[None] = []
    publish(lambda: asked.append(None))
    assert len(asked) == 5


def test_nothing_leaves_if_it_is_not_allowed_at_first(broker: Broker) -> None:
    def check() -> None:
        raise PartitionLostError

    with pytest.raises(PartitionLostError):
        publish(check)
    assert broker.published == []


def test_what_the_broker_refuses_is_an_error_though_others_timed_out(broker: Broker) -> None:
    broker.outcomes = {b"a": [TIMED_OUT], b"b": [TOO_LARGE]}
    with pytest.raises(PublishError, match="refused"):
        publish(nothing)
    assert broker.published == [b"a", b"b", b"c"]


def test_what_is_refused_before_it_leaves_is_an_error(broker: Broker) -> None:
    broker.at_once = {b"b": KafkaException(KafkaError(TOO_LARGE))}
    with pytest.raises(PublishError, match="refused"):
        publish(nothing)


@pytest.mark.parametrize("is_at_once", [True, False])
def test_what_is_too_large_is_replaced_by_what_is_smaller(broker: Broker, is_at_once: bool) -> None:
    """A dead letter on a topic with a limit of its own, say."""
    if is_at_once:
        broker.at_once = {b"a": KafkaException(KafkaError(TOO_LARGE))}
    else:
        broker.outcomes = {b"a": [TOO_LARGE]}
    large = Record("dead-letters", b"a", b"value", smaller=Record("dead-letters", b"summary", None))
    Publisher(Settings(_env_file=None), "test").publish_all([large])
    assert broker.published == [b"summary"] if is_at_once else [b"a", b"summary"]
    assert not broker._under_way


def test_a_full_queue_is_waited_for(broker: Broker) -> None:
    broker.at_once = {b"c": BufferError()}
    publish(nothing)
    assert broker.published == [b"a", b"b", b"c"]


def publish_each(patience_s: float = 60.0) -> list[int | None]:
    outcomes = Publisher(Settings(_env_file=None), "test").publish_each(RECORDS, patience_s)
    return [None if error is None else error.code() for error in outcomes]


def test_each_record_has_an_outcome_of_its_own(broker: Broker) -> None:
    broker.outcomes = {b"a": [TOO_LARGE]}
    broker.at_once = {b"c": KafkaException(KafkaError(TOO_LARGE))}
    assert publish_each() == [TOO_LARGE, None, TOO_LARGE]
    assert publish_each() == [None, None, None]


def test_what_is_refused_for_another_reason_than_a_record_is_an_error(broker: Broker) -> None:
    broker.outcomes = {b"a": [TOO_LARGE], b"c": [FORBIDDEN]}
    with pytest.raises(PublishError, match="authorization"):
        publish_each()


def test_who_is_not_acknowledged_in_time_publishes_nothing_more(broker: Broker) -> None:
    broker.silent = {b"b"}
    with pytest.raises(UnacknowledgedError, match="acknowledged nothing"):
        publish_each(patience_s=0.01)
    assert broker.purged == [b"b", b"c"]
