"""Both detectors and the encoder on real photos: the subject is found, whoever stands beside it counts, nobody else."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from consumers.faces.detected import DetectedFace, PhotoSize, prominent_faces
from consumers.faces.detectors import CnnDetector, FaceDetector, HogDetector
from consumers.faces.encoder import FaceEncoder, models_folder
from consumers.faces.encoders import open_detector
from consumers.faces.stood_upright import StoodUpright
from consumers.photos.file import PhotoFile, UprightPhoto
from consumers.photos.rejected import RejectedError
from deploy.verify.compare import verify
from schemas.events.base import Detector
from schemas.settings import Settings

HEAD = (250, 60, 730, 610)  # of obama.jpg
CACHE = Settings().model_cache


def jpeg(image: Image.Image, **options: object) -> PhotoFile:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return PhotoFile(buffer.getvalue(), 100_000_000)


def head(photos: Path, width: int) -> Image.Image:
    image = Image.open(photos / "obama.jpg").convert("RGB").crop(HEAD)
    return image.resize((width, width * image.height // image.width), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def encoder() -> FaceEncoder:
    return FaceEncoder(models_folder(), CACHE)


@pytest.fixture(scope="module", params=["hog", "cnn"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    return HogDetector(CACHE) if request.param == "hog" else CnnDetector(models_folder(), CACHE)


def faces_in(detector: FaceDetector, photo: PhotoFile) -> list[DetectedFace]:
    (faces,) = detector.find([photo])
    assert not isinstance(faces, RejectedError)
    return faces


def test_a_face_is_found_in_pixels_of_the_photo_however_large_it_is(detector: FaceDetector, photos: Path) -> None:
    boxes = []
    for width in (160, 480, 1600):
        (face,) = faces_in(detector, jpeg(head(photos, width)))
        boxes.append([side / width for side in (face.top, face.right, face.bottom, face.left)])
    assert np.ptp(boxes, axis=0).max() < 0.15


def test_a_small_face_in_a_large_photo_is_found_at_a_second_look(photos: Path) -> None:
    canvas = Image.new("RGB", (1200, 1200), (90, 120, 90))
    canvas.paste(head(photos, 200), (900, 200))
    (face,) = faces_in(HogDetector(CACHE), jpeg(canvas))
    assert 900 < face.left < face.right < 1100


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_the_cnn_finds_a_face_however_it_lies_and_it_is_stood_upright(photos: Path, turn: int) -> None:
    detector = open_detector(Settings(), "face_recognition", is_gpu=True, batch=1)
    lying = Image.fromarray(np.rot90(np.asarray(head(photos, 480)), turn).copy())
    (face,) = faces_in(detector, jpeg(lying))
    assert face.turns == -turn % 4
    assert 0 < face.left < face.right < 480


class SureOfEveryFace:
    """A detector that is as sure of a face that lies, and does not say so, as the CNN is."""

    kind, provider = Detector.CNN, "cpu"

    def __init__(self, face: DetectedFace) -> None:
        self._face = face

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        return [[self._face] for _ in photos]


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_a_face_that_a_detector_finds_lying_is_stood_upright(photos: Path, turn: int) -> None:
    portrait = head(photos, 480)
    (upright,) = faces_in(HogDetector(CACHE), jpeg(portrait))
    lying = Image.fromarray(np.rot90(np.asarray(portrait), turn).copy())
    wide, high = portrait.size
    top, right, bottom, left = upright.top, upright.right, upright.bottom, upright.left
    for _ in range(turn):
        top, right, bottom, left = wide - right, bottom, wide - left, top
        wide, high = high, wide
    detector = StoodUpright(SureOfEveryFace(DetectedFace(top, right, bottom, left, 1.0)), CACHE)
    (face,) = faces_in(detector, jpeg(lying))
    assert face.turns == -turn % 4
    assert (face.top, face.right, face.bottom, face.left) == pytest.approx(
        (upright.top, upright.right, upright.bottom, upright.left)
    )


def test_a_portrait_on_a_large_page_is_found_at_the_last_look(photos: Path) -> None:
    page = Image.new("RGB", (3000, 4200), "white")
    page.paste(head(photos, 240), (2500, 300))
    (found,) = faces_in(HogDetector(CACHE), jpeg(page))
    assert 2500 < found.left < found.right < 2740


@pytest.mark.parametrize(("second", "count"), [(300, 2), (270, 2), (150, 1), (100, 1)])
def test_who_stands_as_near_counts_and_who_stands_behind_does_not(photos: Path, second: int, count: int) -> None:
    canvas = Image.new("RGB", (900, 500), (90, 120, 90))
    canvas.paste(head(photos, 300), (50, 50))
    canvas.paste(head(photos, second), (500, 50))
    faces = faces_in(HogDetector(CACHE), jpeg(canvas))
    assert len(faces) == count
    assert faces[0].width == max(face.width for face in faces)


SIZE = PhotoSize(400, 600)


def face_at(x: float, y: float, width: float, score: float = 0.95) -> DetectedFace:
    """A face of that width around a point."""
    return DetectedFace(y - width / 2, x + width / 2, y + width / 2, x - width / 2, score)


def test_a_face_counts_from_six_tenths_of_the_weight_of_the_first() -> None:
    faces = [face_at(300, 200, width) for width in (100, 61, 59)]
    assert [face.width for face in prominent_faces(faces, SIZE)] == [100, 61]
    assert prominent_faces([], SIZE) == []


@pytest.mark.parametrize(
    ("subject", "other"),
    [
        (face_at(300, 200, 100), face_at(560, 60, 110)),  # in a corner, and a little larger
        (face_at(300, 200, 100), face_at(600, 200, 160)),  # half of it outside
        (face_at(300, 200, 100, 0.95), face_at(350, 250, 130, 0.3)),  # hardly a face
    ],
)
def test_the_subject_is_in_the_middle_whole_and_surely_a_face(subject: DetectedFace, other: DetectedFace) -> None:
    assert prominent_faces([other, subject], SIZE)[0] == subject


def test_a_face_that_the_edge_cuts_off_is_nobody_unless_the_detector_is_sure() -> None:
    assert prominent_faces([face_at(600, 200, 100, 0.7)], SIZE) == []
    assert len(prominent_faces([face_at(600, 200, 100, 0.9)], SIZE)) == 1


def test_photos_of_many_sizes_at_once_are_found_as_each_alone(photos: Path) -> None:
    detector = CnnDetector(models_folder(), CACHE, batch=4)
    files = [jpeg(head(photos, width)) for width in (200, 300, 200, 300, 200)]
    files.insert(2, PhotoFile(b"broken", 1000))
    together = detector.find(files)
    assert isinstance(together.pop(2), RejectedError)
    alone = [faces_in(detector, jpeg(head(photos, width))) for width in (200, 300, 200, 300, 200)]
    assert together == alone


def test_the_embedding_is_of_the_photo_not_of_its_size_or_turn(photos: Path, encoder: FaceEncoder) -> None:
    hog = HogDetector(CACHE)
    upright = jpeg(head(photos, 1600))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = jpeg(head(photos, 1600).transpose(Image.Transpose.ROTATE_90), exif=exif)
    small = jpeg(head(photos, 400))
    chips = [encoder.align(photo, faces_in(hog, photo)[0]).chip for photo in (upright, turned, small)]
    embeddings = encoder.embed(np.stack(chips))
    assert np.linalg.norm(embeddings[0] - embeddings[1]) < 0.1
    assert np.linalg.norm(embeddings[0] - embeddings[2]) < 0.15


def test_a_large_photo_is_not_unpacked_larger_than_needed(photos: Path, encoder: FaceEncoder) -> None:
    photo = jpeg(head(photos, 4000))
    (face,) = faces_in(HogDetector(CACHE), photo)
    encoder.align(photo, face)
    assert max(photo.at_least(1).shape) <= photo.long_side / 4


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (30, 30)])
def test_photos_too_small_for_a_face_have_none(detector: FaceDetector, size: tuple[int, int]) -> None:
    assert faces_in(detector, jpeg(Image.new("RGB", size))) == []


def test_on_the_demo_photos_the_encoder_keeps_to_its_limits(photos: Path) -> None:
    """What `facematch encoder verify` prints in full."""
    console = Console(record=True, width=160)
    assert verify(console, Settings(), photos), console.export_text()


def test_verify_says_what_is_beyond_its_limits(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceEncoder, "embed", lambda _self, chips: np.ones((len(chips), 128), np.float32))
    console = Console(record=True, width=160)
    assert not verify(console, Settings(), photos)
    assert "beyond the limit" in console.export_text()


def test_verify_leaves_out_what_is_no_photo_and_needs_faces(tmp_path: Path) -> None:
    (tmp_path / "a[red]x.jpg").write_bytes(b"no photo")
    Image.new("RGB", (60, 60)).save(tmp_path / "black.jpg")
    console = Console(record=True, width=160)
    assert not verify(console, Settings(), tmp_path)
    text = console.export_text()
    assert "left out: a[red]x.jpg: the file is no photo" in text
    assert "nothing to compare" in text
