"""Upright RGB array → faces → embedding, with the models of the face_recognition package, run by dlib.

King, "Dlib-ml: A Machine Learning Toolkit" (JMLR 2009); the HOG detector after Dalal & Triggs (CVPR 2005), the
CNN detector is max-margin object detection (King 2015, arXiv:1502.00046), the 5-point landmarks an ensemble of
regression trees (Kazemi & Sullivan, CVPR 2014), the embedding network a ResNet (He et al. 2016) of 29 layers.
"""

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import dlib
import numpy as np
from numpy.typing import NDArray

from consumers.photos import shrink
from schemas.events import Detector, FaceBox

Photo = NDArray[np.uint8]

# A face is found on a copy of at most this many pixels, and aligned and embedded on the photo itself.
# HOG: above all that the reference meets in practice, so that both see the same pixels.
# CNN: on a processor it takes 5 s and 4 GB a megapixel; there the copy is small.
HOG_PIXELS = 4_000_000
CNN_PIXELS_GPU = 4_000_000
CNN_PIXELS_CPU = 300_000


class FaceEncoder(Protocol):
    """Photo → faces → embedding. Photos are uint8 RGB arrays of shape (height, width, 3), upright."""

    id: str
    """Names weights and pipeline; embeddings of different ids are never compared."""
    detector: Detector

    def find(self, photo: Photo) -> list[FaceBox]:
        """Every face in the photo, in its pixels."""
        ...

    def embed(self, photo: Photo, face: FaceBox) -> NDArray[np.float32]:
        """The embedding of one face, of shape (128,)."""
        ...


class DlibFaceEncoder:
    """The reference pipeline: what `face_recognition.face_encodings` does with its default settings."""

    id = "dlib-resnet-v1"

    def __init__(self, detector: Detector) -> None:
        models = _models()
        self.detector = detector
        self._landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
        if detector is Detector.HOG:
            self._detect = dlib.get_frontal_face_detector()
            self._max_pixels = HOG_PIXELS
        else:
            self._detect = dlib.cnn_face_detection_model_v1(str(models / "mmod_human_face_detector.dat"))
            self._max_pixels = CNN_PIXELS_GPU if has_gpu() else CNN_PIXELS_CPU

    def find(self, photo: Photo) -> list[FaceBox]:
        """See FaceEncoder."""
        copy, factor = shrink(photo, self._max_pixels)
        upsample = 1 if self.detector is Detector.HOG or _pixels(copy) * 4 <= self._max_pixels else 0
        return [_face_box(found, factor) for found in self._detect(copy, upsample)]

    def embed(self, photo: Photo, face: FaceBox) -> NDArray[np.float32]:
        """See FaceEncoder."""
        rectangle = dlib.rectangle(face.left, face.top, face.right, face.bottom)
        landmarks = self._landmarks(photo, rectangle)
        return np.array(self._network.compute_face_descriptor(photo, landmarks), dtype=np.float32)


def has_gpu() -> bool:
    """Whether dlib was built for CUDA and finds a device. The dlib-bin wheel is built without."""
    return bool(dlib.DLIB_USE_CUDA) and dlib.cuda.get_num_devices() > 0


def largest(faces: list[FaceBox]) -> FaceBox:
    """The face with the largest box. Raises ValueError if there is none."""
    return max(faces, key=lambda face: (face.bottom - face.top) * (face.right - face.left))


def _pixels(photo: Photo) -> int:
    height, width = photo.shape[:2]
    return int(height * width)


def _face_box(found: Any, factor: float) -> FaceBox:
    """A detection in the pixels of the photo. Beyond its edges where the face is cut off, as face_encodings has it."""
    rectangle = getattr(found, "rect", found)  # the CNN detector wraps it, with a confidence
    return FaceBox(
        top=round(rectangle.top() / factor),
        right=round(rectangle.right() / factor),
        bottom=round(rectangle.bottom() / factor),
        left=round(rectangle.left() / factor),
    )


def _models() -> Path:
    """The folder of the weights, without importing face_recognition_models: it imports pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or spec.origin is None:
        raise RuntimeError("the weights are missing: pip install face_recognition_models")
    return Path(spec.origin).parent / "models"
