"""Creates what the workers need: topics by the topic table, the database and its tables by the migrations."""

import logging
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # it is exported
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from schemas.envelope import full_name
from schemas.kafka import client_config
from schemas.settings import Settings
from schemas.topics import TOPICS

log = logging.getLogger(__name__)
_MIGRATIONS = Path(__file__).parent / "migrations"


def create_topics(settings: Settings) -> None:
    """Create the topics that are not there yet; those that are stay as they are."""
    admin = AdminClient(client_config(settings, "setup"))
    wanted = [
        NewTopic(
            full_name(topic.name, settings.namespace),
            num_partitions=topic.partitions,
            replication_factor=settings.replication_factor,
            config=topic.config,
        )
        for topic in TOPICS
    ]
    for created in admin.create_topics(wanted, operation_timeout=30).values():
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def create_tables(settings: Settings) -> None:
    """Create the database if it is not there, and bring its tables to the newest migration."""
    url = make_url(settings.postgres)
    server = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        found = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database})
        if not found:
            connection.execute(text(f'CREATE DATABASE "{url.database}"'))
    server.dispose()
    engine = create_engine(url)
    with engine.begin() as connection:
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def wait_until_set_up(settings: Settings) -> None:
    """What every worker does first: wait, with growing pauses, for the servers, all topics and all tables."""
    engine = create_engine(settings.postgres)
    admin = AdminClient(client_config(settings, "wait"))
    pause, said = 0.1, ""
    while missing := _missing(settings, admin, engine):
        if missing != said:
            log.warning("waiting: %s", missing)
            said = missing
        time.sleep(pause)
        pause = min(pause * 2, 10)
    engine.dispose()


def _missing(settings: Settings, admin: AdminClient, engine: Engine) -> str:
    try:
        there = admin.list_topics(timeout=5).topics
    except KafkaException as error:
        return f"Kafka does not answer ({error.args[0].str()})"
    topics = {full_name(topic.name, settings.namespace) for topic in TOPICS} - set(there)
    if topics:
        return f"`facematch setup` has not created {', '.join(sorted(topics))}"
    try:
        with engine.connect() as connection:
            heads = set(MigrationContext.configure(connection).get_current_heads())
    except OperationalError:
        return "Postgres does not answer, or has no such database"
    if heads != set(ScriptDirectory.from_config(_alembic()).get_heads()):
        return "`facematch setup` has not brought the tables to the newest migration"
    return ""


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
