"""Waits for the outbox's table."""

from sqlalchemy.exc import OperationalError

from deploy.setup.waiting import wait_while
from producers.outbox.table import has_outbox, outbox_engine
from runtime.servers.refusals import refused_by_postgres
from schemas.settings import Settings


def wait_for_outbox(settings: Settings) -> None:
    """Wait, with growing pauses, for the outbox's Postgres and the table in it. Raises AccessRefusedError."""
    engine = outbox_engine(settings)

    def missing() -> str:
        try:
            with engine.connect() as connection:
                found = has_outbox(connection)
        except OperationalError as error:
            ca = settings.postgres_ca if settings.outbox is None else None
            if refusal := refused_by_postgres(engine.url, error, ca):
                raise refusal from None
            return "the registration system's Postgres does not answer, or has no such database"
        return (
            "" if found else "the outbox table is not there: `facematch outbox --create` or producers/outbox/outbox.sql"
        )

    wait_while(missing)
