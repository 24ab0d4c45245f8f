"""Each row of the table of bad input, on real servers: a reason for every one, and the workers live on."""

import base64
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from runtime.photo_roots import allow
from schemas.envelope import Message, Record, announce, encode
from schemas.events.base import Event
from schemas.events.registrations import IndividualCreated, IndividualUpdated, Photo
from schemas.tables import duplicates
from schemas.topics import (
    DEAD_LETTERS,
    DUPLICATES,
    ENCODINGS,
    INDIVIDUALS,
    REJECTIONS,
    Cleanup,
    partition_of,
    topic_named,
)
from tests.conftest import Make
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.test_lifecycle import run
from tests.integration.world import World
from tests.unit.test_photos import _png_claiming, file_of


@pytest.fixture
def deaf_store() -> Iterator[str]:
    """An address where connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def two_faces(photos: Path) -> bytes:
    left, right = (Image.open(photos / name).convert("RGB") for name in ("obama.jpg", "biden.jpg"))
    left, right = left.crop((300, 90, 670, 460)), right.crop((380, 200, 780, 600)).resize((370, 370))
    both = Image.new("RGB", (740, 370))
    both.paste(left, (0, 0))
    both.paste(right, (370, 0))
    return file_of(both, "JPEG")


def no_face() -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    return file_of(Image.fromarray(noise))


def test_every_bad_photo_is_rejected_with_its_reason(
    make_world: MakeWorld, photos: Path, tmp_path: Path, deaf_store: str
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    good = (photos / "obama2.jpg").read_bytes()
    files = {
        "text": (b"this is no photo", "photo_unreadable"),
        "truncated": (good[: len(good) // 2], "photo_unreadable"),
        "empty": (b"", "photo_unreadable"),
        "0x0": (_png_claiming(0, 0), "photo_unreadable"),
        "bomb": (_png_claiming(50_000, 50_000), "photo_too_large"),
        "many-pixels": (_png_claiming(3000, 3000), "photo_too_large"),
        "many-bytes": (good + bytes(2_000_000), "photo_too_large"),
        "no-face": (no_face(), "no_face"),
        "several": (two_faces(photos), "several_faces"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "elsewhere.jpg").write_bytes(good)
    world = make_world(
        photo_attempts=2,
        photo_timeout_s=0.5,
        photo_private_networks=["127.0.0.1/32"],
        max_photo_bytes=2_000_000,
        max_photo_pixels=4_000_000,
        collections={"lenient": {"several_faces": "largest"}},
    )
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    expected = {name: reason for name, (_, reason) in files.items()}
    world.submit((name, (folder / name).as_uri()) for name in files)
    elsewhere = {
        "missing": ((folder / "missing.jpg").as_uri(), "photo_not_found"),
        "deaf": (f"{deaf_store}/a.jpg", "photo_unavailable"),
        "outside": ((tmp_path / "elsewhere.jpg").as_uri(), "photo_forbidden"),
        "dots": (f"{folder.as_uri()}/../elsewhere.jpg", "photo_forbidden"),
        "host": ("http://photos.invalid/a.jpg", "photo_forbidden"),
        "address": ("http://127.0.0.2:9/a.jpg", "photo_forbidden"),
        "scheme": ("carrier-pigeon://coop/a.jpg", "photo_forbidden"),
    }
    allow(world.settings.data_folder, {f"{deaf_store}/", "http://127.0.0.2:9/"})
    world.publish([created(name, uri) for name, (uri, _) in elsewhere.items()])
    expected |= {name: reason for name, (_, reason) in elsewhere.items()}
    inline = Photo(inline=base64.b64encode(b"no photo").decode())
    world.publish([announce(IndividualCreated(collection="c", individual_id="inline", revision=1, photo=inline), "t")])
    expected["inline"] = "photo_unreadable"
    world.submit([("taken", (folder / "several").as_uri())], collection="lenient")
    world.wait(lambda: world.count("rejected", "checked") == len(expected) + 1, "an answer to every photo")
    states = world.states()
    assert states.pop("taken") == ("checked", None)
    assert states == {name: ("rejected", reason) for name, reason in expected.items()}
    assert all(worker.restarts == 0 for worker in world.workers.values())
    for record in world.read(REJECTIONS):
        assert b"http://" not in (record.value or b""), "a rejection tells no address"


def created(who: str, uri: str, revision: int = 1) -> Message[Event]:
    event = IndividualCreated(collection="c", individual_id=who, revision=revision, photo=Photo(uri=uri))
    return announce(event, "test")


def test_unreadable_messages_become_dead_letters_and_the_stream_goes_on(world: World, photos: Path) -> None:
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    photo = (photos / "obama.jpg").as_uri()
    allow(world.settings.data_folder, {(photos.resolve()).as_uri() + "/"})
    envelope = encode(created("x", photo)).headers
    bad = [
        Record(topic.name, key, value, headers, partition=0)
        for topic in (INDIVIDUALS, ENCODINGS, REJECTIONS, DUPLICATES)
        for key, value, headers in (
            (b"c/x", b"\x00no json", envelope),
            (b"c/x", b'{"collection": "c"}', envelope),
            (b"c/x", b'{"collection": "c", "individual_id": "x", "revision": 1}', ()),
            (None, b"no key and no envelope", ()),
            (b"c/null", None, ()),
        )
    ]
    # Kafka itself takes no record without a key on a compacted topic.
    bad = [record for record in bad if record.key or topic_named(record.topic).cleanup is Cleanup.DELETE]
    world.publish_records(bad)
    world.publish([created("good", photo)])
    world.wait(lambda: world.count("checked") == 1, "the good one is checked")
    world.wait(lambda: len(world.read(DEAD_LETTERS)) >= len(bad), "a letter for each")
    letters = world.read(DEAD_LETTERS)
    assert len(letters) == len(bad)
    originals = {
        (record.topic, record.offset): record
        for topic in {record.topic for record in bad}
        for record in world.read(topic_named(topic))
        if record.partition == 0
    }
    for letter in letters:
        headers = dict(letter.headers)
        topic = (headers["dead_letter_topic"] or b"").decode()
        offset = int(headers["dead_letter_offset"] or b"")
        original = originals[topic, offset]
        assert letter.key == original.key
        assert letter.value in (original.value, b"")  # arroyo hands a null value over as an empty one
        assert letter.headers[: len(original.headers)] == original.headers
        assert headers["dead_letter_error"]
    assert all(worker.restarts == 0 for worker in world.workers.values())


def test_the_same_event_twice_and_an_older_revision_change_nothing(world: World, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("obama.jpg", "obama2.jpg", "biden.jpg"):
        shutil.copy(photos / name, folder)
    allow(world.settings.data_folder, {folder.resolve().as_uri() + "/"})

    def updated(who: str, name: str, revision: int) -> Message[Event]:
        photo = Photo(uri=(folder / name).as_uri())
        return announce(IndividualUpdated(collection="c", individual_id=who, revision=revision, photo=photo), "t")

    world.start("encode-cpu", "encode-gpu", "match", "sink")
    first = [created("a", (folder / "obama.jpg").as_uri()), updated("b", "obama2.jpg", 5)]
    world.publish(first)
    world.wait(lambda: world.count("checked") == 2, "both checked")
    before = world.tables()
    assert world.pairs() == {("a", "b")}
    world.publish([*first, updated("b", "biden.jpg", 3), *first])
    world.publish([created("last", (folder / "biden.jpg").as_uri())])
    world.wait(lambda: world.states().get("last") == ("checked", None), "the last one is checked")
    after = [row for row in world.tables() if row.get("individual_id") != "last"]
    assert after == before
    assert len(world.read(ENCODINGS)) >= 3 + 5  # the stale record, and what put the right one behind it again
    latest = {record.key: record for record in world.read(ENCODINGS)}
    assert b'"revision":5' in (latest[b"c/b"].value or b""), "the right record stands last, for Kafka's compaction"


def test_what_is_of_a_collection_too_many_is_sent_again_once_the_bound_is_raised(
    make_world: MakeWorld, embedding: Make
) -> None:
    world = make_world(max_collections=1)
    names = [f"c{number}" for number in range(100)]
    first, other, *_ = (name for name in names if partition_of(name, ENCODINGS.partitions) == 0)
    face = embedding()
    world.start("match", "sink")
    for collection in (first, other):
        world.publish([announce(computed(who, face, collection=collection), "test") for who in "ab"])
    world.wait(lambda: len(world.read(DEAD_LETTERS)) == 2 and world.count("checked") == 2, "letters of the other")
    assert world.count("encoded") == 2
    world.workers.pop("match").stop()
    world.env["FACEMATCH_MAX_COLLECTIONS"] = "2"
    world.start("match")
    done = run(world, "dead-letters", "redrive", "--reason", "a collection more", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    world.wait(lambda: world.count("checked") == 4, "they are compared")
    with world.connect() as connection:
        assert set(connection.scalars(select(duplicates.c.collection))) == {first, other}
