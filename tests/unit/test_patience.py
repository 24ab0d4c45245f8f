"""A broker that is away, or has not heard the newest, is asked again; what it refuses for good is an error."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from runtime.servers.kafka import retry_while_away

AWAY = (
    KafkaError._TRANSPORT,
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
