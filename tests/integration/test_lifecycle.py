"""Registrations change: updated, moved, reviewed, erased; and what was decided or erased stays so."""

import base64
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from redis import Redis
from sqlalchemy import select

from consumers.views.pairs import CurrentPair, PairSelection, current_pairs
from deploy.erasure.erase import ErasureRun
from deploy.erasure.file import Leaving
from deploy.erasure.topics import Person, PlaceContent
from schemas.envelope import Message, StoredRecord, announce
from schemas.erased import ErasureKey
from schemas.events.base import Event
from schemas.events.encodings import EncodingComputed
from schemas.events.pairs import DuplicateFound, PairDecided
from schemas.events.registrations import IndividualCreated, IndividualDeleted, IndividualUpdated, Photo
from schemas.tables import decisions, erased, individual_duplicates, metadata, pair_verdicts
from schemas.topics import DECISIONS, DEPLOYMENT, DUPLICATES, ENCODINGS, INDIVIDUALS, TOPICS, Topic
from tests.conftest import Make
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.judge import assert_as_the_oracle
from tests.integration.test_compaction import compacted
from tests.integration.world import ERASURE_KEY, World
from tests.records import again

NAME = "somebody-whose-name-is-found-nowhere-else"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = ErasureKey(ERASURE_KEY)


def inline(photo: Path) -> Photo:
    return Photo(inline=base64.b64encode(photo.read_bytes()).decode())


def created(who: str, photo: Photo, revision: int = 1, collection: str = "c") -> IndividualCreated:
    return IndividualCreated(collection=collection, individual_id=who, revision=revision, photo=photo)


def run(world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | world.stack.environment | world.env | {"COLUMNS": "160"}
    command = [sys.executable, "-m", "deploy.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def everything(world: World) -> list[tuple[str, bytes]]:
    """All bytes that there are, and in which place: records by topic, rows by table, values in Redis."""
    found = []
    for topic in TOPICS:
        for record in world.read(topic):
            headers = (value or b"" for _, value in record.headers)
            found += [(f"topic {topic.name}", text) for text in (record.key or b"", record.value or b"", *headers)]
    with world.connect() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(select(table))
            found += [(f"table {table.name}", str(tuple(row)).encode()) for row in rows]
    return found + [("Redis", text) for text in in_redis(world)]


def in_redis(world: World) -> list[bytes]:
    """The names and the values."""
    redis = Redis.from_url(world.settings.redis)
    names = list(redis.scan_iter(match=f"{world.name}:*", _type="string"))
    return names + [value for value in redis.mget(names) if isinstance(value, bytes)]


def places_of(needle: bytes, texts: list[tuple[str, bytes]]) -> set[str]:
    return {place for place, text in texts if needle in text}


def named(places: list[PlaceContent]) -> set[str]:
    return {place.name for place in places if place.there}


def last_of(world: World, topic: Topic[Event]) -> dict[bytes | None, bytes | None]:
    """What Kafka's compaction will keep."""
    return {record.key: record.value for record in world.read(topic)}


def test_nothing_of_an_erased_person_is_anywhere_but_where_the_receipt_says(
    make_world: MakeWorld, photos: Path
) -> None:
    """Erased by the command; then everything that was ever said of them is said again."""
    world = make_world(delta_limit=100)
    world.start("encode-cpu", "match", "sink")
    photo = photos / "obama.jpg"
    people = [created(NAME, inline(photo)), created("other", inline(photos / "obama2.jpg"))]
    world.publish([announce(event, "test") for event in people])
    world.wait(lambda: world.pairs() == {("other", NAME)}, "the pair is found")
    (pair,) = pairs_of(world)
    assert run(world, "decide", pair.pair_id, "same", "--by", "reviewer-1").returncode == 0
    world.wait(lambda: bool(verdicts(world)), "it is decided")
    compacted(world, "--collection", "c")
    (vector,) = (
        e.embedding for e in world.events(ENCODINGS) if isinstance(e, EncodingComputed) and e.individual_id == NAME
    )
    before = [record for topic in (INDIVIDUALS, ENCODINGS, DUPLICATES, DECISIONS) for record in world.read(topic)]
    world.wait(lambda: is_in_redis(world, vector), "it is in the checkpoint")

    done = run(world, "erase", NAME, "--collection", "c")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "revisions up to 2" in done.stdout
    assert "2 records, 1 inline photo" in done.stdout

    def assert_gone() -> None:
        (receipt,) = ErasureRun(world.settings, [Leaving(Person("c", NAME))], lambda _: None).again()
        places = named(receipt.now)
        texts = everything(world)
        assert places_of(NAME.encode(), texts) <= places
        assert places_of(photo_text(photo), texts) <= places & {"topic individuals"}
        assert places_of(base64.b64encode(vector.tobytes()), texts) <= places & {"topic encodings"}
        assert places_of(vector.tobytes(), texts) <= places & {"Redis"}
        assert not {place for place in places if place.startswith("table")}
        for topic in (ENCODINGS, DUPLICATES, DECISIONS):
            kept = last_of(world, topic)
            assert not {key for key, value in kept.items() if value and NAME.encode() in (key or b"") + value}

    assert_gone()
    assert world.states() == {"other": ("checked", None)}
    world.publish_records([again(record, record.partition) for record in before if NAME.encode() in whole(record)])
    world.wait(world.settled, "all of it was said again")
    assert_gone()
    compacted(world, "--collection", "c")
    world.wait(lambda: not is_in_redis(world, vector), "the next index and checkpoint are without them")
    assert_gone()
    assert "revisions up to 2" in run(world, "erased", NAME, "--collection", "c").stdout
    assert run(world, "erased", "other", "--collection", "c").returncode == 1
    assert not [line for line in world.lines.since(0) if base64.b64encode(vector.tobytes())[:40].decode() in line]
    world.publish([announce(created(NAME, inline(photo), revision=3), "test")])
    world.wait(lambda: world.states().get(NAME) == ("checked", None), "a new registration is welcome")
    assert world.pairs() == {("other", NAME)}


def is_in_redis(world: World, vector: NDArray[np.float32]) -> bool:
    return any(vector.tobytes() in text for text in in_redis(world))


def whole(record: StoredRecord) -> bytes:
    return (record.key or b"") + (record.value or b"")


def photo_text(photo: Path) -> bytes:
    """As much of it as is in no other photo, as events have it."""
    return base64.b64encode(photo.read_bytes())[1000:1400]


def pairs_of(world: World) -> list[CurrentPair]:
    with world.connect() as connection:
        return current_pairs(connection)


def verdicts(world: World) -> dict[tuple[str, str], tuple[str, str]]:
    """By pair of people what counts, and who decided it."""
    view = pair_verdicts.c
    with world.connect() as connection:
        rows = connection.execute(select(view.individual_a, view.individual_b, view.verdict, view.decided_by))
        return {(a, b): (verdict, by) for a, b, verdict, by in rows}


def test_an_erasure_that_kafka_has_forgotten_still_holds(world: World, photos: Path, embedding: Make) -> None:
    """No tombstone, an empty Redis, an empty Postgres: the registry alone knows."""
    face = embedding()
    world.publish([announce(KEY.erasure_of("c", NAME, 3), "test", NOON)])
    said: list[Event] = [
        created(NAME, inline(photos / "obama.jpg")),
        IndividualUpdated(collection="c", individual_id=NAME, revision=3, photo=inline(photos / "obama.jpg")),
        computed("other", face),
        computed(NAME, face, revision=2),
        PairDecided(collection="c", encoder="test", a="other", b=NAME, verdict="same", by="x"),
    ]
    world.publish([announce(event, "test", NOON - timedelta(hours=1)) for event in said])
    world.start("encode-cpu", "match", "sink")
    world.wait(world.settled, "all is processed")
    assert last_of(world, ENCODINGS)[f"c/{NAME}".encode()] is None
    assert [event.individual_id for event in world.events(ENCODINGS) if isinstance(event, EncodingComputed)] == [
        "other",
        NAME,
    ], "nothing was encoded again"
    assert world.states() == {"other": ("checked", None)}
    assert world.pairs() == set()
    compacted(world, "--collection", "c")
    world.wait(world.settled, "the certificate is in the tables")
    assert [event for event in world.events(DUPLICATES) if isinstance(event, DuplicateFound)] == []
    assert verdicts(world) == {}
    with world.connect() as connection:
        assert connection.execute(select(erased.c.digest, erased.c.revision)).all() == [(KEY.digest("c", NAME), 3)]
    assert not any(place.startswith("table") for place in places_of(NAME.encode(), everything(world)))


def test_who_moves_leaves_nothing_behind_and_an_update_counts_at_once(world: World, photos: Path) -> None:
    world.start("encode-cpu", "match", "sink")
    obama, again, biden = (inline(photos / name) for name in ("obama.jpg", "obama2.jpg", "biden.jpg"))
    people = [created("a", obama), created("b", again), created("x", again, collection="d")]
    world.publish([announce(event, "test") for event in people])
    world.wait(lambda: world.pairs() == {("a", "b")} and world.count("checked") == 3, "the pair is found")

    def update(revision: int, photo: Photo, collection: str = "c", moved_from: str | None = None) -> None:
        event = IndividualUpdated(
            collection=collection, individual_id="a", revision=revision, photo=photo, moved_from=moved_from
        )
        world.publish([announce(event, "test")])

    update(2, biden)
    world.wait(lambda: world.pairs() == set(), "another face: the pair is retracted at once")
    update(3, obama)
    world.wait(lambda: world.pairs() == {("a", "b")}, "the pair is found again")
    update(4, obama, collection="d", moved_from="c")
    world.wait(lambda: world.pairs() == {("a", "x")}, "found where they are now, and not where they were")
    view = individual_duplicates.c
    with world.connect() as connection:
        rows = connection.execute(select(view.collection, view.individual_id, view.duplicates)).all()
    assert sorted(map(tuple, rows)) == [("c", "b", []), ("d", "a", ["x"]), ("d", "x", ["a"])]
    world.publish([announce(created("a", obama), "test")])  # a replay of how it began
    world.wait(world.settled, "all is processed")
    assert world.pairs() == {("a", "x")}


def test_a_decision_holds_in_any_order_through_replays_updates_and_for_every_encoder(
    world: World, embedding: Make
) -> None:
    """Contradicting ones: the later counts, and both are kept."""
    face = embedding()

    def decided(verdict: str, by: str, hour: float, encoder: str = "test") -> Message[Event]:
        event = PairDecided.model_validate(
            {"collection": "c", "encoder": encoder, "a": "a", "b": "b", "verdict": verdict, "by": by}
        )
        return announce(event, "test", NOON + timedelta(hours=hour))

    before = [decided("different", "early", 1), decided("same", "earliest", 0)]
    world.publish(before)  # of a pair that nobody has found
    world.start("match", "sink")
    world.wait(lambda: verdicts(world) == {("a", "b"): ("different", "early")}, "it is kept, the later one counts")
    world.publish([announce(computed(who, face), "test") for who in "ab"])
    world.wait(lambda: world.pairs() == {("a", "b")}, "the pair is found")
    view = individual_duplicates.c

    def shown() -> dict[str, tuple[list[str], list[str]]]:
        with world.connect() as connection:
            rows = connection.execute(select(view.individual_id, view.duplicates, view.confirmed))
            return {who: (candidates, confirmed) for who, candidates, confirmed in rows}

    assert pairs_of(world) == [], "it is not shown as new"
    assert shown() == {"a": ([], []), "b": ([], [])}
    world.publish([decided("same", "late", 2), *before])
    world.wait(lambda: verdicts(world) == {("a", "b"): ("same", "late")}, "the later one counts")
    assert shown() == {"a": (["b"], ["b"]), "b": (["a"], ["a"])}
    changed = [computed("a", embedding(), revision=2), computed("a", face, revision=3)]
    other = [computed(who, face, revision=4, encoder="other") for who in "ab"]
    world.publish([announce(event, "test") for event in changed + other])
    world.wait(world.settled, "updated, found again, and by another encoder")
    assert world.pairs() == {("a", "b")}
    assert pairs_of(world) == [], "it is found again silently"
    assert shown() == {"a": (["b"], ["b"]), "b": (["a"], ["a"])}
    with world.connect() as connection:
        assert len(connection.execute(select(decisions)).all()) == 3
        (pair,) = current_pairs(connection, PairSelection(decided=True))
    assert (pair.verdict, pair.decided_by) == ("same", "late")
    assert_as_the_oracle(world)


def test_what_was_decided_when_an_erasure_arrives_goes_whatever_a_clock_said(world: World, embedding: Make) -> None:
    """The erasure comes from a tablet that was offline; one decision is of a clock that is years ahead."""
    face = embedding()
    world.publish([announce(computed(who, face), "test") for who in ("a", NAME)])
    decided = PairDecided(collection="c", encoder="test", a="a", b=NAME, verdict="same", by="x", note="a sister")
    world.publish([announce(decided, "test"), announce(decided, "test", datetime(2099, 1, 1, tzinfo=UTC))])
    world.start("encode-cpu", "match", "sink")
    world.wait(lambda: world.pairs() == {("a", NAME)}, "the pair is found")
    world.wait(lambda: len(notes(world)) == 2, "both decisions are kept")
    deleted = IndividualDeleted(collection="c", individual_id=NAME, revision=2)
    world.publish([announce(deleted, "tablet", datetime.now(UTC) - timedelta(hours=1))])
    world.wait(lambda: notes(world) == [], "the decisions are gone")
    world.wait(world.settled, "null values are written")
    assert set(last_of(world, DECISIONS).values()) == {None}
    assert verdicts(world) == {}


def test_many_people_of_a_file_are_erased_in_one_pass(world: World, embedding: Make, tmp_path: Path) -> None:
    """Each has a receipt. Nobody is erased while a line is wrong. No date is promised where no null value stands."""
    face = embedding()
    people = [computed(who, face) for who in ("a", "b", "b, too")]
    world.publish([announce(event, "test") for event in (*people, computed("b", face, collection="d"))])
    world.start("encode-cpu", "match", "sink")
    world.wait(lambda: len(world.pairs()) == 3 and world.count("checked") == 4, "all are compared")
    ends = world.ends(INDIVIDUALS)
    file = tmp_path / "people.csv"
    for lines, problem in (
        ("c/b\nnonsense\nc,b,0\n", ("line 2", "line 3")),
        ("c/b\nc/never seen\n", ("line 2: nobody is known as c/never seen",)),
    ):
        file.write_text(lines)
        done = run(world, "erase", "--file", str(file))
        assert done.returncode == 2
        assert all(one in " ".join(done.stderr.replace("│", " ").split()) for one in problem), done.stderr
    assert world.ends(INDIVIDUALS) == ends
    file.write_text('c/b\nc,"b, too",5\nd/b\n')
    done = run(world, "erase", "--file", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    for receipt in ("c/b: erased at", "c/b, too: erased at", "revisions up to 5", "d/b: erased at"):
        assert receipt in done.stdout
    assert world.states() == {"a": ("checked", None)}
    assert "table" not in done.stdout.rpartition("d/b: erased at")[2].partition("before")[0]
    decided = PairDecided(collection="c", encoder="test", a="a", b="b", verdict="same", by="x")
    world.publish([announce(decided, "test")])
    world.wait(world.settled, "a reviewer said it afterwards")
    shown = run(world, "erased", "b", "--collection", "c").stdout
    assert "never: no null value stands behind 1 key" in shown, shown


def notes(world: World) -> list[str]:
    with world.connect() as connection:
        return list(connection.scalars(select(decisions.c.note)))


def test_what_cannot_be_decided_or_erased_is_said(world: World) -> None:
    for arguments, problem in (
        (("decide", "nonsense", "same", "--by", "x"), "a pair's id is a UUID"),
        (("decide", "5ba1b2c8-3a3c-5c0e-9d5e-0f5b6c1d7a10", "same", "--by", "x"), "no pair"),
        (("erase", "nobody", "--collection", "c"), "say up to which revision"),
    ):
        done = run(world, *arguments)
        assert done.returncode == 2
        assert problem in " ".join(done.stderr.replace("│", " ").split()), done.stderr
    world.env["FACEMATCH_ERASURE_KEY"] = "short"
    done = run(world, "erase", "nobody", "--revision", "1")
    assert done.returncode == 2
    assert "openssl rand" in done.stderr
    assert not [topic for topic in TOPICS if topic is not DEPLOYMENT and world.read(topic)]
