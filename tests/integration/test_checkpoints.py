"""Sealed segments and checkpoints on real servers: used where they are good, and never where they are not."""

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from redis import Redis
from rich.console import Console

from deploy.status import workers
from deploy.status.report import print_status
from deploy.status.workers import galleries
from runtime.servers.redis import connect
from schemas.events.encodings import EncodingErased
from schemas.shard import Shard
from schemas.topics import ENCODINGS, partition_of
from streams.checkpoint.manifest import BlobPart, Manifest
from streams.checkpoint.state import gallery_of, state_of
from streams.checkpoint.store import CheckpointStore
from streams.gallery.build import build_segment
from streams.gallery.gallery import Gallery
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.test_matcher import checked, expected_pairs, found, messages, people
from tests.integration.world import World

Make = Callable[[], NDArray[np.float32]]
PARTITION = partition_of("c", ENCODINGS.partitions)
LIMIT = 500


def manifest_key(world: World) -> str:
    return f"{world.name}:{{1/1:{PARTITION}}}:manifest"


def manifest(world: World) -> Manifest | None:
    value = Redis.from_url(world.settings.redis).get(manifest_key(world))
    return None if value is None else Manifest.from_bytes(value)  # type: ignore[arg-type]


def sealed(world: World) -> int:
    """Rows in sealed segments of the checkpoint that is there."""
    found = manifest(world)
    return 0 if found is None else sum(segment.rows for scope in found.scopes for segment in scope.segments)


def chunk_keys(world: World) -> set[str]:
    keys = Redis.from_url(world.settings.redis).scan_iter(match=f"{world.name}:*:chunk:*", count=1000)
    return {key.decode() for key in keys}


def restart(world: World) -> dict[str, Any]:
    """Stop the matcher and start it again; what it says of how it was restored."""
    begin = len(world.lines)
    world.workers["match"].stop()
    world.workers["match"].start()

    def said() -> list[dict[str, Any]]:
        return [one for one in world.said(begin) if (one["event"], one.get("partition")) == ("restored", PARTITION)]

    world.wait(lambda: bool(said()), "the matcher is restored")
    return said()[0]


def test_a_restart_reads_segments_from_redis_and_the_rest_from_the_log(make_world: MakeWorld, embedding: Make) -> None:
    world = make_world(delta_limit=LIMIT)
    first, second = people(embedding, 1200), people(embedding, 40, "q")
    erased = [EncodingErased(collection="c", individual_id="p7", revision=2)]
    again = [computed("twin", first[30].embedding), computed("of the erased", first[7].embedding)]  # type: ignore[union-attr]
    world.start("match")
    world.publish(messages(first))
    world.wait(lambda: sealed(world) >= LIMIT, "a segment is sealed and stored")
    world.publish(messages([*erased, *second]))
    world.wait(lambda: len(checked(world)) == 1240, "all checked")
    restored = restart(world)
    assert restored["people_in_checkpoint"] > 0
    assert restored["people"] == 1239
    world.publish(messages([*again]))
    world.wait(lambda: len(checked(world)) == 1242, "those after the restart are checked")
    everyone = [*first, *erased, *second, *again]
    assert expected_pairs(everyone) <= found(world)
    assert not {pair for pair in found(world) if "of the erased" in pair}
    kept = manifest(world)
    assert kept is not None
    redis = Redis.from_url(world.settings.redis)
    keys = chunk_keys(world)
    assert {key.partition(":chunk:")[2] for key in keys} == set(kept.chunks())  # none is left over, none missing
    assert all(redis.ttl(key) == -1 for key in keys)
    assert all(segment.quality.recall >= 0.999 for scope in kept.scopes for segment in scope.segments)


def test_status_shows_what_a_matcher_holds(make_world: MakeWorld, embedding: Make) -> None:
    world = make_world(delta_limit=LIMIT)
    world.start("match")
    world.publish(messages([*people(embedding, 800), EncodingErased(collection="c", individual_id="p1", revision=2)]))

    def shown() -> list[workers.GalleryStatus]:
        return [one for one in galleries(world.settings) if one.matched == 801 and one.vitals.segments]

    world.wait(lambda: bool(shown()), "status shows the segment and everyone matched")
    (one,) = shown()
    assert (one.vitals.collection, one.vitals.encoder, one.shard, one.lag) == ("c", "test", "1/1", 0)
    assert one.vitals.people == 799
    assert sum(segment.living for segment in one.vitals.segments) + one.vitals.delta >= 799
    assert one.vitals.compacted_at is None
    world.stop()
    world.publish(messages([computed("unseen", embedding())]))
    assert [gallery.lag for gallery in galleries(world.settings)] == [1]
    console = Console(record=True, width=80)
    print_status(console, world.settings)
    text = console.export_text()
    assert "…" not in text, "a name is cut off"
    assert "799" in text
    assert f"{one.vitals.segments[0].quality.recall:.4f}" in text


def break_nothing(world: World) -> None:
    """The control: everything in its place."""


def remove_a_chunk(world: World) -> None:
    Redis.from_url(world.settings.redis).delete(sorted(chunk_keys(world))[0])


def flip_a_bit(world: World) -> None:
    redis = Redis.from_url(world.settings.redis)
    key = sorted(chunk_keys(world))[-1]
    value = bytearray(redis.get(key))  # type: ignore[arg-type]
    value[len(value) // 2] ^= 1
    redis.set(key, bytes(value))


def damage_with_the_right_checksum(world: World) -> None:
    """As a defect would that wrote something wrong: the vectors of the rows that are not sealed are missing."""
    redis = Redis.from_url(world.settings.redis)
    kept = manifest(world)
    assert kept is not None
    (chunk,) = kept.scopes[0].rest.chunks()
    name = next(key for key in chunk_keys(world) if key.endswith(f":chunk:{chunk}"))
    damaged: bytes = redis.get(name)[1000:]  # type: ignore[index, assignment]
    redis.set(name, damaged)
    part = BlobPart(checksums=(hashlib.sha256(damaged).hexdigest(),))
    rest = kept.scopes[0].rest.model_copy(update={"parts": {"rest": part}})
    scopes = (kept.scopes[0].model_copy(update={"rest": rest}), *kept.scopes[1:])
    redis.set(manifest_key(world), kept.model_copy(update={"scopes": scopes}).to_bytes())


def truncate_the_manifest(world: World) -> None:
    redis = Redis.from_url(world.settings.redis)
    redis.set(manifest_key(world), redis.get(manifest_key(world))[:-10])  # type: ignore[index]


def write_an_older_format(world: World) -> None:
    kept = manifest(world)
    assert kept is not None
    older = kept.model_copy(update={"format": 0})
    Redis.from_url(world.settings.redis).set(manifest_key(world), older.to_bytes())


def age(world: World) -> None:
    kept = manifest(world)
    assert kept is not None
    old = kept.model_copy(update={"made_at": datetime.now(UTC) - timedelta(days=15)})
    Redis.from_url(world.settings.redis).set(manifest_key(world), old.to_bytes())


def belong_to_another_log(world: World) -> None:
    kept = manifest(world)
    assert kept is not None
    other = kept.model_copy(update={"offset": 1_000_000})
    Redis.from_url(world.settings.redis).set(manifest_key(world), other.to_bytes())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_nothing, None),
        (remove_a_chunk, "is missing"),
        (flip_a_bit, "is corrupt"),
        (damage_with_the_right_checksum, "what is not sealed cannot be read"),
        (truncate_the_manifest, "its manifest is corrupt"),
        (write_an_older_format, "its manifest is of another format"),
        (age, "it is 15 days old, and Kafka keeps tombstones for 14"),
        (belong_to_another_log, "it is of another log"),
    ],
)
def test_a_checkpoint_that_is_not_to_be_trusted_is_found_out(
    world: World,
    embedding: Make,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[World], None],
    said: str | None,
) -> None:
    """And said, removed, and not used: the state comes from the log."""
    gallery = filled_gallery(embedding)
    assert store(world).save(state_of(gallery, 1000), ours)
    damage(world)
    with caplog.at_level(logging.WARNING):
        loaded = store(world).load(lambda: 10_000)
    if said is None:
        assert loaded is not None
        assert caplog.text == ""
        assert contents(gallery_of(loaded, Shard())) == contents(gallery)
        return
    assert loaded is None
    assert said in caplog.text
    assert manifest(world) is None
    assert chunk_keys(world) == set()


def test_a_damaged_checkpoint_costs_a_matcher_time_and_nothing_else(make_world: MakeWorld, embedding: Make) -> None:
    world = make_world(delta_limit=LIMIT)
    everyone = people(embedding, 1200)
    world.start("match")
    world.publish(messages(everyone))
    world.wait(lambda: sealed(world) >= LIMIT and len(checked(world)) == 1200, "all checked, a segment is stored")
    flip_a_bit(world)
    restored = restart(world)
    assert (restored["people"], restored["people_in_checkpoint"]) == (1200, 0)
    more = [computed("late", everyone[3].embedding)]  # type: ignore[union-attr]
    world.publish(messages([*more]))
    world.wait(lambda: ("late", 1) in checked(world), "the newcomer is checked")
    assert found(world) == expected_pairs([*everyone, *more])


def test_a_later_checkpoint_is_never_replaced_by_an_earlier_one(world: World, embedding: Make) -> None:
    """A process that stood still while another went on finishes what it had begun."""
    gallery = filled_gallery(embedding)
    assert store(world).save(state_of(gallery, 2000), ours)
    before = chunk_keys(world)
    assert not store(world).save(state_of(gallery, 1000), ours)
    kept = manifest(world)
    assert kept is not None
    assert kept.offset == 2000
    assert chunk_keys(world) == before


def test_nothing_is_stored_of_a_partition_that_went_to_another(world: World, embedding: Make) -> None:
    assert not store(world).save(state_of(filled_gallery(embedding), 1000), lambda: False)
    assert manifest(world) is None
    assert chunk_keys(world) == set()


def test_what_redis_lost_is_stored_again(world: World, embedding: Make) -> None:
    kept = store(world)
    gallery = filled_gallery(embedding)
    assert kept.save(state_of(gallery, 1000), ours)
    Redis.from_url(world.settings.redis).flushall()
    assert kept.save(state_of(gallery, 1001), ours)
    loaded = store(world).load(lambda: 10_000)
    assert loaded is not None
    assert contents(gallery_of(loaded, Shard())) == contents(gallery)


def test_a_full_redis_keeps_the_checkpoint_that_it_has(world: World, embedding: Make) -> None:
    redis = Redis.from_url(world.settings.redis)
    gallery = filled_gallery(embedding)
    assert store(world).save(state_of(gallery, 1000), ours)
    before = chunk_keys(world)
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"]) + 100_000)
    redis.config_set("maxmemory-policy", "noeviction")
    try:
        assert not store(world).save(state_of(gallery, 2000), ours)
    finally:
        redis.config_set("maxmemory", 0)
    assert chunk_keys(world) == before
    loaded = store(world).load(lambda: 10_000)
    assert loaded is not None
    assert loaded.offset == 1000


def test_segments_are_written_once(world: World, embedding: Make) -> None:
    kept = store(world)
    gallery = filled_gallery(embedding)
    assert kept.save(state_of(gallery, 1000), ours)
    first = manifest(world)
    gallery.apply(computed("late", embedding()), 1000)
    assert kept.save(state_of(gallery, 1001), ours)
    second = manifest(world)
    assert first is not None
    assert second is not None
    assert first.scopes[0].segments == second.scopes[0].segments
    assert first.scopes[0].rest != second.scopes[0].rest
    assert {key.partition(":chunk:")[2] for key in chunk_keys(world)} == set(second.chunks())


def ours() -> bool:
    return True


def store(world: World) -> CheckpointStore:
    return CheckpointStore(world.settings, connect(world.settings), Shard(), PARTITION)


def filled_gallery(embedding: Make) -> Gallery:
    """A sealed segment with masked rows, a delta, erased ones in both forms, two encoders."""
    gallery = Gallery()
    for offset in range(600):
        gallery.apply(computed(f"p{offset}", embedding()), offset)
    full = gallery.full(600)
    assert full is not None
    collection, encoder, sealed = full
    gallery.collections[collection].adopt(encoder, sealed, build_segment(sealed.rows, 0.45, 0.999, 1))
    for offset in range(600, 700):
        gallery.apply(EncodingErased(collection="c", individual_id=f"p{offset - 600}", revision=2), offset)
    gallery.put_away(50)
    for offset in range(700, 720):
        gallery.apply(EncodingErased(collection="c", individual_id=f"p{offset - 500}", revision=2), offset)
        gallery.apply(computed(f"q{offset}", embedding(), encoder="other"), offset)
        gallery.apply(computed(f"p{offset - 300}", embedding(), revision=2), offset)
    return gallery


def contents(gallery: Gallery) -> list[tuple[object, ...]]:
    """All that a gallery knows: of each individual the latest record and whether its vector is here."""
    known = []
    for who in [*(f"p{i}" for i in range(600)), *(f"q{i}" for i in range(700, 720))]:
        latest = gallery.collections["c"].find(who)
        assert latest is not None
        known.append((who, latest.revision, latest.offset, latest.erased, latest.place is not None))
    return [*known, *((name, encoder, scope.living) for name, encoder, scope in gallery.scopes())]
