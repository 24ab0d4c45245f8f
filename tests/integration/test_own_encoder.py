"""An encoder that somebody added, of 256 numbers, on real servers: from photo to pair, compacted, and started again."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.encoders import open_detector, open_encoder
from consumers.photos.file import PhotoFile, TurnedPhoto
from deploy.encoders.adding import add
from deploy.setup.weights import fetch_weights
from schemas.encoders.known import encoder_named
from schemas.events.encodings import EncodingComputed
from schemas.settings import Settings
from schemas.topics import ENCODINGS
from tests.integration.conftest import MakeWorld
from tests.integration.test_compaction import compacted
from tests.networks import DIMENSIONS, write_own

THRESHOLD = 0.05


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a machine to which the encoder was added."""
    fetch_weights(Settings())  # of YuNet, which finds the landmarks
    found = Settings(encoders=tmp_path / "encoders")
    add(found, write_own(tmp_path / "own"))
    return found


def embedding_of(settings: Settings, path: Path) -> NDArray[np.float32]:
    photo, encoder = PhotoFile(path.read_bytes(), settings.max_photo_pixels), open_encoder(settings, "own")
    (faces,) = open_detector(settings, "own", False, 1).find([photo])
    assert isinstance(faces, list)
    aligned = encoder.align(TurnedPhoto(photo, faces[0].turns) if faces[0].turns else photo, faces[0])
    (embedding,) = encoder.embed(aligned.chip[np.newaxis])
    return np.asarray(embedding)


def saved_again(photo: Path, path: Path, quality: int) -> Path:
    with Image.open(photo) as image:
        image.convert("RGB").save(path, quality=quality)
    return path


def test_an_encoder_of_256_numbers_finds_its_pairs(
    make_world: MakeWorld, photos: Path, settings: Settings, tmp_path: Path
) -> None:
    obama, biden = photos / "obama.jpg", photos / "biden.jpg"
    people = {
        "biden": biden,
        "obama": obama,
        "obama-again": saved_again(obama, tmp_path / "again.jpg", 90),
        "obama-thrice": saved_again(obama, tmp_path / "thrice.jpg", 80),
    }
    expected = {who: embedding_of(settings, path) for who, path in people.items()}
    assert np.linalg.norm(expected["obama"] - expected["biden"]) > 2 * THRESHOLD
    world = make_world(encoder="own", encoders=settings.encoders_folder, thresholds={"own": THRESHOLD})
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    world.submit([(who, people[who].as_uri()) for who in ("biden", "obama", "obama-again")])
    world.wait(lambda: world.count("checked") == 3, "everyone is compared")
    assert world.pairs() == {("obama", "obama-again")}

    encodings = {event.individual_id: event for event in world.events(ENCODINGS) if isinstance(event, EncodingComputed)}
    for who, event in encodings.items():
        assert event.encoder == encoder_named(settings.encoders_folder, "own").id
        assert event.embedding.shape == (DIMENSIONS,)
        assert np.abs(event.embedding - expected[who]).max() < 1e-5

    compacted(world)
    world.crash("match")
    world.submit([("obama-thrice", people["obama-thrice"].as_uri())])
    world.wait(lambda: world.count("checked") == 4, "who comes after a compaction and a restart is compared")
    assert world.pairs() == {("obama", "obama-again"), ("obama", "obama-thrice"), ("obama-again", "obama-thrice")}
