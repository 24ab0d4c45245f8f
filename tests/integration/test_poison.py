"""Records that ended a worker for good, on real servers: each is answered, and what stands behind it goes on."""

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest
from confluent_kafka import Producer
from numpy.typing import NDArray

from runtime.servers.log import TopicLog
from schemas.envelope import UNREADABLE, UNREADABLE_NAMES, Record, announce, encode, full_name
from schemas.events.base import Detector, Event
from schemas.events.pairs import PairDecided
from schemas.events.registrations import IndividualCreated, Photo
from schemas.letters import Letter, read_letter
from schemas.topics import (
    DEAD_LETTERS,
    DECISIONS,
    ENCODINGS,
    ESCALATIONS,
    INDIVIDUALS,
    Topic,
    partition_of,
)
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.world import World
from tests.raw_kafka import send_raw

Make = Callable[[], NDArray[np.float32]]
PARTITION = partition_of("c", ENCODINGS.partitions)
BLANKS = 300_000_000


def registration(who: str, detector: Detector | None = None, **attributes: str) -> Record:
    """A registration whose photo nobody finds: what the pool answers to it is a rejection."""
    photo = Photo(uri="file:///nowhere/a.jpg")
    event = IndividualCreated(
        collection="c", individual_id=who, revision=1, photo=photo, detector=detector, attributes=attributes
    )
    return encode(announce(event, "test"))


def decision(who: str) -> Record:
    return encode(
        announce(PairDecided(collection="c", encoder="e", a=who, b="zz", verdict="same", by="r", note=""), "test")
    )


def send(world: World, topic: Topic[Event], key: bytes, value: bytes, headers: object = (), codec: str = "none") -> int:
    """Publish one record to PARTITION, as large as the broker takes it. Returns its offset."""
    offsets: list[int] = []
    producer = Producer(
        {
            "bootstrap.servers": world.settings.kafka,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "batch.size": 2_000_000_000,
            "compression.type": codec,
        }
    )
    name = full_name(topic.name, world.settings.namespace)

    def delivered(error: object, message: object) -> None:
        assert error is None, error
        offsets.append(message.offset())  # type: ignore[attr-defined]

    producer.produce(name, value, key, PARTITION, delivered, headers=list(headers))  # type: ignore[call-overload]
    producer.flush(60)
    return offsets[0]


def letters(world: World) -> dict[str, Letter]:
    read = map(read_letter, world.read(DEAD_LETTERS))
    return {one.name: one for one in read if isinstance(one, Letter)}


def test_whatever_cannot_be_read_becomes_a_letter_and_no_worker_ends(make_world: MakeWorld, embedding: Make) -> None:
    world = make_world()
    world.start("encode-cpu", "match", "sink")
    odd_header = ((b"\xff\xfe", b"1"), (b"ce_id", b"2"))
    expected: dict[str, tuple[str, bytes | None]] = {}
    for topic in (INDIVIDUALS, DECISIONS, ENCODINGS):
        name = full_name(topic.name, world.settings.namespace)
        at = send_raw(world.settings.kafka, name, PARTITION, b"c/odd", b"{}", odd_header)
        expected[f"{topic.name}/{PARTITION}/{at}"] = ("the name of a header is not UTF-8", b"{}")
        at = send(world, topic, b"k", b" " * BLANKS, codec="zstd")
        expected[f"{topic.name}/{PARTITION}/{at}"] = ("cannot be unpacked", None)
        just_taken = b"x" * 1_048_400  # as much as a broker takes by default
        at = send(world, topic, b"k", just_taken)
        expected[f"{topic.name}/{PARTITION}/{at}"] = ("no CloudEvents envelope", just_taken)
        many_bytes = b"y" * 20_000_000
        at = send(world, topic, b"k", many_bytes, codec="zstd")
        expected[f"{topic.name}/{PARTITION}/{at}"] = (hashlib.sha256(many_bytes).hexdigest(), None)
        at = send(world, topic, b"k", b"{}", [("ce_type", b"t" * 550_000)])
        expected[f"{topic.name}/{PARTITION}/{at}"] = ("missing", b"{}")
    world.publish_records([registration("behind"), decision("behind")])
    world.publish([announce(computed("behind too", embedding()), "test")])
    world.wait(lambda: world.count("rejected", "checked") == 2, "what stands behind them is answered", 120)
    world.wait(lambda: letters(world).keys() >= expected.keys(), f"letters of {sorted(expected)}", 60)
    world.wait(world.settled, "all is committed", 60)
    found = letters(world)
    for place, (error, value) in expected.items():
        assert error in found[place].error, place
        assert (found[place].record.value or None) == value, place
    assert world.restarts() == {}, [line for line in world.said() if line["level"] in ("error", "critical")]


def test_a_valid_registration_as_large_as_a_broker_takes_it_is_escalated(make_world: MakeWorld) -> None:
    world = make_world()
    world.start("encode-cpu", "sink")
    bare = len(registration("large", Detector.CNN, history="").value or b"")
    large = registration("large", Detector.CNN, history="n" * (1_048_000 - bare))
    send(world, INDIVIDUALS, large.key or b"", large.value or b"", large.headers)
    packed = registration("packed", Detector.CNN, history="lorem " * 500_000)
    send(world, INDIVIDUALS, packed.key or b"", packed.value or b"", packed.headers, codec="zstd")
    world.publish_records([registration("behind")])
    world.wait(lambda: world.count("rejected") == 1, "what stands behind them is answered", 60)
    assert {record.value for record in world.read(ESCALATIONS)} == {large.value, packed.value}
    assert letters(world) == {}
    assert world.restarts() == {}


@pytest.mark.parametrize("records", [1, 7])
def test_a_log_is_read_past_a_batch_that_cannot_be_unpacked(world: World, records: int) -> None:
    name = full_name(DECISIONS.name, world.settings.namespace)
    producer = Producer(
        {
            "bootstrap.servers": world.settings.kafka,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "batch.size": 2_000_000_000,
            "linger.ms": 3000,
            "compression.type": "zstd",
        }
    )
    for _ in range(records):
        producer.produce(name, b" " * (BLANKS // records), b"k", PARTITION)
    producer.flush(60)
    world.publish_records([decision("behind")])
    with TopicLog(world.settings, DECISIONS, "test") as log:
        read = [record for batch in log.read({PARTITION: log.span(PARTITION)}) for record in batch]
        again = [record for batch in log.read({PARTITION: log.span(PARTITION)}) for record in batch]
    assert [record.offset for record in read] == list(range(records + 1))
    assert json.loads(read[-1].value or b"")["a"] == "behind"
    assert read == again


def test_headers_whose_names_are_not_utf_8_are_read_however_many_there_are(world: World) -> None:
    """Python specializes a call that it has seen a few times, and then no longer checks what the client returns."""
    name = full_name(DECISIONS.name, world.settings.namespace)
    for _ in range(200):
        send_raw(world.settings.kafka, name, PARTITION, b"k", b"{}", [(b"\xff\xfe", b"1")])
    with TopicLog(world.settings, DECISIONS, "test") as log:
        read = [record for batch in log.read({PARTITION: log.span(PARTITION)}) for record in batch]
    assert [record.headers for record in read] == [((UNREADABLE, UNREADABLE_NAMES),)] * 200
