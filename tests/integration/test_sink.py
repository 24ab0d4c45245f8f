"""The sink: the same rows in any order, however often, and nothing committed that was not written."""

import random
from datetime import UTC, datetime

import numpy as np
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from confluent_kafka import Consumer, TopicPartition

from deploy.queries import lags
from schemas.envelope import Message, announce, full_name
from schemas.events import (
    DuplicateFound,
    DuplicateRetracted,
    EncodingComputed,
    EncodingRejected,
    Event,
    IndividualChecked,
    IndividualCreated,
    IndividualDeleted,
    IndividualUpdated,
    Member,
    Photo,
    RejectionReason,
    RetractionReason,
)
from schemas.flow import is_behind
from schemas.kafka import consumer_config
from schemas.tables import metadata
from schemas.topics import REJECTIONS, SINK
from tests import model
from tests.integration.conftest import MakeWorld
from tests.integration.world import World

PHOTO = Photo(uri="file:///nowhere/a.jpg")
EMBEDDING = np.zeros(128, dtype=np.float32)


def who(name: str, revision: int) -> dict[str, object]:
    return {"collection": "c", "individual_id": name, "revision": revision}


def encoded(name: str, revision: int) -> EncodingComputed:
    return model.computed(name, EMBEDDING, revision)


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
        DuplicateRetracted(**pair(("a", 1), ("b", 3)), reason=RetractionReason.UPDATED),
        DuplicateFound(**pair(("a", 1), ("z", 9)), distance=0.1, threshold=0.45),
        IndividualCreated(**who("gone", 1), photo=PHOTO),
        IndividualDeleted(**who("gone", 2)),
    ]
    times = (datetime(2026, 1, 31, 9, 0, second, tzinfo=UTC) for second in range(60))
    return [announce(event, "test", time) for event, time in zip(events, times, strict=False)]


def caught_up(world: World) -> bool:
    (lag,) = (lag for lag in lags(world.settings) if lag.group == SINK.name)
    return lag.records == 0


def test_rows_do_not_depend_on_the_order_or_number_of_events(make_world: MakeWorld) -> None:
    in_order = make_world()
    in_order.start("sink")
    in_order.publish(story())
    in_order.wait(lambda: caught_up(in_order), "all written")
    expected = in_order.tables()
    assert in_order.pairs() == {("a", "z")}
    assert in_order.states() == {
        "a": ("checked", None),
        "b": ("registered", None),
        "gone": ("erased", None),
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
    from sqlalchemy import select

    from schemas.tables import individual_duplicates

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


def test_migrations_make_the_tables_that_the_code_describes(world: World) -> None:
    with world.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
