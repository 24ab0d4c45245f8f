"""Creates the database and its tables by the migrations, and waits for them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from deploy.setup.waiting import wait_while
from runtime.servers.postgres import postgres_engine, postgres_url
from runtime.servers.refusals import refused_by_postgres
from schemas.settings import Settings

_MIGRATIONS = Path(__file__).parents[1] / "migrations"


def create_tables(settings: Settings) -> None:
    """Create the database if it is not there, and bring its tables to the newest migration."""
    name = postgres_url(settings).database
    server = postgres_engine(settings, "postgres", isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        found = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
        if not found:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
    server.dispose()
    engine = postgres_engine(settings)
    with engine.begin() as connection:
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def wait_for_tables(settings: Settings) -> None:
    """Wait, with growing pauses, for Postgres and the newest migration. Raises AccessRefusedError."""
    engine = postgres_engine(settings)
    newest = set(ScriptDirectory.from_config(_alembic()).get_heads())

    def missing() -> str:
        try:
            with engine.connect() as connection:
                heads = set(MigrationContext.configure(connection).get_current_heads())
        except (OperationalError, ProgrammingError) as error:
            if refusal := refused_by_postgres(engine.url, error, settings.postgres_ca):
                raise refusal from None
            return "Postgres does not answer, or has no such database"
        return "" if heads == newest else "`facematch setup` has not brought the tables to the newest migration"

    wait_while(missing)
    engine.dispose()


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
