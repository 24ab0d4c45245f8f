"""What Kafka removes before a group has read it is missed by nobody in silence."""

import os

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from deploy.cli import app
from runtime.servers.kafka import client_config
from runtime.servers.log import TopicLog
from runtime.telemetry.metrics import REMOVED
from schemas.envelope import Record, announce, encode, full_name
from schemas.events.registrations import IndividualCreated, Photo
from schemas.topics import DEAD_LETTERS, INDIVIDUALS
from tests.integration.world import World


def registrations(*ids: str) -> list[Record]:
    """Of people whose photo may not be read: a rejection answers each. All in one partition."""
    events = [IndividualCreated(collection="c", individual_id=one, revision=1, photo=Photo(uri="x:/y")) for one in ids]
    made = [encode(announce(event, "test")) for event in events]
    return [Record(one.topic, one.key, one.value, one.headers, partition=0) for one in made]


def remove_below(world: World, offset: int) -> None:
    """As retention does it."""
    place = TopicPartition(full_name(INDIVIDUALS.name, world.settings.namespace), 0, offset)
    admin = AdminClient(client_config(world.settings, "test"))
    for done in admin.delete_records([place]).values():
        done.result()


def status(world: World) -> str:
    done = CliRunner(env={**os.environ, **world.env, "COLUMNS": "300"}).invoke(app, ["status"])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_retention_removed_before_it_was_read_is_reported_and_counted(world: World) -> None:
    world.start("encode-cpu", "sink")
    world.publish_records(registrations("a", "b", "c"))
    world.wait(lambda: world.count("rejected") == 3, "three are answered", 120)
    world.wait(world.settled, "that is committed")
    assert "removed unread" not in status(world)
    for name in ("encode-cpu", "sink"):
        world.workers[name].stop()
    world.publish_records(registrations(*(f"lost{number}" for number in range(10)), "d", "e"))
    remove_below(world, 13)
    before = status(world)
    for group in ("encoder-cpu", "sink"):
        assert f"removed unread: 10 records that {group} has not read and never will" in before
    for name in ("encode-cpu", "sink"):
        world.workers[name].start()
    world.wait(lambda: world.count("rejected") == 5, "those that are left are answered", 120)
    world.wait(world.settled, "that is committed")
    errors = [line for line in world.said() if line["event"] == "records were removed before they were read"]
    assert {(one["group"], one["records"], one["first_offset"], one["level"]) for one in errors} == {
        ("encoder-cpu", 10, 3, "error"),
        ("sink", 10, 3, "error"),
    }
    after = status(world)
    assert "removed unread: 10 records of individuals, which" in after
    assert all(group in after.partition("removed unread")[2] for group in ("encoder-cpu", "sink"))
    assert {(record.key, record.value) for record in world.read(DEAD_LETTERS)} == {(None, None)}
    runner = CliRunner(env={**os.environ, **world.env, "COLUMNS": "300"})
    listed = runner.invoke(app, ["dead-letters", "list"])
    assert "individuals/0/3" in listed.output
    assert "10 (offsets 3 to 12)" in listed.output
    again = runner.invoke(app, ["dead-letters", "redrive", "individuals/0/3", "--yes"])
    assert again.exit_code == 2, again.output
    assert world.restarts() == {}


def test_a_reader_beside_the_groups_goes_on_behind_what_was_removed_and_counts_it(world: World) -> None:
    world.publish_records(registrations(*map(str, range(10))))
    counted = REMOVED.labels("reader", INDIVIDUALS.name)._value
    with TopicLog(world.settings, INDIVIDUALS, "reader") as log:
        span = log.span(0)
        remove_below(world, 4)
        read = [record.offset for batch in log.read({0: span}) for record in batch]
        assert (read, counted.get()) == ([4, 5, 6, 7, 8, 9], 4)
        remove_below(world, 10)
        assert list(log.read({0: span})) == []
        assert counted.get() == 4 + 10
