"""Prometheus gauges of what the tables have, read from Postgres by every sink: any of them may be scraped."""

import time
from collections.abc import Callable

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from consumers.views.individuals import count_conflicting
from consumers.views.pairs import count_different
from runtime.servers.postgres import is_away
from runtime.telemetry.health import server_is_away
from runtime.telemetry.largest import Combine, largest_and_others
from runtime.telemetry.metrics import (
    CERTIFICATE_DURATION_S,
    CERTIFICATE_IN_SERVICE,
    CERTIFICATE_PAIRS,
    CERTIFICATE_PEOPLE,
    CERTIFICATE_RECALL,
    CERTIFICATE_TIME,
    CONFLICTING,
    DIFFERENT_PAIRS,
    CallbackGauge,
    Series,
)
from schemas.events.certificates import CompactionCertified
from schemas.tables import certificates

log = structlog.stdlib.get_logger(__name__)

_REFRESH_S = 60.0


class TableGauges:
    """The latest certificate of each collection, encoder and shard; conflicting registrations, pairs decided different.

    Postgres is asked once a minute at most.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._refresh_at = 0.0
        self._different: dict[str, int] = {}
        self._found: dict[tuple[str, ...], tuple[CompactionCertified, float]] = {}

        def show(gauge: CallbackGauge, value: Callable[[CompactionCertified], float], of_others: Combine) -> None:
            gauge.source = lambda: self._of({key: value(one) for key, (one, _) in self._found.items()}, of_others)

        DIFFERENT_PAIRS.source = self._different_pairs
        CERTIFICATE_TIME.source = lambda: self._of({key: at for key, (_, at) in self._found.items()}, max)
        show(CERTIFICATE_PEOPLE, lambda one: one.people, sum)
        show(CERTIFICATE_IN_SERVICE, lambda one: one.in_service, min)
        show(CERTIFICATE_DURATION_S, lambda one: sum(one.seconds.values()), sum)
        CERTIFICATE_RECALL.source = lambda: self._of(self._recalls(), min)
        CERTIFICATE_PAIRS.source = lambda: self._of(self._pairs(), sum)

    def refresh(self, force: bool = False) -> None:
        """Read them from Postgres: every minute, or at once by `force`.

        A Postgres that is away is not waited for: the gauges stay as they are until the next time.
        """
        if not force and time.monotonic() < self._refresh_at:
            return
        self._refresh_at = time.monotonic() + _REFRESH_S
        table, at = certificates.c, func.extract("epoch", certificates.c.certified_at)
        shard, shards = (table.certificate[name].as_string() for name in ("shard", "shards"))
        series = (table.collection, table.encoder, shard, shards)
        latest = select(table.certificate, at).ext(distinct_on(*series)).order_by(*series, table.certified_at.desc())
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(latest).all()
                conflicting = sum(count_conflicting(connection).values())
                different = count_different(connection)
        except DBAPIError as error:
            if not is_away(error):
                raise
            log.debug(
                "Postgres does not answer: the gauges of the tables stay as they are", error=type(error.orig).__name__
            )
            server_is_away("postgres")
            return
        found = [(CompactionCertified.model_validate(one), float(when)) for one, when in rows]
        CONFLICTING.set(conflicting)
        self._different = {one.collection: 0 for one, _ in found} | different
        self._found = {
            (one.collection, one.encoder or "none", f"{one.shard}/{one.shards}"): (one, when) for one, when in found
        }

    def _of(self, values: Series, of_others: Combine) -> Series:
        return largest_and_others(values, {key: one.people for key, (one, _) in self._found.items()}, of_others)

    def _different_pairs(self) -> Series:
        counts: dict[tuple[str, ...], float] = {(collection,): count for collection, count in self._different.items()}
        return largest_and_others(counts, counts, sum)

    def _recalls(self) -> Series:
        return {key: one.recall.recall for key, (one, _) in self._found.items() if one.recall is not None}

    def _pairs(self) -> Series:
        return {
            (*key, outcome): count
            for key, (one, _) in self._found.items()
            for outcome, count in one.pairs.model_dump().items()
        }
