"""Photo → faces → embedding, with the weights of the face_recognition package.

The HOG detector is after Dalal & Triggs (CVPR 2005), the CNN detector max-margin object detection (King 2015,
arXiv:1502.00046), the 5-point landmarks an ensemble of regression trees (Kazemi & Sullivan, CVPR 2014), all three
as dlib has them (King, "Dlib-ml", JMLR 2009); the embedding network is dlib's ResNet (He et al. 2016) of 29 layers.
"""

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.models.cache import cached_file
from consumers.models.embedder import Embedder
from consumers.models.graphs import CHIP_SIDE
from consumers.models.mmod import Detection, MmodDetector
from consumers.models.weights import file_digest
from consumers.photos import PhotoFile, RejectedError
from schemas.events import Detector, FaceBox

# Raise it whenever another embedding can come out of the same photo and the same weights.
PIPELINE = 1

# HOG sees faces at least 80 pixels wide, and its time grows with the pixels. So it looks at a copy whose longer side
# is the first of these, where a registration photo's subject is seen, and at a larger one only if nobody is.
HOG_LONG_SIDES = (320, 640, 1280)
_HOG_FACE = 80
# A face counts beside the largest if it has at least half its area: whoever stands as near to the camera. One with
# less stands at 1.4 times the distance or more, behind the subject, or hangs on the wall.
COUNTS_BESIDE = 0.5**0.5  # in width
CNN_LONG_SIDE = 800

_PADDING = 0.25  # around the face, as face_recognition has it
_DETAILED = 150  # a face of this width fills the chip with its own pixels: more would be thrown away

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A detected face: its box in pixels of the photo as it was sent, upright, and the detector's score."""

    top: float
    right: float
    bottom: float
    left: float
    score: float

    @classmethod
    def in_copy(cls, top: float, right: float, bottom: float, left: float, score: float, scale: float) -> Self:
        """A face found in a copy whose sides are `scale` times the photo's."""
        return cls(top / scale, right / scale, bottom / scale, left / scale, score)

    @property
    def width(self) -> float:
        """Pixels of the photo."""
        return self.right - self.left

    @property
    def box(self) -> FaceBox:
        """Rounded to whole pixels."""
        return FaceBox(top=round(self.top), right=round(self.right), bottom=round(self.bottom), left=round(self.left))


@dataclass(frozen=True, slots=True)
class Aligned:
    """A face turned upright: a chip, uint8 RGB of shape (150, 150, 3), and landmarks (5, 2) in pixels of some copy."""

    chip: NDArray[np.uint8]
    landmarks: NDArray[np.float64]


class FaceDetector(Protocol):
    """Finds faces. One detector looks at one photo after the other, another at many at once."""

    kind: Detector
    provider: str
    """What it runs on: "cpu" or "cuda"."""

    def find(self, photos: Sequence[PhotoFile]) -> list[list[Found] | RejectedError]:
        """The faces in each photo that count beside the largest of it, or why it cannot be read."""
        ...


class HogDetector:
    """dlib's frontal face detector, on a greyscale copy of bounded size."""

    kind = Detector.HOG
    provider = "cpu"

    def __init__(self, cache: Path) -> None:
        name = f"dlib-{dlib.__version__}-frontal-face-detector.svm"
        self._detector = dlib.fhog_object_detector(str(cached_file(cache, name, _frontal_face_detector)))

    def find(self, photos: Sequence[PhotoFile]) -> list[list[Found] | RejectedError]:
        """See FaceDetector."""
        return [_or_rejection(partial(self._find, photo)) for photo in photos]

    def _find(self, photo: PhotoFile) -> list[Found]:
        for long_side in _looks(photo.long_side):
            faces = self._look(photo, long_side)
            if faces:
                largest = max(faces, key=lambda face: face.width)
                smallest = COUNTS_BESIDE * largest.width
                scale = long_side / photo.long_side
                if smallest * scale < _HOG_FACE and _room_beside(largest, photo, smallest):
                    # a face that counts may be there, too small to be seen in this copy
                    faces = self._look(photo, round(photo.long_side * _HOG_FACE / smallest)) or faces
                return those_that_count(faces)
        return []

    def _look(self, photo: PhotoFile, long_side: int) -> list[Found]:
        grey = Image.fromarray(photo.at_least(long_side)).convert("L")
        copy = resized(grey, long_side)
        scale = long_side / photo.long_side
        boxes, scores, _ = self._detector.run(np.asarray(copy), 0, 0.0)
        return [
            Found.in_copy(box.top(), box.right(), box.bottom(), box.left(), score, scale)
            for box, score in zip(boxes, scores, strict=True)
        ]


class CnnDetector:
    """dlib's CNN detector, on colour copies of bounded size, `batch` of one size at once."""

    kind = Detector.CNN

    def __init__(self, models: Path, cache: Path, batch: int = 1) -> None:
        self._detector = MmodDetector(models / "mmod_human_face_detector.dat", cache, batch=batch)
        self.provider = self._detector.provider

    def find(self, photos: Sequence[PhotoFile]) -> list[list[Found] | RejectedError]:
        """See FaceDetector."""
        copies = [_or_rejection(partial(_copy, photo, CNN_LONG_SIDE)) for photo in photos]
        readable = [copy for copy in copies if not isinstance(copy, RejectedError)]
        detected = iter(self._detector.detect(readable))
        return [
            copy if isinstance(copy, RejectedError) else _those_found(photo, copy, next(detected))
            for photo, copy in zip(photos, copies, strict=True)
        ]


class FaceEncoder:
    """Faces → embeddings: landmarks and alignment by dlib, the network by onnxruntime.

    `id` names what embeddings depend on, the weights and the version of the pipeline: those of other weights are
    never compared with these.
    """

    def __init__(self, models: Path, cache: Path) -> None:
        landmarks = models / "shape_predictor_5_face_landmarks.dat"
        network = models / "dlib_face_recognition_resnet_model_v1.dat"
        weights = hashlib.sha256("".join(file_digest(file) for file in (landmarks, network)).encode()).hexdigest()
        self.id = f"dlib-resnet-v1-{weights[:8]}.{PIPELINE}"
        self._landmarks = dlib.shape_predictor(str(landmarks))
        self._network = Embedder(network, cache)

    def align(self, photo: PhotoFile, face: Found) -> Aligned:
        """The face, cut from a copy of the photo large enough that no detail is lost.

        Raises RejectedError where the photo breaks off in a part that detection did not need.
        """
        pixels = photo.at_least(round(photo.long_side * _DETAILED / max(face.width, 1.0)))
        scale = max(pixels.shape[:2]) / photo.long_side
        box = dlib.rectangle(*(round(side * scale) for side in (face.left, face.top, face.right, face.bottom)))
        shape = self._landmarks(pixels, box)
        chip = dlib.get_face_chip(pixels, shape, CHIP_SIDE, _PADDING)
        return Aligned(chip, np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64))

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, of shape (n, 128), of aligned faces, uint8 RGB of shape (n, 150, 150, 3)."""
        return self._network.embed(chips)


def _looks(long_side: int) -> list[int]:
    """Longer sides of the copies in which HOG looks: no larger than the photo first, than twice the photo then."""
    first, *larger = HOG_LONG_SIDES
    return list(dict.fromkeys([min(first, long_side), *(min(side, 2 * long_side) for side in larger)]))


def _room_beside(face: Found, photo: PhotoFile, width: float) -> bool:
    """Whether another face of that width fits beside, above or below this one."""
    pixels = photo.at_least(1)
    high, wide = (side * photo.long_side / max(pixels.shape[:2]) for side in pixels.shape[:2])
    return bool(max(face.left, wide - face.right, face.top, high - face.bottom) >= width)


def those_that_count(faces: list[Found]) -> list[Found]:
    """The faces that have at least half the area of the largest, the largest first."""
    by_size = sorted(faces, key=lambda face: face.width, reverse=True)
    return [face for face in by_size if face.width >= COUNTS_BESIDE * by_size[0].width]


def _those_found(photo: PhotoFile, copy: NDArray[np.uint8], detections: list[Detection]) -> list[Found]:
    scale = max(copy.shape[:2]) / photo.long_side
    return those_that_count(
        [Found.in_copy(d.box.top, d.box.right, d.box.bottom, d.box.left, d.score, scale) for d in detections]
    )


def _frontal_face_detector() -> bytes:
    """dlib's HOG detector as a file, read in a millisecond: unpacking it from dlib's own code takes 300."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "detector.svm"
        dlib.get_frontal_face_detector().save(str(file))
        return file.read_bytes()


def _or_rejection(work: Callable[[], T]) -> T | RejectedError:
    try:
        return work()
    except RejectedError as error:
        return error


def models_folder() -> Path:
    """The folder of the weights, without importing face_recognition_models: it imports pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise RuntimeError("the weights are missing: pip install face_recognition_models")
    return Path(spec.origin).parent / "models"


def _copy(photo: PhotoFile, long_side: int) -> NDArray[np.uint8]:
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
