"""The tables in Postgres: a batch of events is one transaction."""

import time

import structlog
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from consumers.sink.batch import Events, Publish, Remaining
from consumers.sink.erasing import apply_erasures
from consumers.sink.restored import published_behind
from consumers.sink.rows import CHECKED, TableRow, TableRows, completed, rows_of
from consumers.sink.statements import (
    add_certificates,
    add_decisions,
    add_retractions,
    merge_checks,
    retract_past_pairs,
    upsert_duplicates,
    upsert_individuals,
)
from runtime.servers.patience import growing_pauses
from runtime.servers.postgres import is_away
from runtime.telemetry.health import server_is_away
from runtime.telemetry.metrics import POSTGRES_S
from schemas.envelope import encode
from schemas.erased import Erased, ErasureKey

log = structlog.stdlib.get_logger(__name__)

_WRITE_S = POSTGRES_S.labels("write")


class PostgresTables:
    """The tables of `schemas.tables`. A Postgres that is away is waited for, with growing pauses.

    `registry` knows who was erased long ago: tables that are filled anew do not bring them back. `key` made it.
    """

    def __init__(self, engine: Engine, key: ErasureKey, registry: Erased) -> None:
        self._engine, self._key, self._registry = engine, key, registry

    def write(self, events: Events, publish: Publish) -> Remaining:
        """Write all events in one transaction. Raises DBAPIError of what is no outage, and what `publish` raises.

        `publish` gets null values for the keys of erased people, and what must stand behind records of the sink
        (see `restored`). It is called before the transaction ends: afterwards nobody would know their keys.
        """
        pauses = growing_pauses()
        while True:
            try:
                with _WRITE_S.time(), self._engine.begin() as connection:
                    remaining = apply_erasures(connection, events, self._key, self._registry)
                    _execute(connection, rows_of(remaining.events))
                    behind = [one for message, _ in events for one in published_behind(connection, message)]
                    publish([encode(message) for message in remaining.nulls + behind])
                return remaining
            except DBAPIError as error:
                if not is_away(error):
                    raise
                pause = next(pauses)
                log.warning("Postgres does not answer", error=type(error.orig).__name__, again_in_s=pause)
                server_is_away("postgres")
            time.sleep(pause)


def _execute(connection: Connection, rows: TableRows) -> None:
    for guard, group in rows.individuals.items():
        _write_individuals(connection, guard, group)
    checked = list(rows.individuals.get(CHECKED, []))
    if rows.checks:
        merged = connection.execute(merge_checks(), rows.checks).mappings()
        by_shards = completed(dict(row) for row in merged)
        _write_individuals(connection, CHECKED, by_shards)
        checked += by_shards
    if rows.duplicates:
        connection.execute(upsert_duplicates(rows.duplicates[0]), rows.duplicates)
    _retract_past_pairs(connection, checked, rows.duplicates)
    for statement, group in (
        (add_retractions(), rows.retractions),
        (add_decisions(), rows.decisions),
        (add_certificates(), rows.certificates),
    ):
        if group:
            connection.execute(statement, group)


def _retract_past_pairs(connection: Connection, checked: list[TableRow], pairs: list[TableRow]) -> None:
    if checked or pairs:
        parameters = {
            "collections": [row["collection"] for row in checked],
            "people": [row["individual_id"] for row in checked],
            "pairs": [row["pair_id"] for row in pairs],
        }
        for statement in retract_past_pairs():
            connection.execute(statement, parameters)


def _write_individuals(connection: Connection, guard: str, rows: list[TableRow]) -> None:
    if rows:
        connection.execute(upsert_individuals(guard, rows[0]), rows)
