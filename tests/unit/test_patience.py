"""A broker that is away, or has not heard the newest, is asked again; what it refuses for good is an error."""

import pytest
import redis.exceptions
import redis.retry
from confluent_kafka import KafkaError, KafkaException

from runtime.servers.kafka import retry_while_away
from runtime.servers.patience import growing_pauses
from runtime.servers.redis import connect
from schemas.settings import Settings

AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._DESTROY_BROKER,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.servers.kafka.time.sleep", lambda _: None)


@pytest.mark.parametrize("code", AWAY)
def test_who_is_away_is_asked_again(code: int) -> None:
    answers: list[KafkaException | str] = [KafkaException(KafkaError(code)), KafkaException(KafkaError(code)), "here"]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    assert retry_while_away(ask, "test") == "here"


def test_what_is_refused_for_good_is_raised() -> None:
    def ask() -> None:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    with pytest.raises(KafkaException):
        retry_while_away(ask, "test")


def test_pauses_grow_up_to_the_longest() -> None:
    pauses = growing_pauses(first_s=0.5, longest_s=3)
    assert [next(pauses) for _ in range(5)] == [0.5, 1, 2, 3, 3]


def test_a_broker_is_asked_again_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("runtime.servers.kafka.time.sleep", pauses.append)
    answers = [KafkaException(KafkaError(KafkaError._TRANSPORT))] * 10

    def ask() -> str:
        if answers:
            raise answers.pop()
        return "here"

    assert retry_while_away(ask, "test") == "here"
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_redis_is_asked_again_after_the_same_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(redis.retry, "sleep", pauses.append)
    errors = [redis.exceptions.ConnectionError("away")] * 9

    def ask() -> str:
        if errors:
            raise errors.pop()
        return "here"

    assert connect(Settings()).get_retry().call_with_retry(ask, lambda *_: None) == "here"  # type: ignore[union-attr]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
