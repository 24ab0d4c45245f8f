"""The pairs among the demo's photos are those that the face_recognition package's own distances say."""

from pathlib import Path

from deploy.demo.photos import pairs_to_find
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.topics import DUPLICATES
from tests.integration.world import World
from tests.reference import reference_pairs


def test_demo_photos_give_exactly_the_reference_pairs(world: World, photos: Path) -> None:
    files = sorted(photos.iterdir())
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    world.submit((path.name, path.as_uri()) for path in files)
    world.wait(lambda: world.count("checked") == len(files), "all photos checked")
    expected = reference_pairs(files, world.threshold)
    assert world.pairs() == set(expected) == pairs_to_find([path.name for path in files])
    events = world.events(DUPLICATES)
    for event in events:
        if isinstance(event, DuplicateFound):
            assert abs(event.distance - expected[event.a.individual_id, event.b.individual_id]) < 0.1
    assert sum(isinstance(event, IndividualChecked) for event in events) == len(files)
