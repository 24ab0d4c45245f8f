"""A matcher that is stopped for so long that its partitions go to another says nothing outdated when it goes on."""

import signal
import threading

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from runtime.servers.kafka import client_config
from schemas.envelope import decode, full_name
from schemas.events.base import individual_key
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.topics import DUPLICATES, ENCODINGS, MATCHER
from tests import oracle
from tests.encodings import EncodingEvent, crowd, twins
from tests.integration.conftest import MakeWorld
from tests.integration.faults import COLLECTIONS, begin, publish, published
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World


def stop_for(make_world: MakeWorld, seconds: float, events: int) -> World:
    """Stop a matcher in the middle; everyone is updated or erased by another meanwhile; let it go on."""
    world = begin(make_world, events, collections=6)
    world.wait(lambda: published(world) > events // 3, "a third is matched")
    stopped = world.workers["match"]
    stopped.signal(signal.SIGSTOP)
    try:
        world.start("match-2")
        publish(world, changes(crowd(events, 1, COLLECTIONS)))
        threading.Event().wait(seconds)  # how long it is stopped
        world.wait(world.settled, "the other matcher has done all that there is", limit_s=120)
        before = oracle.latest(encodings(world))
        ends = world.ends(DUPLICATES)
    finally:
        stopped.signal(signal.SIGCONT)
    world.wait(lambda: members(world) == 2, "both matchers have partitions again")
    publish(world, twins(encodings(world)[::5], "twin-"))
    world.wait(world.settled, "everyone is checked", limit_s=120)
    outdated = [
        (side, before[key].revision)
        for side in said_since(world, ends)
        if (key := individual_key(*side[:2])) in before
        and (side[2] < before[key].revision or isinstance(before[key], EncodingErased))
    ]
    assert outdated == [], f"{len(outdated)} (side, revision that was the latest long before)"
    assert_as_the_oracle(world)
    return world


def changes(events: list[EncodingEvent]) -> list[EncodingEvent]:
    """Everyone once more under a higher revision: every third is erased, the others have a face of their own."""
    latest = oracle.latest(events)
    faces = (event for event in crowd(2 * len(events), 9) if isinstance(event, EncodingComputed))
    changed: list[EncodingEvent] = []
    for number, (event, face) in enumerate(zip(latest.values(), faces, strict=False)):
        who = {"individual_id": event.individual_id, "collection": event.collection, "revision": event.revision + 1}
        changed.append(EncodingErased(**who) if number % 3 == 0 else face.model_copy(update=who))
    return changed


def encodings(world: World) -> list[EncodingEvent]:
    return [event for event in world.events(ENCODINGS) if isinstance(event, EncodingComputed | EncodingErased)]


def said_since(world: World, ends: dict[int, int]) -> list[tuple[str, str, int]]:
    """(collection, individual, revision) of every finding and every check on `duplicates` from those offsets on."""
    said: list[tuple[str, str, int]] = []
    for record in world.read(DUPLICATES):
        event = decode(record).event
        if record.offset < ends[record.partition]:
            continue
        if isinstance(event, DuplicateFound):
            said += oracle.pair_of(event).sides
        elif isinstance(event, IndividualChecked):
            said.append((event.collection, event.individual_id, event.revision))
    return said


def members(world: World) -> int:
    """How many matchers the group has, once they have agreed on who has which partitions."""
    group = full_name(MATCHER.name, world.settings.namespace)
    admin = AdminClient(client_config(world.settings, "test"))
    try:
        description = admin.describe_consumer_groups([group], request_timeout=5)[group].result()
    except KafkaException:
        return 0
    return len(description.members) if description.state == ConsumerGroupState.STABLE else 0


@pytest.mark.faults
def test_a_matcher_stopped_for_12_seconds_publishes_nothing_outdated(make_world: MakeWorld) -> None:
    stop_for(make_world, 12, 2_000)


@pytest.mark.faults
def test_a_matcher_stopped_for_two_minutes_publishes_nothing_outdated(make_world: MakeWorld) -> None:
    world = stop_for(make_world, 120, 12_000)
    for name in ("match", "match-2"):  # what they have stored must not be outdated either
        world.workers[name].stop()
    world.start("match")
    publish(world, twins(encodings(world)[::3], "again-"))
    assert_as_the_oracle(world)
