"""Which failures of Postgres are waited for, and for how long one that stays silent."""

import socket
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from runtime.servers import postgres
from runtime.servers.postgres import CONNECTION_LIMITS, engine_at, is_away, postgres_engine
from schemas.settings import Settings


class FailureError(Exception):
    """As psycopg2 raises it, with a SQLSTATE."""

    def __init__(self, state: str | None) -> None:
        super().__init__("it failed")
        self.pgcode = state


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (None, True),  # the connection broke
        ("08006", True),
        ("25006", True),  # read_only_sql_transaction
        ("40P01", True),  # deadlock_detected
        ("53100", True),  # disk_full
        ("55P03", True),  # lock_not_available
        ("57P03", True),  # cannot_connect_now
        ("22P02", False),  # invalid_text_representation
        ("25P02", False),  # in_failed_sql_transaction
        ("55006", False),  # object_in_use
        ("42P01", False),  # undefined_table
    ],
)
def test_what_waiting_mends_is_waited_for(state: str | None, waits: bool) -> None:
    assert is_away(DBAPIError("INSERT", {}, FailureError(state))) is waits


def connection_arguments(address: str) -> dict[str, Any]:
    """What a connection to an address is asked for with."""
    engine, asked = engine_at(make_url(address)), dict[str, Any]()

    @event.listens_for(engine, "do_connect")
    def refuse(_dialect: Any, _record: Any, _arguments: Any, found: dict[str, Any]) -> None:
        asked.update(found)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        engine.connect()
    return asked


def test_every_connection_notices_that_the_other_side_is_gone() -> None:
    asked = connection_arguments("postgresql://somebody@127.0.0.1/facematch")
    assert {name: asked[name] for name in CONNECTION_LIMITS} == CONNECTION_LIMITS


def test_an_address_may_have_limits_of_its_own() -> None:
    asked = connection_arguments("postgresql://somebody@127.0.0.1/facematch?connect_timeout=3")
    assert asked["connect_timeout"] == "3"


def test_a_server_that_takes_connections_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres.CONNECTION_LIMITS, "connect_timeout", 2)  # libpq's shortest
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(postgres=f"postgresql://somebody@127.0.0.1:{silent.getsockname()[1]}/facematch")
        with pytest.raises(OperationalError, match="timeout expired") as failure:
            postgres_engine(settings).connect()
    assert is_away(failure.value)
