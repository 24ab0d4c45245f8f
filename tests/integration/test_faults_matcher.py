"""The matcher is killed, and shares and loses partitions, while it seals; records come in any order."""

from functools import partial

import pytest

from schemas.events.encodings import EncodingErased
from tests.conftest import Make
from tests.encodings import EncodingEvent, computed, crowd
from tests.integration.conftest import MakeWorld
from tests.integration.faults import begin, publish, published, strike_at_random
from tests.integration.judge import assert_as_the_oracle
from tests.integration.world import World


def kill_matchers(world: World, events: int, times: int, *names: str, seed: int = 1) -> None:
    """SIGKILL them in turn, at seeded moments."""
    strike_at_random(
        world,
        lambda number: world.crash(names[number % len(names)]),
        times,
        partial(published, world),
        events,
        seed,
    )


@pytest.mark.faults
def test_the_matcher_killed_while_it_seals(make_world: MakeWorld) -> None:
    world = begin(make_world, 4_000, collections=2)
    kill_matchers(world, 4_000, 1, "match")
    assert_as_the_oracle(world)


@pytest.mark.faults
def test_the_matcher_killed_twenty_times_in_100_000_events(make_world: MakeWorld) -> None:
    world = begin(make_world, 100_000, collections=3)
    kill_matchers(world, 100_000, 20, "match")
    assert_as_the_oracle(world, limit_s=300)


@pytest.mark.faults
def test_the_matcher_killed_soon_again_while_it_restores(make_world: MakeWorld) -> None:
    """Three times within the seconds in which it waits for its partitions, reads the log and begins again."""
    world = begin(make_world, 40_000, collections=2)
    for part in (0.25, 0.5, 0.75):
        world.wait(lambda part=part: published(world) > 40_000 * part, f"{part} of the way")  # type: ignore[misc]
        for _ in range(3):
            seen = len(world.lines)
            world.crash("match")
            world.wait(partial(_says_restored, world, seen), "a partition is restored")
    assert_as_the_oracle(world, limit_s=240)


def _says_restored(world: World, seen: int) -> bool:
    return any('"restored"' in line for line in world.lines.since(seen))


@pytest.mark.faults
def test_two_matchers_that_share_partitions_killed_in_turn(make_world: MakeWorld) -> None:
    world = begin(make_world, 60_000, "match", "match-2", collections=6)
    kill_matchers(world, 60_000, 8, "match", "match-2")
    assert_as_the_oracle(world, limit_s=240)


@pytest.mark.faults
def test_one_matcher_added_and_one_removed_in_the_middle(make_world: MakeWorld) -> None:
    world = begin(make_world, 60_000, "match", "match-2", collections=6)

    def change(number: int) -> None:
        if number == 0:
            world.start("match-3")
        else:
            world.workers["match"].stop()

    strike_at_random(world, change, 2, partial(published, world), 60_000, seed=2)
    assert_as_the_oracle(world, limit_s=240)
    assert world.restarts() == {}


def test_records_out_of_order_whose_predecessors_are_sealed(make_world: MakeWorld, embedding: Make) -> None:
    """Revision 1 after 2, an encoding after the erasure, one record ten times: what lies between is enough to seal."""
    world = make_world(delta_limit=300)
    faces = [embedding() for _ in range(4)]
    erased = EncodingErased(collection="c", individual_id="b", revision=3)
    again = computed("again", faces[2])
    story: list[list[EncodingEvent]] = [
        [computed("a", faces[0], 2), computed("b", faces[1], 2), again],
        [erased, again],
        [computed("a", faces[3], 1), computed("b", faces[1], 1), again],
        [computed("b", faces[1], 2), again, *[again] * 6],
        [computed(f"late-{number}", 0.8 * face) for number, face in enumerate(faces)],
    ]
    world.start("match", "sink")
    for number, chapter in enumerate(story):
        publish(world, chapter)
        publish(world, crowd(600, seed=number, prefix=f"p{number}-"))
    assert_as_the_oracle(world)
    assert {pair for pair in world.pairs() if pair[1].startswith("late")} == {("a", "late-0"), ("again", "late-2")}
