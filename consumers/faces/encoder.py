"""The encoder of the package face_recognition: a photo's face, aligned on dlib's landmarks, as 128 numbers."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dlib
import numpy as np
from numpy.typing import NDArray

from consumers.faces.detected import DetectedFace
from consumers.faces.networks.embedder import Embedder
from consumers.faces.networks.graphs import CHIP_SIDE
from consumers.faces.networks.weights import file_digest
from consumers.photos.file import UprightPhoto

# Raise it whenever other embeddings come out of the same photos and weights: golden ones tell (tests/golden.py).
PIPELINE = 1

_PADDING = 0.25  # around the face, as face_recognition has it
_DETAILED = 150  # a face of this width fills the chip with its own pixels: more would be thrown away


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """A face turned upright, as a network takes it: a chip, uint8 RGB of shape (side, side, 3).

    `eyes`, (2, 2), are the centres of both, and `nose`, (2,), the base or the tip of it, in pixels of some copy.
    """

    chip: NDArray[np.uint8]
    eyes: NDArray[np.float64]
    nose: NDArray[np.float64]


class Encoder(Protocol):
    """Photo and face → chip → embedding. `id` names what embeddings depend on: those of two ids are never compared."""

    id: str

    def align(self, photo: UprightPhoto, face: DetectedFace) -> AlignedFace:
        """The face, cut from a copy of the photo large enough that no detail is lost. Raises RejectedError."""
        ...

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, of shape (n, dimensions), of aligned faces, uint8 RGB of shape (n, side, side, 3)."""
        ...


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

    def align(self, photo: UprightPhoto, face: DetectedFace) -> AlignedFace:
        """The face, cut from a copy of the photo large enough that no detail is lost.

        Raises RejectedError where the photo breaks off in a part that detection did not need.
        """
        pixels = photo.at_least(round(photo.long_side * _DETAILED / max(face.width, 1.0)))
        scale = max(pixels.shape[:2]) / photo.long_side
        box = dlib.rectangle(*(round(side * scale) for side in (face.left, face.top, face.right, face.bottom)))
        shape = self._landmarks(pixels, box)
        chip = dlib.get_face_chip(pixels, shape, CHIP_SIDE, _PADDING)
        points = np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float64)
        corners, nose = points[:4], points[4]
        return AlignedFace(chip, corners.reshape(2, 2, 2).mean(axis=1), nose)

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings, of shape (n, 128), of aligned faces, uint8 RGB of shape (n, 150, 150, 3)."""
        return self._network.embed(chips)


def models_folder() -> Path:
    """The folder of the weights, without importing face_recognition_models: it imports pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise RuntimeError("the weights are missing: pip install face_recognition_models")
    return Path(spec.origin).parent / "models"
