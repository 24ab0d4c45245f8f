"""The sink: the same rows in any order, however often, and nothing committed that was not written."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from confluent_kafka import Consumer, Producer, TopicPartition
from sqlalchemy import insert, select, text
from sqlalchemy.engine import Connection

from consumers.sink.postgres import PostgresTables
from deploy import migrations as migrations_folder
from deploy.status.workers import lags
from runtime.servers.flow import is_behind
from runtime.servers.kafka import client_config, consumer_config
from schemas.envelope import Message, announce, decode, encode, full_name
from schemas.erased import NOBODY, ErasureKey
from schemas.events.base import Event, Member
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EncodingComputed, EncodingRejected, RejectionReason
from schemas.events.pairs import (
    DecisionErased,
    DuplicateFound,
    DuplicateRetracted,
    FindingErased,
    IndividualChecked,
    PairDecided,
    RetractionReason,
)
from schemas.events.registrations import IndividualCreated, IndividualDeleted, IndividualUpdated, Photo
from schemas.generate import examples
from schemas.shard import Shard
from schemas.tables import certificates, decisions, individual_duplicates, individuals, metadata, retractions
from schemas.topics import DEAD_LETTERS, ENCODINGS, REJECTIONS, SINK, matcher_of, partition_of
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.world import World

PHOTO = Photo(uri="file:///nowhere/a.jpg")
SINKS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
EMBEDDING = np.ones(128, dtype=np.float32)


def who(name: str, revision: int) -> dict[str, object]:
    return {"collection": "c", "individual_id": name, "revision": revision}


def encoded(name: str, revision: int) -> EncodingComputed:
    return computed(name, EMBEDDING, revision)


def by_shard(
    name: str, revision: int, shard: int, shards: int, found: int, truncated: bool = False
) -> IndividualChecked:
    return IndividualChecked(
        **who(name, revision), encoder="e", duplicates=found, truncated=truncated, shard=shard, shards=shards
    )


def pair(a: tuple[str, int], b: tuple[str, int]) -> dict[str, object]:
    one, other = (Member(individual_id=name, revision=revision) for name, revision in (a, b))
    return {"collection": "c", "encoder": "e", "a": one, "b": other}


def story() -> list[Message[Event]]:
    events: list[Event] = [
        IndividualCreated(**who("a", 1), photo=PHOTO, attributes={"household": "7"}),
        encoded("a", 1),
        IndividualChecked(**who("a", 1), encoder="e", duplicates=0),
        IndividualCreated(**who("b", 1), photo=PHOTO),
        EncodingRejected(**who("b", 1), reason=RejectionReason.NO_FACE, detail="none", event_id="x"),
        IndividualUpdated(**who("b", 2), photo=Photo(inline="QUJD")),
        encoded("b", 2),
        IndividualChecked(**who("b", 2), encoder="e", duplicates=1),
        DuplicateFound(**pair(("a", 1), ("b", 2)), distance=0.2, threshold=0.45),
        IndividualUpdated(**who("b", 3), photo=PHOTO),
        DuplicateRetracted(**pair(("a", 1), ("b", 2)), reason=RetractionReason.UPDATED, distance=0.2, threshold=0.45),
        DuplicateFound(**pair(("a", 1), ("z", 9)), distance=0.1, threshold=0.45),
        IndividualCreated(**who("gone", 1), photo=PHOTO),
        IndividualDeleted(**who("gone", 2)),
        *(by_shard("many", 1, shard, 2, found=70, truncated=shard == 2) for shard in (1, 2)),
        *(by_shard("many", 1, shard, 3, found=40) for shard in (1, 2, 3)),
        by_shard("many", 1, 1, 2, found=71),  # it was started again, and meanwhile others had come
        *(by_shard("half", revision, 1, 2, found=1) for revision in (1, 2)),
        by_shard("half", 1, 2, 2, found=1),
        encoded("half", 2),
        encoded("half", 1),
        *(by_shard("resharded", 1, 1, 1, found=found, truncated=True) for found in (3, 4)),
        *(by_shard("resharded", 1, shard, 3, found=shard - 1, truncated=True) for shard in (2, 3)),
        by_shard("resharded", 1, 1, 3, found=1),
        encoded("resharded", 1),
        by_shard("resharded", 1, 2, 2, found=1),
        *(DuplicateFound(**pair(("m", 2**63 - 1), ("n", 2**63 - 1)), distance=0.3, threshold=0.45) for _ in range(2)),
        decode(examples()["CompactionCertified"]).event,
    ]
    times = (datetime(2026, 1, 31, 9, 0, second, tzinfo=UTC) for second in range(60))
    return [
        Message(event, f"id-{number}", time, "test")
        for number, (event, time) in enumerate(zip(events, times, strict=False))
    ]


def check_of(world: World, name: str) -> tuple[str, int | None, bool] | None:
    """State, how many were found if more than are published, and whether that is so."""
    view = individual_duplicates.c
    query = select(view.state, view.duplicates_found, view.truncated).where(view.individual_id == name)
    with world.connect() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else tuple(row)


def migrations(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations_folder.__file__).parent))
    config.attributes["connection"] = connection
    return config


def caught_up(world: World) -> bool:
    (lag,) = (lag for lag in lags(world.settings) if lag.group == SINK.name)
    return lag.records == 0


def test_rows_do_not_depend_on_the_order_or_number_of_events(make_world: MakeWorld) -> None:
    in_order = make_world()
    in_order.start("sink")
    in_order.publish(story())
    in_order.wait(lambda: caught_up(in_order), "all written")
    expected = in_order.tables()
    assert in_order.pairs() == {("a", "z"), ("m", "n")}
    with in_order.connect() as connection:
        assert connection.execute(select(retractions.c.individual_b, retractions.c.distance)).all() == [("b", 0.2)]
        (certificate,) = connection.scalars(select(certificates.c.certificate))
    assert CompactionCertified.model_validate(certificate) == story()[-1].event
    assert in_order.states() == {
        "a": ("checked", None),
        "b": ("registered", None),
        "many": ("checked", None),
        "half": ("encoded", None),
        "resharded": ("checked", None),
    }
    mixed = make_world()
    messages = story() * 3
    random.Random(5).shuffle(messages)
    mixed.start("sink")
    for begin in range(0, len(messages), 7):  # several batches
        mixed.publish(messages[begin : begin + 7])
    mixed.wait(lambda: caught_up(mixed), "all written")
    assert mixed.tables() == expected


def test_whether_a_consumer_is_behind_counts_what_was_handed_over_or_else_committed(world: World) -> None:
    name = full_name(REJECTIONS.name, world.settings.namespace)
    places = [TopicPartition(name, partition) for partition in range(REJECTIONS.partitions)]
    world.publish(story())
    first = Consumer(consumer_config(world.settings, "flow"))
    first.assign(places)
    assert is_behind(first)
    while is_behind(first):
        message = first.poll(10)
        assert message is not None
        assert message.error() is None
        first.store_offsets(message)
    first.close()
    second = Consumer(consumer_config(world.settings, "flow"))
    second.assign(places)
    assert not is_behind(second), "nothing was handed over to it, but all is committed"
    second.close()


def test_the_view_shows_each_individual_with_the_ids_of_its_duplicates(world: World) -> None:
    found: list[Event] = [
        DuplicateFound(**pair((a, 1), (b, 1)), distance=distance, threshold=0.45)
        for a, b, distance in (("a", "b", 0.3), ("a", "c", 0.2), ("b", "c", 0.4))
    ]
    people: list[Event] = [IndividualCreated(**who(name, 1), photo=PHOTO) for name in "abcd"]
    world.start("sink")
    world.publish([announce(event, "test") for event in people + found])
    world.wait(lambda: len(world.states()) == 4 and len(world.pairs()) == 3, "all written")
    view = individual_duplicates.c
    with world.connect() as connection:
        rows = connection.execute(select(view.individual_id, view.duplicates).order_by(view.individual_id))
        assert [tuple(row) for row in rows] == [("a", ["c", "b"]), ("b", ["a", "c"]), ("c", ["a", "b"]), ("d", [])]


def test_the_view_shows_how_good_the_face_of_the_latest_revision_is(world: World) -> None:
    updated = IndividualUpdated(**who("past", 2), photo=PHOTO)
    world.start("sink")
    world.publish([announce(event, "test") for event in (encoded("now", 1), encoded("past", 1), updated)])
    world.wait(lambda: caught_up(world), "all written")
    event, view = encoded("now", 1), individual_duplicates.c
    with world.connect() as connection:
        rows = connection.execute(select(view.individual_id, view.detector, view.face, view.quality)).all()
    shown = ("hog", event.face.model_dump(), event.quality.model_dump())
    assert sorted(map(tuple, rows)) == [("now", *shown), ("past", None, None, None)]


def test_an_individual_is_checked_once_the_last_shard_has_reported_its_latest_revision(world: World) -> None:
    numbers = list(range(1, 9))
    random.Random(3).shuffle(numbers)
    reports = [by_shard("a", 2, number, 8, found=10 * number, truncated=number == 4) for number in numbers]
    before: list[Event] = [encoded("a", 1), *(by_shard("a", 1, number, 8, found=1) for number in numbers)]
    world.start("sink")
    world.publish([announce(event, "test") for event in before])
    world.wait(lambda: check_of(world, "a") == ("checked", None, False), "revision 1 is checked")
    world.publish([announce(encoded("a", 2), "test")])
    for report in reports:
        world.wait(lambda: caught_up(world), "all written")
        assert check_of(world, "a") == ("encoded", None, False), f"{report} has not been published yet"
        world.publish([announce(report, "test")] * 2)
    world.wait(lambda: check_of(world, "a") == ("checked", 360, True), "revision 2 is checked")


def test_reports_of_a_shard_under_another_number_of_shards_do_not_count_together(world: World) -> None:
    halves = [by_shard("a", 1, 1, 2, found=3), by_shard("a", 1, 2, 3, found=3), by_shard("a", 1, 3, 3, found=3)]
    world.start("sink")
    world.publish([announce(event, "test") for event in (encoded("a", 1), *halves)])
    world.wait(lambda: world.states() == {"a": ("encoded", None)} and caught_up(world), "all written")
    world.publish([announce(by_shard("a", 1, 1, 3, found=1), "test")])
    world.wait(lambda: check_of(world, "a") == ("checked", None, False), "all three have reported")


def written(world: World, batch: list[tuple[Message[Event], int]]) -> None:
    assert world.settings.erasure_key is not None
    PostgresTables(world.engine, ErasureKey(world.settings.erasure_key), NOBODY).write(batch, world.publish_records)


def test_two_sinks_at_once_miss_no_report(world: World) -> None:
    """Each reads some of the partitions; here both write reports of the same individuals, as after a rebalance."""
    names = [f"i{number}" for number in range(200)]
    batches = [
        [(announce(by_shard(name, 1, number, 8, found=number, truncated=True), "test"), 0) for name in names]
        for number in range(1, 9)
    ]
    with ThreadPoolExecutor(8) as sinks:
        list(sinks.map(partial(written, world), batches))
    with world.connect() as connection:
        found = connection.execute(select(individuals.c.checked_revision, individuals.c.duplicates_found)).all()
    assert found == [(1, 36)] * 200


def test_status_shows_every_shard_that_ran_and_those_beside_it_that_did_not(world: World) -> None:
    world.publish([announce(encoded("a", 1), "test")])
    assert [lag.group for lag in lags(world.settings)] == ["encoder-cpu", "encoder-gpu", "matcher", "sink"]
    place = TopicPartition(full_name(ENCODINGS.name, world.name), partition_of("c", ENCODINGS.partitions), 1)
    consumer = Consumer(consumer_config(world.settings, matcher_of(Shard(2, 3)).name))
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()
    behind = {lag.group: lag.records for lag in lags(world.settings) if lag.group.startswith("matcher")}
    assert behind == {"matcher-1-of-3": 1, "matcher-2-of-3": 0, "matcher-3-of-3": 1}


def test_migrations_there_and_back_keep_what_is_checked(world: World) -> None:
    with world.engine.begin() as connection:
        command.downgrade(migrations(connection), "0001")
        key = {"collection": "c", "individual_id": "a"}
        connection.execute(insert(individuals), {**key, "encoded_revision": 1, "checked_revision": 1})
    assert world.states() == {"a": ("checked", None)}
    with world.engine.begin() as connection:
        command.upgrade(migrations(connection), "head")
    assert check_of(world, "a") == ("checked", None, False)
    world.start("sink")
    world.publish([announce(by_shard("a", 1, 1, 1, found=2, truncated=True), "test")])
    world.wait(lambda: check_of(world, "a") == ("checked", 2, True), "counted when it is checked again")


def test_migrations_make_the_tables_that_the_code_describes(world: World) -> None:
    with world.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_views_are_those_that_one_file_describes(world: World) -> None:
    names = ("pair_verdicts", "individual_duplicates")

    def definitions(connection: Connection) -> list[str | None]:
        return [connection.scalar(text(f"SELECT pg_get_viewdef('{name}')")) for name in names]

    with world.connect() as connection:
        migrated = definitions(connection)
        connection.execute(text("DROP VIEW pair_verdicts, individual_duplicates"))
        connection.exec_driver_sql(files("schemas").joinpath("views.sql").read_text())
        assert definitions(connection) == migrated
        connection.rollback()


def test_no_record_stops_it(world: World) -> None:
    """Each of these ended the sink, or the encoder, at every start."""
    decided = announce(PairDecided(collection="c", encoder="e", a="a", b="b", verdict="same", by="ann"), "test")
    long = encode(replace(decided, id="x" * 12_000))
    nulls = [
        encode(announce(DecisionErased(collection="c", erased_key="no pair id"), "test")),
        encode(announce(FindingErased(collection="c", erased_key="@9/2/c/a"), "test")),
    ]
    photo = Photo(uri="file:///nowhere/a.jpg")
    world.start("encode-cpu", "sink")
    world.publish_records([long, *nulls])
    producer = Producer(client_config(world.settings, "test"))
    record = encode(announce(IndividualCreated(**who("old", 1), photo=photo), "test"))
    place, year_of_minus_29719 = full_name(record.topic, world.name), -1_000_000_000_000_000
    producer.produce(place, record.value, record.key, headers=list(record.headers), timestamp=year_of_minus_29719)
    producer.flush(30)
    world.publish([announce(IndividualCreated(**who("after", 1), photo=photo), "test"), decided])
    world.wait(lambda: len(world.states()) == 2, "all are registered")
    world.wait(lambda: {state for state, _ in world.states().values()} == {"rejected"}, "all are answered")
    world.wait(lambda: caught_up(world), "all is written or has a letter")
    with world.connect() as connection:
        assert connection.scalars(select(decisions.c.event_id)).all() == [decided.id]
    (letter,) = world.read(DEAD_LETTERS)
    assert world.restarts() == {}
    assert b"ce_id has 12000 characters" in (dict(letter.headers)["dead_letter_error"] or b"")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("default_transaction_read_only", "on"), ("lock_timeout", "50ms")],
    ids=["read-only", "locked"],
)
def test_a_postgres_that_cannot_be_written_is_waited_for(world: World, setting: str, value: str) -> None:
    """A standby that was promoted too late, say, or a table that somebody has locked."""
    with world.engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {world.name} SET {setting} = '{value}'"))
    with world.connect() as blocking:
        if setting == "lock_timeout":
            blocking.execute(text("LOCK TABLE individuals IN ACCESS EXCLUSIVE MODE"))
        world.start("sink")
        world.publish([announce(IndividualCreated(**who("a", 1), photo=PHOTO), "test")])
        world.wait(lambda: any("Postgres does not answer" in str(line) for line in world.said()), "it waits")
    with world.engine.connect() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"))
        connection.execute(text(f"ALTER DATABASE {world.name} RESET {setting}"))
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {SINKS}"))
        connection.commit()
    world.wait(lambda: world.states() == {"a": ("registered", None)}, "it is written")
    assert world.restarts() == {}
