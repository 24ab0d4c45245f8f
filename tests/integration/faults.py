"""What the fault tests share: a crowd on its way through the matcher and the sink, and faults at random moments."""

import random
from collections.abc import Callable, Iterable
from functools import partial

from schemas.envelope import announce
from schemas.topics import DUPLICATES, ENCODINGS, partition_of
from tests.encodings import EncodingEvent, crowd
from tests.integration.conftest import MakeWorld
from tests.integration.world import World

COLLECTIONS = ("c", "d", "f", "g", "b", "i")  # each in a partition of its own
PARTITION = partition_of("c", ENCODINGS.partitions)


def begin(make_world: MakeWorld, events: int, *workers: str, collections: int = 1, seed: int = 1) -> World:
    """A world whose matcher (or those named) and sink are at work on a crowd, and seal all the time."""
    world = make_world(delta_limit=max(500, min(5000, events // 10 // collections)))
    world.start(*(workers or ("match",)), "sink")
    publish(world, crowd(events, seed, COLLECTIONS[:collections]))
    return world


def publish(world: World, events: Iterable[EncodingEvent]) -> None:
    """Publish encodings, as the encoder pools would."""
    world.publish([announce(event, "test") for event in events])


def published(world: World) -> int:
    """How many records the matcher has published on `duplicates`: at least one of nearly every event."""
    return sum(world.ends(DUPLICATES).values())


def strike_at_random(
    world: World, strike: Callable[[int], None], times: int, progress: Callable[[], int], end: int, seed: int = 1
) -> None:
    """Strike (with 0, 1, 2 …) at seeded moments while `progress` goes up to three quarters of `end`."""
    moments = sorted(random.Random(seed).randint(end // 20, end * 3 // 4) for _ in range(times))
    for number, moment in enumerate(moments):
        world.wait(partial(_reached, progress, moment), f"progress of {moment} of {end}", limit_s=120)
        assert progress() < end, f"strike {number} came after the end: {progress()} of {end}"
        strike(number)


def _reached(progress: Callable[[], int], moment: int) -> bool:
    return progress() >= moment
