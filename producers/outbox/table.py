"""The outbox table in the registration system's database: the statements of the relay."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from sqlalchemy import make_url, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

from producers.outbox.record import OutboxRow
from runtime.servers.postgres import engine_at, postgres_engine
from schemas.settings import Settings

CHANNEL = "facematch_outbox"
_LANES_AT_ONCE = 16  # of 64: four relays have work at the same time
_BYTES = 16_000_000
_PROBLEM_LENGTH = 1000

# The statistics of a table that fills and empties all the time are out of date: Postgres would sort all that waits in
# a lane for the first few rows, each time anew.
_BY_INDEX = text("SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)")
_LOCK_LANES = text("""
    SELECT lane FROM facematch_outbox_lanes AS lanes
    WHERE (SELECT true FROM facematch_outbox AS o WHERE o.lane = lanes.lane AND o.problem IS NULL LIMIT 1)
    ORDER BY random() LIMIT :lanes
    FOR UPDATE OF lanes SKIP LOCKED
""")
# The size as stored: nothing has to be read for it, and a photo does not get smaller by being stored.
_READ = text("""
    SELECT position, CAST(id AS text), type, key, source,
           concat(to_json(occurred_at AT TIME ZONE 'UTC') #>> '{}', 'Z'), CAST(event AS text), traceparent
    FROM unnest(CAST(:lanes AS smallint[])) AS held (lane)
    CROSS JOIN LATERAL (
        SELECT *, sum(size) OVER (ORDER BY position) - size AS bytes_before
        FROM (
            SELECT *, pg_column_size(event) AS size FROM facematch_outbox AS o
            WHERE o.lane = held.lane AND o.problem IS NULL
            ORDER BY position LIMIT :rows
        ) AS first
    ) AS waiting
    WHERE bytes_before < :bytes
""")
_COUNTS = text("""
    SELECT count(*) FILTER (WHERE problem IS NULL) AS waiting,
           extract(epoch FROM now() - min(written_at) FILTER (WHERE problem IS NULL)) AS oldest_age_s,
           count(*) FILTER (WHERE problem IS NOT NULL) AS marked
    FROM facematch_outbox
""")
_DELETE = text("DELETE FROM facematch_outbox WHERE position = ANY (CAST(:positions AS bigint[]))")
_MARK = text("""
    UPDATE facematch_outbox AS o SET problem = bad.problem
    FROM unnest(CAST(:positions AS bigint[]), CAST(:problems AS text[])) AS bad (position, problem)
    WHERE o.position = bad.position
""")


def outbox_engine(settings: Settings) -> Engine:
    """Connections to the database that has the outbox.

    READ COMMITTED whatever the database's default: the second statement of `take` must see what the first waited for.
    """
    options: dict[str, Any] = {
        "isolation_level": "READ COMMITTED",
        "poolclass": NullPool,
        "connect_args": {"fallback_application_name": "facematch outbox"},
    }
    if settings.outbox is None:
        return postgres_engine(settings, **options)
    return engine_at(make_url(settings.outbox), **options)


def create_outbox(settings: Settings) -> None:
    """Create the table and its triggers where they are missing. Raises DBAPIError."""
    engine = outbox_engine(settings)
    with engine.begin() as connection:
        connection.exec_driver_sql(files("producers.outbox").joinpath("outbox.sql").read_text())
    engine.dispose()


def has_outbox(connection: Connection) -> bool:
    """Whether the outbox table exists."""
    return bool(connection.scalar(text("SELECT to_regclass('facematch_outbox') IS NOT NULL")))


class Counts(NamedTuple):
    """Rows that wait, the age in seconds of the oldest of them, and rows that are marked with a problem."""

    waiting: int
    oldest_age_s: float | None
    marked: int


def counts(connection: Connection) -> Counts:
    """Count the rows of the table."""
    found = connection.execute(_COUNTS).one()
    oldest = None if found.oldest_age_s is None else float(found.oldest_age_s)
    return Counts(found.waiting, oldest, found.marked)


def take(connection: Connection, limit: int) -> list[OutboxRow]:
    """Rows that wait, in their order, about `limit` at most. They are locked until the transaction ends.

    Two statements: the first locks lanes, for which it may wait; only a statement that begins afterwards is sure to see
    what the transaction that had a lane before has deleted.
    """
    connection.execute(_BY_INDEX)
    lanes = list(connection.scalars(_LOCK_LANES, {"lanes": _LANES_AT_ONCE}))
    if not lanes:
        return []
    each = {"lanes": lanes, "rows": max(1, limit // len(lanes)), "bytes": _BYTES // len(lanes)}
    return sorted(OutboxRow(*row) for row in connection.execute(_READ, each))


def delete(connection: Connection, positions: Sequence[int]) -> None:
    """Delete rows that were published."""
    connection.execute(_DELETE, {"positions": list(positions)})


def mark(connection: Connection, problems: Mapping[int, str]) -> None:
    """Write into rows, by position, why they cannot be published: they no longer wait."""
    texts = [problem[:_PROBLEM_LENGTH] for problem in problems.values()]
    connection.execute(_MARK, {"positions": list(problems), "problems": texts})
