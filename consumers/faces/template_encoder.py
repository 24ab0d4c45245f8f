"""Encoders that align a face by a template of five points: `sface`, and those that somebody added."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.aligning import similarity, warped
from consumers.faces.detected import DetectedFace
from consumers.faces.detectors import resized
from consumers.faces.encoder import AlignedFace
from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.onnx_files import build_embedder
from consumers.faces.networks.onnx_network import OnnxNetwork
from consumers.faces.networks.yunet import Yunet
from consumers.faces.yunet_detector import faces_in
from consumers.photos.file import UprightPhoto
from consumers.photos.rejected import RejectedError
from schemas.encoders.manifest import EncoderManifest
from schemas.events.encodings import RejectionReason

_SEEN_WELL = 40  # pixels of a face in the copy that was searched: below, its landmarks are looked for again, nearer
_NEAR = 160  # pixels of a face that is looked at again
_AROUND = 0.6  # of the face's width, on each side
_LEAST_SCORE = 0.3  # of landmarks in a face that another detector has found
_DETAILED = 2  # times the chip's own pixels: more would be thrown away


class TemplateEncoder:
    """Faces → embeddings: five landmarks by YuNet, a similarity transform to the template, a network by onnxruntime."""

    def __init__(self, manifest: EncoderManifest, weights: Path, landmarks: Yunet, cache: Path) -> None:
        """`weights`: the file of the network. Raises WeightsError, NetworkError and CacheError."""
        if manifest.alignment.template is None:
            raise ValueError(f"{manifest.name} has no template")
        self.id = manifest.id
        self._manifest, self._landmarks = manifest, landmarks
        self._side = manifest.alignment.side
        self._template = np.array(manifest.alignment.template, dtype=np.float64)
        self._network = OnnxNetwork(cached_graph(cache, weights, build_embedder), manifest)

    def align(self, photo: UprightPhoto, face: DetectedFace) -> AlignedFace:
        """See Encoder. Raises RejectedError where the five landmarks cannot be found, too."""
        long_side = photo.long_side
        if not face.landmarks or face.width * min(1.0, 320 / long_side) < _SEEN_WELL:
            face = self._seen_nearer(photo, face)
        wanted = _DETAILED * self._side / max(face.width, 1.0)
        pixels = photo.at_least(round(long_side * min(1.0, wanted)))
        scale = max(pixels.shape[:2]) / long_side
        smaller = int(max(1, scale // wanted))
        if smaller > 1:  # averaged: a transform alone would take single pixels
            pixels = np.asarray(Image.fromarray(pixels).reduce(smaller))
            scale = scale / smaller
        points = np.array(face.landmarks, dtype=np.float64) * scale
        chip = warped(pixels, similarity(points, self._template), self._side)
        return AlignedFace(chip, points[:2], points[2])

    def _seen_nearer(self, photo: UprightPhoto, face: DetectedFace) -> DetectedFace:
        """The face with landmarks from a copy in which it is as large as YuNet sees best."""
        scale = min(1.0, _NEAR / max(face.width, 1.0))
        pixels = photo.at_least(round(photo.long_side * scale))
        scale = max(pixels.shape[:2]) / photo.long_side
        margin = _AROUND * face.width
        left, top = (max(0, round((edge - margin) * scale)) for edge in (face.left, face.top))
        right, bottom = (round((edge + margin) * scale) for edge in (face.right, face.bottom))
        part = pixels[top:bottom, left:right]
        enlarged = _NEAR / max(face.width * scale, 1.0)
        found: list[DetectedFace] = []
        if part.size:
            near = resized(Image.fromarray(part), max(1, round(max(part.shape[:2]) * enlarged)))
            found = faces_in(self._landmarks, np.asarray(near), enlarged * scale, _LEAST_SCORE)
        if not found:
            if face.landmarks:
                return face
            raise RejectedError(
                RejectionReason.FACE_UNCERTAIN,
                "a face was found, and not where its eyes, nose and mouth are: take the photo again from the front, in "
                "good light",
            )
        nearest = max(found, key=lambda one: one.width)
        shift = np.array([left, top]) / scale
        landmarks = tuple((x + float(shift[0]), y + float(shift[1])) for x, y in nearest.landmarks)
        return DetectedFace(face.top, face.right, face.bottom, face.left, face.score, landmarks)

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Encoder. Raises ValueError on chips of another shape or dtype, and where the network gives NaN."""
        side = self._side
        if chips.dtype != np.uint8 or chips.shape[1:] != (side, side, 3):
            raise ValueError(f"chips are uint8 of shape (N, {side}, {side}, 3), not {chips.dtype} of {chips.shape}")
        embeddings = self._network.embed(chips)
        if not np.isfinite(embeddings).all():
            raise ValueError(f"the network of {self._manifest.name} gives numbers that are not finite")
        return embeddings
