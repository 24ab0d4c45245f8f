"""Detectors: photo → faces, by HOG or by CNN, as the face_recognition package finds them.

The HOG detector is after Dalal & Triggs (CVPR 2005), the CNN detector max-margin object detection (King 2015,
arXiv:1502.00046), the 5-point landmarks an ensemble of regression trees (Kazemi & Sullivan, CVPR 2014), all three
as dlib has them (King, "Dlib-ml", JMLR 2009); the embedding network is dlib's ResNet (He et al. 2016) of 29 layers.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.detected import DetectedFace, PhotoSize, prominent_faces
from consumers.faces.networks.cache import cached_file
from consumers.faces.networks.mmod import Detection, MmodDetector
from consumers.photos.file import UprightPhoto
from consumers.photos.rejected import RejectedError
from schemas.events.base import Detector

# HOG finds faces at least 80 pixels wide, and its time grows with the pixels. So it searches a copy whose longer side
# is the first of these, which shows the subject of most registration photos, and a larger one only if it found nobody.
HOG_LONG_SIDES = (320, 640, 1280)
# Last of all it looks at this much of a large photo, for a portrait on a card or a page: 2.5 % of the longer side.
HOG_LAST_LOOK = 3200
_HOG_FACE = 80
CNN_LONG_SIDE = 800
_AS_LARGE = 0.5**0.5  # in width: half the area of the largest, of whoever stands as near to the camera

T = TypeVar("T")


class FaceDetector(Protocol):
    """Finds faces. One detector searches one photo after the other, another one many at once."""

    kind: Detector
    provider: str
    """What it runs on: "cpu" or "cuda"."""

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """The faces in each photo that count beside the largest of it, or why it cannot be read."""
        ...


class HogDetector:
    """dlib's frontal face detector, on a greyscale copy of bounded size."""

    kind = Detector.HOG
    provider = "cpu"

    def __init__(self, cache: Path, long_sides: Sequence[int] | None = None) -> None:
        self._long_sides = long_sides or HOG_LONG_SIDES
        name = f"dlib-{dlib.__version__}-frontal-face-detector.svm"
        self._detector = dlib.fhog_object_detector(str(cached_file(cache, name, _frontal_face_detector)))

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """See FaceDetector."""
        return [or_rejection(partial(self._find, photo)) for photo in photos]

    def best_score(self, grey: NDArray[np.uint8], least: float) -> float:
        """Of what looks like a face in a picture, uint8 of shape (height, width), the best score, or `least`."""
        _, scores, _ = self._detector.run(grey, 0, least)
        return float(max(scores, default=least))

    def _find(self, photo: UprightPhoto) -> list[DetectedFace]:
        for long_side in _copy_sizes(photo.long_side, self._long_sides):
            faces = self._detect_in_copy(photo, long_side)
            if faces:
                largest = max(faces, key=lambda face: face.width)
                smallest = _AS_LARGE * largest.width
                scale = long_side / photo.long_side
                if smallest * scale < _HOG_FACE and _has_room_beside(largest, photo, smallest):
                    # a face that counts may be there, too small for this copy
                    faces = self._detect_in_copy(photo, round(photo.long_side * _HOG_FACE / smallest)) or faces
                return prominent_faces(faces, size_of(photo))
        return []

    def _detect_in_copy(self, photo: UprightPhoto, long_side: int) -> list[DetectedFace]:
        grey = Image.fromarray(photo.at_least(long_side)).convert("L")
        copy = resized(grey, long_side)
        scale = long_side / photo.long_side
        boxes, scores, _ = self._detector.run(np.asarray(copy), 0, 0.0)
        return [
            DetectedFace.in_copy(box.top(), box.right(), box.bottom(), box.left(), score, scale)
            for box, score in zip(boxes, scores, strict=True)
        ]


class CnnDetector:
    """dlib's CNN detector, on colour copies of bounded size, `batch` of one size at once."""

    kind = Detector.CNN

    def __init__(self, models: Path, cache: Path, batch: int = 1) -> None:
        self._detector = MmodDetector(models / "mmod_human_face_detector.dat", cache, batch=batch)
        self.provider = self._detector.provider

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """See FaceDetector."""
        copies = [or_rejection(partial(_copy, photo, CNN_LONG_SIDE)) for photo in photos]
        readable = [copy for copy in copies if not isinstance(copy, RejectedError)]
        detected = iter(self._detector.detect(readable))
        return [
            copy if isinstance(copy, RejectedError) else _faces_in_photo(photo, copy, next(detected))
            for photo, copy in zip(photos, copies, strict=True)
        ]


def _copy_sizes(long_side: int, long_sides: Sequence[int]) -> list[int]:
    """Longer sides of the copies that HOG searches in turn: the first at most the photo's, the others twice that.

    Where it looks at more than one, and the photo has more pixels than those show, at a last one.
    """
    first, *larger = long_sides
    last = [min(HOG_LAST_LOOK, long_side)] if larger and long_side > larger[-1] else []
    return list(dict.fromkeys([min(first, long_side), *(min(side, 2 * long_side) for side in larger), *last]))


def _has_room_beside(face: DetectedFace, photo: UprightPhoto, width: float) -> bool:
    """Whether another face of that width fits beside, above or below this one."""
    size = size_of(photo)
    return bool(max(face.left, size.width - face.right, face.top, size.height - face.bottom) >= width)


def size_of(photo: UprightPhoto) -> PhotoSize:
    """The sides of a photo, by a copy of it."""
    high, wide = photo.at_least(1).shape[:2]
    scale = photo.long_side / max(high, wide)
    return PhotoSize(high * scale, wide * scale)


def _faces_in_photo(photo: UprightPhoto, copy: NDArray[np.uint8], detections: list[Detection]) -> list[DetectedFace]:
    scale = max(copy.shape[:2]) / photo.long_side
    return prominent_faces(
        [DetectedFace.in_copy(d.box.top, d.box.right, d.box.bottom, d.box.left, d.score, scale) for d in detections],
        PhotoSize(copy.shape[0] / scale, copy.shape[1] / scale),
    )


def _frontal_face_detector() -> bytes:
    """dlib's HOG detector as a file, read in a millisecond: unpacking it from dlib's own code takes 300."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detector.svm"
        dlib.get_frontal_face_detector().save(str(file))
        return file.read_bytes()


def or_rejection(work: Callable[[], T]) -> T | RejectedError:
    """What `work` returns, or the RejectedError that it raises."""
    try:
        return work()
    except RejectedError as error:
        return error


def _copy(photo: UprightPhoto, long_side: int) -> NDArray[np.uint8]:
    """An RGB copy whose longer side is at most `long_side`, of shape (height, width, 3)."""
    pixels = photo.at_least(long_side)
    if max(pixels.shape[:2]) <= long_side:
        return pixels
    return np.asarray(resized(Image.fromarray(pixels), long_side))


def resized(image: Image.Image, long_side: int) -> Image.Image:
    """The image with a longer side of so many pixels: averaged where it becomes smaller, interpolated where larger."""
    scale = long_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
