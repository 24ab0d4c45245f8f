"""What the last compactions certified, as Postgres knows it, for whoever is scraped: any sink says it, always."""

import time

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from runtime.servers.postgres import is_away
from runtime.telemetry.health import server_is_away
from runtime.telemetry.metrics import (
    CERTIFICATE_DURATION_S,
    CERTIFICATE_IN_SERVICE,
    CERTIFICATE_PAIRS,
    CERTIFICATE_PEOPLE,
    CERTIFICATE_RECALL,
    CERTIFICATE_TIME,
    Series,
)
from schemas.events.certificates import CompactionCertified
from schemas.tables import certificates

log = structlog.stdlib.get_logger(__name__)

_EVERY_S = 60.0


class CertificateGauges:
    """Of each encoder of each collection, and each shard, the last certificate. Looked for every minute at most."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._look_at = 0.0
        self._found: dict[tuple[str, ...], tuple[CompactionCertified, float]] = {}
        CERTIFICATE_TIME.ask = lambda: {key: at for key, (_, at) in self._found.items()}
        CERTIFICATE_PEOPLE.ask = lambda: {key: one.people for key, (one, _) in self._found.items()}
        CERTIFICATE_IN_SERVICE.ask = lambda: {key: one.in_service for key, (one, _) in self._found.items()}
        CERTIFICATE_DURATION_S.ask = lambda: {key: sum(one.seconds.values()) for key, (one, _) in self._found.items()}
        CERTIFICATE_RECALL.ask = self._recalls
        CERTIFICATE_PAIRS.ask = self._pairs

    def look(self, now: bool = False) -> None:
        """Look for new ones if it is time, or now. A Postgres that is away is left to those who need it."""
        if not now and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _EVERY_S
        table, at = certificates.c, func.extract("epoch", certificates.c.certified_at)
        shard, shards = (table.certificate[name].as_string() for name in ("shard", "shards"))
        whose = (table.collection, table.encoder, shard, shards)
        latest = select(table.certificate, at).ext(distinct_on(*whose)).order_by(*whose, table.certified_at.desc())
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(latest).all()
        except DBAPIError as error:
            if not is_away(error):
                raise
            log.debug("Postgres does not answer: certificates are those of before", error=type(error.orig).__name__)
            server_is_away("postgres")
            return
        found = [(CompactionCertified.model_validate(one), float(when)) for one, when in rows]
        self._found = {
            (one.collection, one.encoder or "none", f"{one.shard}/{one.shards}"): (one, when) for one, when in found
        }

    def _recalls(self) -> Series:
        return {key: one.recall.recall for key, (one, _) in self._found.items() if one.recall is not None}

    def _pairs(self) -> Series:
        return {
            (*key, judged): count
            for key, (one, _) in self._found.items()
            for judged, count in one.pairs.model_dump().items()
        }
