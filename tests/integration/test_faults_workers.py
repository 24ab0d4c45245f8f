"""Every worker is killed several times while photos go through the whole flow."""

from pathlib import Path

import pytest

from schemas.events.base import Detector
from tests.integration.conftest import MakeWorld
from tests.integration.faces import make_faces
from tests.integration.faults import strike_at_random
from tests.integration.judge import assert_as_the_oracle

WORKERS = ("encode-cpu", "encode-gpu", "match", "sink")
SUBMISSIONS = 3000
ROUNDS = 3


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_every_worker_killed_three_times_in_3000_photos(make_world: MakeWorld, photos: Path, tmp_path: Path) -> None:
    files = make_faces(photos, tmp_path / "photos", 600)
    # Close to each other on purpose: the same photo twice always is, most others are not.
    world = make_world(threshold=0.08, delta_limit=500, encoder_processes=1)
    world.start(*WORKERS)
    everyone = [(f"person-{number}", files[number % len(files)].as_uri()) for number in range(SUBMISSIONS)]
    world.submit(everyone[::10], detector=Detector.CNN)
    world.submit([one for number, one in enumerate(everyone) if number % 10 and number % 50 != 7])
    world.submit([(who, f"{uri}.gone") for who, uri in everyone[7::50]])
    strike_at_random(
        world,
        lambda number: world.crash(WORKERS[number % len(WORKERS)]),
        ROUNDS * len(WORKERS),
        lambda: world.count("checked", "rejected"),
        SUBMISSIONS,
    )
    assert_as_the_oracle(world, limit_s=300)
    assert world.count("rejected") >= SUBMISSIONS // 50
    assert world.count("checked", "rejected") == SUBMISSIONS
