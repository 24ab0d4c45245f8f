"""Connections to Postgres, and what every part of facematch that writes to it takes for an outage."""

from typing import Any

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from schemas.settings import Settings

_AWAY_CLASSES = {"08", "40", "53", "57"}  # connection, rollback (deadlocks), resources, operator
_AWAY_STATES = {"25006", "55P03"}  # read-only (a standby, or set by an operator), lock_timeout


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


def engine_at(url: URL, **options: Any) -> Engine:
    """Connections to an address. What is sent stays out of errors: it may be about people."""
    return create_engine(url.set(drivername="postgresql+psycopg2"), hide_parameters=True, **options)


def is_away(error: DBAPIError) -> bool:
    """Whether waiting mends it: the server is gone, starting, stopping, full or read-only, or something is locked.

    By the SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    state = getattr(error.orig, "pgcode", None)
    return error.connection_invalidated or state is None or state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
