"""A replay beside live registrations, which go first; and one that is killed again and again."""

import random
from pathlib import Path
from statistics import median

import pytest

from schemas.topics import INDIVIDUALS
from tests.integration.conftest import MakeWorld
from tests.integration.faces import make_faces
from tests.integration.replays import ONE_AT_WORK, begin, positions, publish_crowd, sent_by, start
from tests.integration.world import World

pytestmark = pytest.mark.faults

CROWD, LIVE = 400, 8
KILLS, EVENTS = 6, 20_000


@pytest.mark.timeout(900)
def test_a_live_registration_is_not_delayed_by_a_second(make_world: MakeWorld, photos: Path, tmp_path: Path) -> None:
    world = make_world(**ONE_AT_WORK)
    live = begin(world, make_faces(photos, tmp_path / "photos", 100), CROWD)
    count = iter(range(LIVE))
    alone = live.waits(lambda: next(count, None) is not None)
    beside, behind = (live.beside_a_replay(*how) for how in ((), ("--at-once",)))
    assert positions(sent_by(world, INDIVIDUALS)).total() == 2 * CROWD
    assert len(beside) >= 5, "it was over before anything could be said"
    assert median(beside) < max(alone) + 1.0, (alone, beside, behind)
    assert max(beside) < max(behind) / 2, (alone, beside, behind)
    assert max(behind) > max(alone) + 1.0, f"there was nothing to wait for: this says nothing: {behind}"


@pytest.mark.timeout(600)
def test_killed_again_and_again_each_event_is_there_once(world: World) -> None:
    publish_crowd(world, EVENTS)
    moments = random.Random(1)
    replay = start(world, "--yes", "--at-once", "--rate", "4000")
    plans = world.settings.data_folder / "replays"
    for _ in range(KILLS):
        before = sum(world.ends(INDIVIDUALS).values())
        further = moments.randint(1, 2 * EVENTS // KILLS // 3)
        world.wait(lambda: sum(world.ends(INDIVIDUALS).values()) > before + further, "it has gone on")  # noqa: B023
        assert replay.poll() is None, "it was at its end already"
        replay.kill()
        replay.wait()
        (plan,) = plans.glob("*.json")
        replay = start(world, "--resume", plan.stem, "--at-once", "--rate", "4000")
    assert replay.wait(300) == 0
    counts = positions(sent_by(world, INDIVIDUALS, plan.stem))
    assert set(counts.values()) == {1}
    assert len(counts) == EVENTS
