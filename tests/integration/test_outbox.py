"""The outbox: nothing lost, each individual in order, by however many relays; bad rows are marked and hold up none."""

import base64
import io
import json
import random
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined] # they are exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from rich.console import Console
from sqlalchemy import text
from typer.testing import CliRunner

from deploy.cli import app
from deploy.status.report import print_status
from producers.outbox import relay as outbox
from producers.outbox.relay import Relay, build_relay
from producers.outbox.table import create_outbox, outbox_engine, take
from runtime.servers.kafka import client_config
from runtime.servers.patience import growing_pauses
from schemas.envelope import StoredRecord, decode, full_name
from schemas.events.base import IndividualEvent
from schemas.topics import INDIVIDUALS
from tests.integration.world import World

INSERT = text("INSERT INTO facematch_outbox (type, event) VALUES (:type, :event)")
RELAYS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'facematch outbox'"
NEVER_S = 3600.0
StartRelay = Callable[..., None]


@pytest.fixture
def world(world: World) -> World:
    """A world whose database has an outbox."""
    create_outbox(world.settings)
    return world


@pytest.fixture
def start_relay(world: World) -> Iterator[StartRelay]:
    """Starts relays as threads, and sees that they end without an error."""
    relays: list[tuple[Relay, Future[None]]] = []
    engine = outbox_engine(world.settings)
    with ThreadPoolExecutor() as threads:

        def start(poll_s: float = 5.0, rows: int = 2000) -> None:
            relay = build_relay(world.settings, engine, poll_s, rows)
            relays.append((relay, threads.submit(relay.run)))

        yield start
        for relay, _ in relays:
            relay.stop()
    for relay, end in relays:
        relay.close()
        end.result()


def row(who: str, revision: int, photo: dict[str, str] | None = None) -> dict[str, str]:
    """The parameters of an INSERT of a registration."""
    event = {"collection": "c", "individual_id": who, "revision": revision, "photo": photo or {"uri": "file:///a.jpg"}}
    return {"type": "IndividualCreated" if revision == 1 else "IndividualUpdated", "event": json.dumps(event)}


def write(world: World, rows: Iterable[dict[str, str]]) -> None:
    with world.engine.begin() as connection:
        connection.execute(INSERT, list(rows))


def count(world: World, condition: str = "true") -> int:
    with world.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM facematch_outbox WHERE {condition}")) or 0


def is_empty(world: World) -> bool:
    return count(world) == 0


def relays_in_transactions(world: World) -> int:
    with world.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) {RELAYS} AND state <> 'idle'")) or 0


def published(world: World) -> int:
    return sum(world.ends(INDIVIDUALS).values())


def revisions(records: Iterable[StoredRecord]) -> dict[str, list[int]]:
    """What each individual's records say, in their order: all of them are in one partition."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in records:
        event = decode(record).event
        assert isinstance(event, IndividualEvent)
        found[event.individual_id].append(event.revision)
    return found


def firsts(numbers: list[int]) -> list[int]:
    """Without repetitions."""
    return list(dict.fromkeys(numbers))


@contextmanager
def deletions_held_up(world: World) -> Iterator[None]:
    """Whoever deletes rows that are there now, or marks them, waits until the end."""
    with world.engine.begin() as connection:
        connection.execute(text("SELECT FROM facematch_outbox FOR UPDATE"))
        yield


def test_several_relays_keep_the_order_of_each_individual_and_publish_each_row_once(
    world: World, start_relay: StartRelay
) -> None:
    """While others write, in a database where transactions see one state from their beginning to their end."""
    with world.engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {world.name} SET default_transaction_isolation = 'repeatable read'"))
    for _ in range(4):
        start_relay(rows=32)  # two of a lane at once

    def register(number: int) -> None:
        """Of each of ten individuals 60 revisions, some in one transaction."""
        rows = [row(f"{number}-{who}", revision) for revision in range(1, 61) for who in range(10)]
        dice = random.Random(number)
        while rows:
            some = dice.choice((1, 5, 40))
            write(world, rows[:some])
            del rows[:some]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(register, range(4)))
    world.wait(lambda: is_empty(world), "all published and deleted")
    assert revisions(world.read(INDIVIDUALS)) == {
        f"{number}-{who}": list(range(1, 61)) for number in range(4) for who in range(10)
    }


def test_what_is_written_while_a_relay_is_at_work_on_an_individual_waits_for_it(
    world: World, start_relay: StartRelay
) -> None:
    elsewhere = text(
        "SELECT 'b' || n FROM generate_series(1, 99) AS n WHERE (hashtext('c/b' || n) # hashtext('c/a')) & 63 <> 0"
    )
    with world.connect() as connection:
        other = str(connection.scalar(elsewhere))
    write(world, [row("a", 1)])
    with deletions_held_up(world):
        start_relay()
        world.wait(lambda: published(world) == 1, "the first is published")
        write(world, [row("a", 2), row(other, 1)])
        start_relay()
        world.wait(lambda: published(world) > 1, "something else is published by the other relay")
        assert revisions(world.read(INDIVIDUALS)) == {"a": [1], other: [1]}
    world.wait(lambda: is_empty(world), "all published and deleted")
    assert revisions(world.read(INDIVIDUALS)) == {"a": [1, 2], other: [1]}


def test_killed_between_publishing_and_deleting_it_publishes_the_same_again(world: World) -> None:
    write(world, [row(f"i{number % 20}", number // 20 + 1) for number in range(400)])
    with deletions_held_up(world):
        world.start("outbox")
        world.wait(lambda: published(world) > 0, "some are published")
        relay = world.workers["outbox"]
        relay.kill()
        relay.stop()
        assert count(world) == 400
        before = len(world.read(INDIVIDUALS))
    relay.start()
    world.wait(lambda: is_empty(world), "all published and deleted")
    records = world.read(INDIVIDUALS)
    assert len(records) == 400 + before
    contents = {(decode(record).id, record.key, record.value, record.headers) for record in records}
    assert len(contents) == len({identity for identity, *_ in contents}) == 400
    assert {who: firsts(seen) for who, seen in revisions(records).items()} == {
        f"i{number}": list(range(1, 21)) for number in range(20)
    }
    relay.stop()
    assert relay.process is not None
    assert relay.process.returncode == 0


def test_it_wakes_when_rows_are_written_and_comes_back_when_its_connection_was_cut(
    world: World, start_relay: StartRelay
) -> None:
    """It would look by itself only after an hour."""
    start_relay(poll_s=NEVER_S)
    for revision in range(1, 9):
        if revision == 5:
            with world.connect() as connection:
                assert connection.execute(text(f"SELECT pg_terminate_backend(pid) {RELAYS}")).all() == [(True,)]
        write(world, [row("a", revision)])
        world.wait(lambda: is_empty(world), f"revision {revision} is published")
    assert revisions(world.read(INDIVIDUALS)) == {"a": list(range(1, 9))}


def test_a_notification_that_came_with_the_last_answer_is_not_waited_for(world: World) -> None:
    engine = outbox_engine(world.settings)
    relay = build_relay(world.settings, engine, poll_s=NEVER_S)
    with engine.connect() as connection, ThreadPoolExecutor() as threads:
        connection.execute(text("LISTEN facematch_outbox"))
        connection.commit()
        connection.execute(text("SELECT"))
        write(world, [row("a", 1)])  # nothing is told in the middle of a transaction
        connection.commit()
        waiting = threads.submit(relay._wait_for_rows, connection)
        try:
            waiting.result(timeout=20)
        finally:
            relay.stop()
    relay.close()


def test_without_the_trigger_it_looks_by_itself(world: World, start_relay: StartRelay) -> None:
    with world.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER facematch_outbox_notify ON facematch_outbox"))
    start_relay(poll_s=0.1)
    for revision in range(1, 4):
        write(world, [row("a", revision)])
        world.wait(lambda: is_empty(world), f"revision {revision} is published")


def test_a_broker_that_is_away_is_waited_for_without_a_transaction(
    world: World, start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(outbox, "growing_pauses", partial(growing_pauses, 2.0))
    start_relay()
    write(world, [row("a", 1)])
    world.wait(lambda: is_empty(world), "the relay is at work")
    kafka = world.stack.supervisor.children["kafka"]
    kafka.signal(signal.SIGSTOP)
    try:
        write(world, [row(f"i{number % 10}", number // 10 + 1) for number in range(100)])
        world.wait(lambda: "acknowledged nothing" in caplog.text, "the relay gives up for the moment")
        world.wait(lambda: not relays_in_transactions(world), "no transaction is open meanwhile")
        assert count(world) == 100
    finally:
        kafka.signal(signal.SIGCONT)
    world.wait(lambda: is_empty(world), "all published and deleted")
    seen = {who: firsts(found) for who, found in revisions(world.read(INDIVIDUALS)).items()}
    assert seen == {"a": [1]} | {f"i{number}": list(range(1, 11)) for number in range(10)}


def test_bad_rows_are_marked_and_shown_without_their_contents_and_the_others_go_on(world: World) -> None:
    secret = "QUJD" * 50
    good = row("a", 2)["event"]
    bad = [
        ("IndividualCreated", json.dumps({"collection": "c", "individual_id": "a"})),
        (secret, good),
        ("IndividualUpdated", row("a", 2, {"inline": secret, "uri": "file:///a.jpg"})["event"]),
        ("IndividualUpdated", json.dumps([secret])),
        ("IndividualUpdated", json.dumps(json.loads(good) | {"attributes": {secret: [1]}})),
        ("IndividualUpdated", json.dumps({"collection": "c", "individual_id": "\x1b[2J"})),
        ("IndividualUpdated", row("a", 2, {"inline": secret * 10_000})["event"]),
    ]
    columns = [{"source": ""}, {"occurred_at": "infinity"}, {"occurred_at": "0044-03-15 BC"}]
    write(world, [row("a", 1), *({"type": name, "event": event} for name, event in bad)])
    with world.engine.begin() as connection:
        for column in columns:
            (name,) = column
            sql = f"INSERT INTO facematch_outbox (type, event, {name}) VALUES ('IndividualUpdated', :event, :{name})"
            connection.execute(text(sql), {"event": good} | column)
    write(world, [row("a", 3), row("b", 1)])
    world.start("outbox")
    world.wait(lambda: count(world, "problem IS NULL") == 0, "no row waits")
    assert revisions(world.read(INDIVIDUALS)) == {"a": [1, 3], "b": [1]}
    with world.connect() as connection:
        problems = list(connection.scalars(text("SELECT problem FROM facematch_outbox")))
    assert len(problems) == len(bad) + len(columns)
    assert "Broker: Message size too large" in "".join(problems)
    shown = status(world)
    assert "\x1b" not in shown
    assert "the latest 10" in shown
    assert all(str(position) in shown for position in range(2, 12))
    assert "revision: Field required; photo: Field required" in shown
    assert not any(secret in told for told in (*problems, *world.lines.since(0), shown))


def status(world: World) -> str:
    """What `facematch status` prints of the outbox, one line for each row."""
    console = Console(file=io.StringIO(), width=300)
    print_status(console, world.settings)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    return str(printed[printed.index("outbox") :])


def test_a_row_that_was_marked_is_published_once_it_is_put_right(world: World, start_relay: StartRelay) -> None:
    write(world, [{"type": "IndividualCreated", "event": "{}"}])
    start_relay(poll_s=NEVER_S)
    world.wait(lambda: count(world, "problem IS NOT NULL") == 1, "it is marked")
    with world.engine.begin() as connection:
        right = text("UPDATE facematch_outbox SET event = :event, problem = NULL WHERE problem IS NOT NULL")
        connection.execute(right, {"event": row("a", 1)["event"]})
    world.wait(lambda: is_empty(world), "it is published")
    assert revisions(world.read(INDIVIDUALS)) == {"a": [1]}


def test_what_the_broker_finds_too_large_is_marked_alone(world: World, start_relay: StartRelay) -> None:
    """Though the broker allows less than clients do, and refuses whole batches."""
    limit = ConfigEntry("max.message.bytes", "200000", incremental_operation=AlterConfigOpType.SET)
    topic = full_name(INDIVIDUALS.name, world.name)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[limit])
    admin = AdminClient(client_config(world.settings, "test"))
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()
    large = {"inline": "QUJD" * 60_000}
    write(world, [row("a", revision, large if revision == 30 else None) for revision in range(1, 61)])
    start_relay()
    world.wait(lambda: count(world, "problem IS NULL") == 0, "no row waits")
    assert revisions(world.read(INDIVIDUALS)) == {"a": [revision for revision in range(1, 61) if revision != 30]}
    assert count(world, "problem LIKE '%too large%'") == 1


def test_a_round_takes_no_more_photos_than_memory_is_meant_for(world: World) -> None:
    photo = base64.b64encode(random.Random(1).randbytes(600_000)).decode()
    write(world, [row("a", revision, {"inline": photo}) for revision in range(1, 31)])
    with outbox_engine(world.settings).connect() as connection:
        taken = take(connection, 2000)
        assert [json.loads(one.event)["revision"] for one in taken] == list(range(1, 21))  # of 800 kB


@pytest.mark.parametrize("analyzed", [False, True])
def test_it_reads_by_the_index_though_postgres_knows_the_table_as_it_was_or_not_at_all(
    world: World, analyzed: bool
) -> None:
    write(world, [row(f"i{number}", 1) for number in range(2000)])
    with world.engine.begin() as connection:
        connection.execute(text("ALTER TABLE facematch_outbox SET (autovacuum_enabled = off)"))
        if analyzed:
            connection.execute(text("ANALYZE facematch_outbox"))
        connection.execute(text("DELETE FROM facematch_outbox"))
        many = "SELECT 'none', jsonb_build_object('revision', n) FROM generate_series(1, 20000) AS n"
        connection.execute(text(f"INSERT INTO facematch_outbox (type, event) {many}"))
    entries = text("SELECT pg_stat_get_xact_tuples_returned('facematch_outbox_waiting'::regclass)")
    with outbox_engine(world.settings).connect() as connection:
        assert len(take(connection, 2000)) == 2000
        assert 2000 <= (connection.scalar(entries) or 0) <= 5000


def test_it_is_created_as_often_as_one_likes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world, [row("a", 1)])
    monkeypatch.setenv("FACEMATCH_OUTBOX", world.settings.postgres)
    done = CliRunner().invoke(app, ["outbox", "--create"])
    assert (done.exit_code, done.output) == (0, "the outbox table is there\n")
    assert count(world) == 1
    assert re.search(r"│ 1 +│ \d+ s ago", status(world))


def test_status_shows_how_long_the_oldest_row_waits(world: World) -> None:
    """A clock runs on while a test does: the age is at least what it was."""
    write(world, [row("a", 1), row("b", 1)])
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE facematch_outbox SET written_at = now() - interval '1000 s' WHERE key = 'c/a'"))
    shown = re.search(r"│ 2 +│ (\d+) s ago", status(world))
    assert shown is not None
    assert int(shown[1]) >= 1000
