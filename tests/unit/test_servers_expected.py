"""A command that meets a server that does not answer says which, and gives no traceback."""

import pytest
import redis
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import OperationalError, ProgrammingError

from deploy.commands.app import UserError, servers_expected


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationalError("", None, Exception()), "Postgres does not answer"),
        (ProgrammingError("", None, Exception()), "facematch setup"),
        (KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), "Kafka does not answer"),
        (redis.ConnectionError(), "Redis does not answer"),
        (redis.TimeoutError(), "Redis does not answer"),  # it takes connections, and is silent
    ],
)
def test_a_server_that_does_not_answer_is_named(error: Exception, told: str) -> None:
    with pytest.raises(UserError, match=told), servers_expected():
        raise error
