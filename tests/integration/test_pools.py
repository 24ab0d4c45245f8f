"""Both pools on real servers: collections say which one encodes, and how good a face must be."""

from pathlib import Path

from schemas.events.encodings import EncodingComputed
from schemas.topics import ENCODINGS, ESCALATIONS
from tests.integration.conftest import MakeWorld


def test_collections_say_which_pool_encodes_and_how_good_a_face_must_be(make_world: MakeWorld, photos: Path) -> None:
    world = make_world(
        collections={
            "by-gpu": {"routing": "gpu"},
            "strict": {"minimum_quality": {"face_pixels": 5000}},
            "sharp": {"minimum_quality": {"sharpness": 1e6}},
        }
    )
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    photo = (photos / "obama.jpg").as_uri()
    for collection in ("plain", "by-gpu", "strict", "sharp"):
        world.submit([(collection, photo)], collection=collection)
    world.wait(lambda: world.count("checked", "rejected") == 4, "an answer to each")
    assert world.states() == {
        "plain": ("checked", None),
        "by-gpu": ("checked", None),
        "strict": ("rejected", "face_too_small"),
        "sharp": ("rejected", "face_blurred"),
    }
    encodings = {event.individual_id: event for event in world.events(ENCODINGS) if isinstance(event, EncodingComputed)}
    assert {who: event.detector.value for who, event in encodings.items()} == {"plain": "hog", "by-gpu": "cnn"}
    assert encodings["plain"].encoder == encodings["by-gpu"].encoder, "what both pools make is compared"
    assert len(world.read(ESCALATIONS)) == 1
