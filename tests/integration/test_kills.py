"""A worker of each kind is killed in the middle of 1,000 submissions, and the tables end as if nothing had been."""

from functools import partial
from pathlib import Path

import pytest

from schemas.events.base import Detector
from tests.integration.conftest import MakeWorld
from tests.integration.faces import make_faces
from tests.integration.world import World

SUBMISSIONS = 1000
BY_CNN = 10
# In the order in which they are killed. The sink is last: while it starts again the others may finish all the work. It
# then writes all at once, and nobody could be met in the middle any more.
WORKERS = ("encode-cpu", "encode-gpu", "match", "sink")
# Close to each other on purpose: the same photo twice always is, most others are not.
THRESHOLD = 0.08


def submit_all(world: World, files: list[Path]) -> None:
    """Every photo under several ids, in three collections; some by the CNN, some missing."""
    everyone = [(f"person-{number}", files[number % len(files)].as_uri()) for number in range(SUBMISSIONS)]
    world.submit(everyone[:BY_CNN], "a", detector=Detector.CNN)
    world.submit(everyone[BY_CNN:400], "a")
    world.submit(everyone[400:700], "b")
    world.submit(everyone[700:-20], "c")
    world.submit([(who, f"{uri}.gone") for who, uri in everyone[-20:]], "c")


def all_done(world: World) -> bool:
    return world.count("checked", "rejected") == SUBMISSIONS


def checked_at_least(world: World, count: int) -> bool:
    return world.count("checked") >= count


@pytest.mark.timeout(500)
def test_tables_after_kills_equal_those_of_an_undisturbed_run(
    make_world: MakeWorld, photos: Path, tmp_path: Path
) -> None:
    files = make_faces(photos, tmp_path / "photos", 280)
    undisturbed = make_world(threshold=THRESHOLD)
    undisturbed.start(*WORKERS)
    submit_all(undisturbed, files)
    undisturbed.wait(lambda: all_done(undisturbed), "the undisturbed run", limit_s=200)
    expected = undisturbed.tables()
    undisturbed.stop()
    assert sum("pair_id" in row for row in expected) > 300

    disturbed = make_world(threshold=THRESHOLD, encoder_processes=1)  # slow enough to be met in the middle
    disturbed.start(*WORKERS)
    submit_all(disturbed, files)
    for number, name in enumerate(WORKERS, start=1):
        disturbed.wait(partial(checked_at_least, disturbed, number * 100), f"{number * 100} checked")
        disturbed.workers[name].kill()
        assert not all_done(disturbed), f"{name} was killed after the end"
    disturbed.wait(lambda: all_done(disturbed), "the disturbed run", limit_s=200)
    disturbed.wait(lambda: disturbed.tables() == expected, "the same tables", limit_s=20)
    disturbed.wait(
        lambda: [worker.restarts for worker in disturbed.workers.values()] == [1, 1, 1, 1], "each is started again once"
    )
