"""The examples for those who produce events or use what is found, against the real broker."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # both are exported
from sqlalchemy import select

from deploy.status.workers import lags
from runtime.servers.kafka import client_config
from schemas.envelope import Message, Record, announce, decode, encode, full_name
from schemas.erased import ErasureKey
from schemas.events.base import Event, Member
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, IndividualChecked, RetractionReason
from schemas.events.registrations import IndividualCreated, Photo
from schemas.tables import duplicates
from schemas.topics import INDIVIDUALS, SINK, partition_of
from tests.integration.examples import CONSUMERS, Command, Examples, prepare, run_all, running
from tests.integration.world import ERASURE_KEY, World

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))
MOST = 2**63 - 1
PHOTO = "https://photos.example.org/a b.jpg?size=1&of=2"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """All examples, ready to run."""
    return prepare(tmp_path_factory.mktemp("examples"))


def said(event: Event, microseconds: int) -> Record:
    """What was said so long after noon."""
    return encode(announce(event, "test", NOON + timedelta(microseconds=microseconds)))


def pair(a: str, b: str, revisions: tuple[int, int], collection: str) -> dict[str, object]:
    one, other = (Member(individual_id=name, revision=at) for name, at in zip((a, b), revisions, strict=True))
    return {"collection": collection, "encoder": "e", "a": one, "b": other}


def found(
    a: str, b: str, revisions: tuple[int, int] = (1, 1), distance: float = 0.3, at: int = 0, collection: str = "c"
) -> Record:
    return said(DuplicateFound(**pair(a, b, revisions, collection), distance=distance, threshold=0.45), at)


def retracted(a: str, b: str, revisions: tuple[int, int] = (1, 1), at: int = 0) -> Record:
    return said(DuplicateRetracted(**pair(a, b, revisions, "c"), reason=RetractionReason.UPDATED), at)


def checked(name: str, revision: int, shard: int = 1, shards: int = 1) -> Record:
    who = {"collection": "c", "individual_id": name, "revision": revision}
    return said(IndividualChecked(**who, encoder="e", duplicates=7, shard=shard, shards=shards), 0)


def with_header(record: Record, name: str, value: str) -> Record:
    """The same record with another value in a header."""
    headers = tuple((one, value.encode() if one == name else old) for one, old in record.headers)
    return replace(record, headers=headers)


def elsewhere(record: Record) -> Record:
    """The same record, its time as a clock in another time zone shows it."""
    time = decode(record).time
    return with_header(record, "ce_time", time.astimezone(EAST).isoformat())


def of_a_type_to_come(record: Record) -> Record:
    """One under the same key, of a type that nobody knows yet."""
    return replace(with_header(record, "ce_type", "PairAdmired"), value=b'{"collection": "c"}')


def erased(record: Record) -> Record:
    """What is said under a record's key when someone whom it is about was erased: nothing."""
    return replace(with_header(record, "ce_type", "FindingErased"), value=None)


def story() -> list[Record]:
    """Ends with the pairs of HOLD."""
    return [
        found("a", "b", distance=0.123456789012345678),
        found("a", "b", distance=1e-7, collection="other"),
        # retracted, and said once more before that
        found("a", "c", at=1),
        retracted("a", "c", at=2),
        found("a", "c", at=1),
        # found again at higher revisions; what comes late was said of lower ones
        found("a", "d", (1, 1)),
        retracted("a", "d", (1, 1), at=1),
        found("a", "d", (1, 2), distance=0.2),
        retracted("a", "d", (1, 1), at=3),
        # retracted at a higher sum, though one of the revisions is lower
        found("a", "e", (1, 3), at=9),
        retracted("a", "e", (3, 2)),
        found("a", "e", (1, 3), at=9),
        # of equal sums the later, however the clock showed it: to the microsecond, and in any time zone
        found("a", "f", (2, 1), distance=0.4, at=2),
        elsewhere(found("a", "f", (1, 2), distance=0.1, at=1)),
        elsewhere(retracted("a", "g", at=1)),
        found("a", "g", at=2),
        found("a", "h", at=999_998),
        retracted("a", "h", at=999_999),
        elsewhere(found("a", "h", at=999_997)),
        retracted("a", "i", at=0),
        found("a", "i", at=1),
        # revisions that no float tells apart, and a sum that no 64 bits hold
        found("m", "n", (1, 1), distance=0.4),
        found("m", "n", (MOST, MOST), distance=0.2),
        retracted("m", "n", (MOST - 1, MOST), at=5),
        retracted("m", "o", (MOST - 1, MOST)),
        found("m", "o", (MOST - 2, MOST), at=5),
        # any text is an id
        found('"\\ \u00a0', "Åsa/李 🙂", distance=0.25),
        # of checks at no higher revision nothing follows for pairs
        checked("a", 1),
        checked("a", 1),
        *(checked("Åsa/李 🙂", 1, shard, 8) for shard in range(1, 9)),
        # nor of what is not known yet
        of_a_type_to_come(found("a", "b")),
        # who is erased is forgotten, however often what was said of them is said again
        found("a", "x"),
        checked("x", 1),
        erased(found("a", "x")),
        erased(checked("x", 1)),
        found("a", "x"),
        erased(found("a", "x")),
    ]


HOLD = {
    ("c", "a", "b", 0.123456789012345678),
    ("other", "a", "b", 1e-7),
    ("c", "a", "d", 0.2),
    ("c", "a", "f", 0.4),
    ("c", "a", "g", 0.3),
    ("c", "a", "i", 0.3),
    ("c", "m", "n", 0.2),
    ("c", '"\\ \u00a0', "Åsa/李 🙂", 0.25),
}

Row = tuple[str, str, str, str, float]


def rows_in_postgres(world: World) -> list[Row]:
    pairs = duplicates.c
    columns = (pairs.collection, pairs.pair_id, pairs.individual_a, pairs.individual_b, pairs.distance)
    with world.connect() as connection:
        return sorted(tuple(row) for row in connection.execute(select(*columns).where(pairs.retracted.is_(None))))


def rows_printed(output: str) -> list[Row]:
    rows = (line.split("\t") for line in output.splitlines())
    return [(collection, key, a, b, float(distance)) for collection, key, a, b, distance in rows]


def with_arguments(commands: dict[str, Command], world: World, *arguments: str) -> dict[str, Command]:
    return {name: [*command, world.settings.kafka, world.name, *arguments] for name, command in commands.items()}


def caught_up(world: World) -> bool:
    (lag,) = (lag for lag in lags(world.settings) if lag.group == SINK.name)
    return lag.records == 0


def test_each_consumer_ends_with_the_pairs_of_the_sink(world: World, examples: Examples) -> None:
    again = story()[:-6]  # all but of whom was erased: what is said of them again is always followed by that
    random.Random(7).shuffle(again)
    world.publish([announce(ErasureKey(ERASURE_KEY).erasure_of("c", "x", 1), "test")])
    world.start("sink")
    world.publish_records([*again, *story(), *again])
    done = run_all(with_arguments(examples.consumers, world, "--once"))
    world.wait(lambda: caught_up(world), "all written")
    for name, process in done.items():
        assert process.returncode == 0, f"{name}: {process.stderr}"
        printed = rows_printed(process.stdout)
        assert printed == sorted(printed), name
        assert {(collection, a, b, distance) for collection, _, a, b, distance in printed} == HOLD, name
        assert printed == rows_in_postgres(world), f"{name}, and the sink"


def test_each_consumer_begins_with_nothing_and_says_what_comes(
    world: World, examples: Examples, tmp_path: Path
) -> None:
    with running(with_arguments(examples.consumers, world), tmp_path) as outputs:

        def all_say(word: str) -> bool:
            return all(word in output.read_text(encoding="utf-8") for output in outputs.values())

        done = run_all(with_arguments(examples.consumers, world, "--once"))
        assert {(process.returncode, process.stdout) for process in done.values()} == {(0, "")}, done
        for record, kind in (
            (found("a", "b"), "DuplicateFound"),
            (retracted("a", "b"), "DuplicateRetracted"),
            (checked("a", 1), "IndividualChecked"),
            (erased(found("a", "b")), "FindingErased"),
        ):
            world.publish_records([record])
            world.wait(lambda kind=kind: all_say(kind), f"each says {kind}")  # type: ignore[misc]


@pytest.mark.parametrize("who", ["A-1001", "Åsa 李"])
def test_each_producer_registers_individuals_as_facematch_does(world: World, examples: Examples, who: str) -> None:
    """Of both, murmur2 without its sign, with it, and CRC-32 name three different partitions."""
    revisions = dict(zip(examples.producers, (1, MOST - 1, MOST), strict=True))
    began = datetime.now(UTC) - timedelta(seconds=1)
    done = run_all(
        {
            name: [*command, world.settings.kafka, world.name, "camp-a", who, str(revisions[name]), PHOTO]
            for name, command in examples.producers.items()
        }
    )
    assert {name: process.returncode for name, process in done.items()} == dict.fromkeys(revisions, 0), done
    expected = {
        revision: IndividualCreated(collection="camp-a", individual_id=who, revision=revision, photo=Photo(uri=PHOTO))
        for revision in (*revisions.values(), 7)
    }
    world.publish([announce(expected[7], "test")])
    records = world.read(INDIVIDUALS)
    messages: list[Message[IndividualCreated]] = [decode(record) for record in records]  # type: ignore[misc]
    assert {message.event.revision: message.event for message in messages} == expected
    assert len({message.id for message in messages}) == len(messages) == 4
    assert {message.source for message in messages} == {"registration/camp-a", "test"}
    assert all(began < message.time < datetime.now(UTC) for message in messages)
    assert len({record.partition for record in records}) == 1
    assert records[0].partition != partition_of(f"camp-a/{who}", INDIVIDUALS.partitions), "else it proves nothing"


def test_a_producer_fails_where_the_broker_does_not_take_the_event(world: World, examples: Examples) -> None:
    small = replace(INDIVIDUALS, extra_config={"max.message.bytes": "1"})
    name = full_name(small.name, f"{world.name}-small")
    admin = AdminClient(client_config(world.settings, "test"))
    admin.create_topics([NewTopic(name, 1, 1, config=small.config)])[name].result()
    done = run_all(
        {
            language: [*command, world.settings.kafka, f"{world.name}-small", "camp-a", "A-1001", "1", PHOTO]
            for language, command in examples.producers.items()
        }
    )
    assert all(process.returncode != 0 and "large" in process.stderr.lower() for process in done.values()), done


@pytest.mark.parametrize("name", ["duplicates.py", "Duplicates.java", "duplicates.mjs"])
def test_a_consumer_takes_at_most_40_lines(name: str) -> None:
    assert len((CONSUMERS / name).read_text().splitlines()) <= 40


def test_the_lock_file_of_npm_names_no_registry() -> None:
    assert '"resolved"' not in (CONSUMERS / "package-lock.json").read_text()
