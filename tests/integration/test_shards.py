"""Matchers that share a partition's vectors: together they find what one alone finds."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deploy.status.workers import galleries
from schemas.envelope import Record
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import IndividualChecked
from schemas.topics import DEAD_LETTERS, DUPLICATES, ENCODINGS
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.test_matcher import expected_pairs, found, messages, people
from tests.integration.world import World

Make = Callable[[], NDArray[np.float32]]
SHARDS = 3


def start_shard(world: World, number: int, count: int = SHARDS) -> None:
    name = f"match-{number}"
    world.workers[name] = world.stack.start_worker(name, "match", "--shard", f"{number}/{count}", env=world.env)


def reports(world: World) -> list[IndividualChecked]:
    return [event for event in world.events(DUPLICATES) if isinstance(event, IndividualChecked)]


def test_shards_together_find_what_one_finds_and_only_then_is_an_individual_checked(
    make_world: MakeWorld, embedding: Make
) -> None:
    world = make_world(delta_limit=200)
    everyone = people(embedding, 900)
    changed: list[EncodingComputed | EncodingErased] = [
        computed("p10", embedding(), revision=3),
        computed("p10", everyone[9].embedding, revision=2),  # type: ignore[union-attr] # stale: in every shard
        EncodingErased(collection="c", individual_id="p20", revision=2),
        computed("p20", everyone[20].embedding, revision=1),  # type: ignore[union-attr] # late: in every shard
    ]
    for number in range(1, SHARDS):
        start_shard(world, number)
    world.start("sink")
    world.publish(messages(everyone))
    world.wait(lambda: len(reports(world)) == 2 * 900, "two of three shards have reported everyone")
    world.wait(lambda: world.count("encoded") == 900, "everyone is encoded in the table")
    assert world.count("checked") == 0
    start_shard(world, 3)
    world.wait(lambda: world.count("checked") == 900, "everyone is checked")
    world.publish(messages([*changed, *people(embedding, 10, "late")]))
    world.wait(lambda: world.count("checked") == 909, "those after the changes are checked too")
    assert expected_pairs([*everyone, *changed]) <= found(world)
    # The right records were published again once, by the shard whose they are.
    latest = [record for record in world.read(ENCODINGS) if record.key in {b"c/p10", b"c/p20"}]
    assert sum(record.key == b"c/p10" for record in latest) == 4
    assert sum(record.key == b"c/p20" for record in latest) == 4

    def held() -> dict[str, int]:
        return {gallery.shard: gallery.vitals.people for gallery in galleries(world.settings)}

    world.wait(lambda: sum(held().values()) == 909, "each shard says what it holds")
    assert set(held()) == {"1/3", "2/3", "3/3"}
    assert all(200 < people < 400 for people in held().values())


def test_an_unreadable_record_is_one_dead_letter_however_many_shards_read_it(world: World, embedding: Make) -> None:
    for number in range(1, SHARDS + 1):
        start_shard(world, number)
    world.publish(messages(people(embedding, 5)))
    good = world.read(ENCODINGS)[0]
    world.publish_records([Record(ENCODINGS.name, b"c/x", b"garbage", good.headers, partition=good.partition)])
    world.publish(messages(people(embedding, 5, "q")))
    world.wait(lambda: len(reports(world)) == SHARDS * 10, "all shards have gone past it")
    assert len(world.read(DEAD_LETTERS)) == 1
