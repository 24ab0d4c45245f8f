"""Connections to Postgres, and what every part of facematch that writes to it takes for an outage."""

from typing import Any

from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from schemas.settings import Settings

_AWAY_CLASSES = {"08", "40", "53", "57"}  # connection, rollback (deadlocks), resources, operator
_AWAY_STATES = {"25006", "55P03"}  # read-only (a standby, or set by an operator), lock_timeout

_CANCELLED = "57014"  # by statement_timeout, or by an operator
STATEMENT_LIMIT_S = 30.0
# Of libpq. Without them a server that takes connections and stays silent, or a cut network, is waited for without end.
CONNECTION_LIMITS = {
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds until what was sent must have been received
}


def postgres_url(settings: Settings) -> URL:
    """The database's address, with the user and the password that are set by themselves."""
    url = make_url(settings.postgres)
    if settings.postgres_user is not None:
        url = url.set(username=settings.postgres_user)
    if settings.postgres_password is not None:
        url = url.set(password=settings.postgres_password.get_secret_value())
    return url


def postgres_engine(settings: Settings, database: str | None = None, **options: Any) -> Engine:
    """Connections to the database, or to another one of the same server. `options` are create_engine's."""
    url = postgres_url(settings)
    more = options.pop("connect_args", {})
    if settings.postgres_ca is not None:
        more = more | {"sslmode": "verify-full", "sslrootcert": str(settings.postgres_ca)}
    return engine_at(url if database is None else url.set(database=database), connect_args=more, **options)


def reading_engine(settings: Settings) -> Engine:
    """Connections for a command that reads: a statement fails after STATEMENT_LIMIT_S seconds, see `is_too_slow`.

    Set in each transaction: poolers between the two refuse it as an option of the connection.
    """
    engine = postgres_engine(settings)

    @event.listens_for(engine, "begin")
    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_LIMIT_S * 1000:.0f}")

    return engine


def engine_at(url: URL, **options: Any) -> Engine:
    """Connections to an address, with CONNECTION_LIMITS where it sets none.

    What is sent stays out of errors: it may be about people.
    """
    limits = {name: value for name, value in CONNECTION_LIMITS.items() if name not in url.query}
    arguments = limits | options.pop("connect_args", {})
    url = url.set(drivername="postgresql+psycopg2")
    return create_engine(url, hide_parameters=True, connect_args=arguments, **options)


def is_too_slow(error: DBAPIError) -> bool:
    """Whether a statement was given up because it took too long."""
    return getattr(error.orig, "pgcode", None) == _CANCELLED


def is_away(error: DBAPIError) -> bool:
    """Whether waiting mends it: the server is gone, starting, stopping, full or read-only, or something is locked.

    By the SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    state = getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or state is None or state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
