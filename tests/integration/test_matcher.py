"""The matcher on real servers: its state is the log's, whatever Redis, Faust and its own process do."""

from collections.abc import Callable

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray
from redis import Redis

from runtime.servers.kafka import consumer_config
from schemas.envelope import Message, announce, full_name
from schemas.events.base import Event
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.topics import DUPLICATES, ENCODINGS, MATCHER, partition_of
from streams.checkpoint.progress import Progress
from tests import oracle
from tests.encodings import computed
from tests.integration.world import World

Make = Callable[[], NDArray[np.float32]]
PARTITION = partition_of("c", ENCODINGS.partitions)


def messages(events: list[EncodingComputed | EncodingErased]) -> list[Message[Event]]:
    return [announce(event, "test") for event in events]


def people(make: Make, count: int, prefix: str = "p") -> list[EncodingComputed | EncodingErased]:
    """Individuals of whom every fifth is registered once more."""
    faces = [make() for _ in range(count)]
    return [computed(f"{prefix}{i}", faces[i - 1] if i % 5 == 4 else faces[i]) for i in range(count)]


def found(world: World) -> set[tuple[str, str, str]]:
    return {
        (event.collection, event.a.individual_id, event.b.individual_id)
        for event in world.events(DUPLICATES)
        if isinstance(event, DuplicateFound)
    }


def checked(world: World) -> set[tuple[str, int]]:
    events = world.events(DUPLICATES)
    return {(event.individual_id, event.revision) for event in events if isinstance(event, IndividualChecked)}


def expected_pairs(events: list[EncodingComputed | EncodingErased]) -> set[tuple[str, str, str]]:
    return oracle.ids(oracle.pairs(oracle.living(events).values(), 0.45))


def test_pairs_are_those_of_comparing_all_with_all(world: World, embedding: Make) -> None:
    events = people(embedding, 300)
    world.start("match")
    world.publish(messages(events))
    world.wait(lambda: len(checked(world)) == 300, "everyone checked")
    assert found(world) == expected_pairs(events)
    assert len(found(world)) == 60


def test_redis_empty_after_a_restart_is_restored_from_the_log(world: World, embedding: Make) -> None:
    first, second = people(embedding, 50), people(embedding, 10, "q")
    second.append(computed("again", first[7].embedding))  # type: ignore[union-attr]
    world.start("match")
    world.publish(messages(first))
    world.wait(lambda: len(checked(world)) == 50, "the first are checked")
    Redis.from_url(world.settings.redis).flushall()
    world.workers["match"].stop()  # those that are killed are in test_faults_matcher
    world.workers["match"].start()
    world.publish(messages(second))
    world.wait(lambda: len(checked(world)) == 61, "the second are checked too")
    assert found(world) == expected_pairs(first + second)


def test_what_the_stream_skips_is_read_from_the_log_and_matched(world: World, embedding: Make) -> None:
    """Faust may commit past records that nobody acknowledged (faust-streaming #606); here the whole log is skipped."""
    skipped, handed_over = people(embedding, 40), people(embedding, 10, "q")
    world.publish(messages(skipped))
    Progress(world.settings).advance(PARTITION, 5)
    group = Consumer(consumer_config(world.settings, MATCHER.name))
    place = TopicPartition(full_name(ENCODINGS.name, world.settings.namespace), PARTITION, 40)
    group.commit(offsets=[place], asynchronous=False)
    group.close()
    world.start("match")
    world.publish(messages(handed_over))
    world.wait(lambda: len(checked(world)) == 45, "all but the 5 that Redis says are matched")
    pairs_of_the_first = {pair for pair in expected_pairs(skipped) if {pair[1], pair[2]} <= {f"p{i}" for i in range(5)}}
    assert found(world) == expected_pairs(skipped + handed_over) - pairs_of_the_first


def test_a_matched_offset_of_another_log_is_not_believed(world: World, embedding: Make) -> None:
    events = people(embedding, 20)
    Progress(world.settings).advance(PARTITION, 1_000_000)
    world.publish(messages(events))
    world.start("match")
    world.wait(lambda: len(checked(world)) == 20, "everyone checked")
    assert found(world) == expected_pairs(events)


def test_the_matched_offset_only_grows(world: World) -> None:
    progress = Progress(world.settings)
    assert progress.matched(0) is None
    progress.advance(0, 7)
    progress.advance(0, 5)
    assert progress.matched(0) == 7
    assert progress.matched(1) is None


def test_the_matched_offset_is_stored_only_after_the_findings(world: World, embedding: Make) -> None:
    events = people(embedding, 30)
    world.start("match")
    world.publish(messages(events))
    progress = Progress(world.settings)
    world.wait(lambda: progress.matched(PARTITION) == 30, "all matched")
    assert len(checked(world)) == 30
    assert found(world) == expected_pairs(events)


def test_a_stale_record_ends_behind_the_right_one_and_the_erased_stay_erased(world: World, embedding: Make) -> None:
    face = embedding()
    world.start("match")
    world.publish(messages([computed("a", face, revision=2), computed("b", embedding(), revision=1)]))
    erased = EncodingErased(collection="c", individual_id="b", revision=3)
    world.publish(messages([erased, computed("a", embedding(), revision=1), computed("b", face, revision=2)]))
    world.publish(messages([computed("z", face)]))
    world.wait(lambda: ("z", 1) in checked(world), "z is checked")
    assert found(world) == {("c", "a", "z")}
    latest = {record.key: record for record in world.read(ENCODINGS)}
    assert latest[b"c/b"].value is None
    assert b'"revision":2' in (latest[b"c/a"].value or b"")
    # A matcher that comes later and sees only what Kafka's compaction would leave ends with the same.
    Redis.from_url(world.settings.redis).flushall()
    world.workers["match"].stop()
    world.workers["match"].start()
    world.publish(messages([computed("y", face)]))
    world.wait(lambda: ("y", 1) in checked(world), "y is checked")
    assert found(world) == {("c", "a", "z"), ("c", "a", "y"), ("c", "y", "z")}


def test_two_matchers_share_the_partitions_and_one_takes_over_from_the_other(world: World, embedding: Make) -> None:
    collections = ["c", "d", "e", "f", "g", "h"]
    events = [
        event.model_copy(update={"collection": collections[i % 6]})
        for i, event in enumerate(people(embedding, 120) + people(embedding, 120, "q"))
    ]
    twins = [
        computed(f"{event.individual_id}-twin", event.embedding, collection=event.collection)
        for event in events
        if isinstance(event, EncodingComputed)
    ]
    world.start("match")
    world.workers["match-2"] = world.stack.start_worker("match-2", "match", env=world.env)
    world.publish(messages(events))
    world.wait(lambda: len(checked(world)) >= 100, "100 checked")
    world.workers["match-2"].stop()
    world.publish(messages([*twins]))
    world.wait(lambda: len(checked(world)) == 480, "everyone checked")
    assert found(world) == expected_pairs([*events, *twins])
