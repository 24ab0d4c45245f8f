"""`facematch encoder verify --encoder sface`: YuNet, alignment and SFace against OpenCV's, on photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.faces.aligning import similarity, warped
from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.onnx_files import build_embedder
from consumers.faces.networks.onnx_network import OnnxNetwork
from consumers.faces.networks.stored import weights_path
from consumers.faces.networks.yunet import Yunet
from consumers.faces.yunet_detector import copied
from consumers.photos.file import PhotoFile
from consumers.photos.rejected import RejectedError
from producers.submit.entries import photos_in
from schemas.encoders.manifest import EncoderManifest, WeightsRole
from schemas.settings import Settings

# What the encoder must keep to. OpenCV places a chip's pixels to 1/32 of one, which tells where the face is cut off.
LARGEST_SHIFT = 0.1  # of a landmark, in pixels
MEDIAN_DISTANCE = 0.05  # between the two embeddings of one face, of length 1
LARGEST_DISTANCE = 0.25
_LONG_SIDE = 640  # of the copy that both are given
_LEAST_SCORE = 0.6
_OVERLAP, _MOST = 0.3, 5000  # FaceDetectorYN's own


@dataclass(frozen=True, slots=True)
class ComparedFace:
    """One photo: how many faces each found; of the best, how far landmarks and embeddings are apart, None without."""

    path: Path
    faces: tuple[int, int]
    shift: float | None = None
    distance: float | None = None

    @property
    def is_good(self) -> bool:
        """Whether it keeps to the limits."""
        same = self.faces[0] == self.faces[1]
        return same and (self.shift or 0) <= LARGEST_SHIFT and (self.distance or 0) <= LARGEST_DISTANCE


class OpenCvComparison:
    """Both, loaded. Raises ModuleNotFoundError without OpenCV, and WeightsError."""

    def __init__(self, settings: Settings, manifest: EncoderManifest) -> None:
        import cv2

        network, landmarks = (
            weights_path(settings, manifest, manifest.weights_for(role))
            for role in (WeightsRole.NETWORK, WeightsRole.LANDMARKS)
        )
        side = (_LONG_SIDE, _LONG_SIDE)
        self._detector: Any = cv2.FaceDetectorYN.create(str(landmarks), "", side, _LEAST_SCORE, _OVERLAP, _MOST)
        self._recognizer: Any = cv2.FaceRecognizerSF.create(str(network), "")
        self._yunet = Yunet(landmarks, settings.model_cache)
        graph = cached_graph(settings.model_cache, network, build_embedder)
        self._network = OnnxNetwork(graph, manifest)
        self._template = np.array(manifest.alignment.template, dtype=np.float64)
        self._side, self._max_pixels = manifest.alignment.side, settings.max_photo_pixels

    def compare(self, path: Path) -> ComparedFace:
        """A photo, upright, in one copy through both. Raises RejectedError."""
        pixels = copied(PhotoFile(path.read_bytes(), self._max_pixels), _LONG_SIDE)
        blue_first = np.ascontiguousarray(pixels[..., ::-1])
        self._detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        reference = self._detector.detect(blue_first)[1]
        reference = np.empty((0, 15), np.float32) if reference is None else reference
        ours = self._yunet.find(pixels, _LEAST_SCORE)
        faces = len(reference), len(ours.scores)
        if not all(faces):
            return ComparedFace(path, faces)
        shift = float(np.abs(reference[0, 4:14].reshape(5, 2) - ours.landmarks[0]).max())
        theirs = self._recognizer.feature(self._recognizer.alignCrop(blue_first, reference[0]))[0]
        return ComparedFace(path, faces, shift, _apart(theirs, self._embedding(pixels, ours.landmarks[0])))

    def _embedding(self, pixels: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
        chip = warped(pixels, similarity(landmarks.astype(np.float64), self._template), self._side)
        (embedding,) = self._network.embed(chip[np.newaxis])
        return np.asarray(embedding)


def _apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The Euclidean distance of two embeddings, each divided by its length."""
    return float(np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other)))


def verify_by_opencv(console: Console, settings: Settings, manifest: EncoderManifest, folder: Path) -> bool:
    """Compare and print. Returns whether the encoder keeps to its limits in every photo, and both found anybody."""
    comparison = OpenCvComparison(settings, manifest)
    compared: list[ComparedFace] = []
    for path in photos_in(folder):
        try:
            compared.append(comparison.compare(path))
        except RejectedError as error:
            console.print(f"left out: {path.relative_to(folder)}: {error}", markup=False, highlight=False)
    _print_faces(console, folder, compared)
    distances = [one.distance for one in compared if one.distance is not None]
    if not distances:
        console.print("no photo in which both found a face: nothing to compare")
        return False
    median, largest = float(np.median(distances)), max(distances)
    shift = max(one.shift or 0.0 for one in compared)
    console.print(f"landmarks, farthest: {shift:.4f} pixels (at most {LARGEST_SHIFT})", highlight=False)
    console.print(f"embeddings, median: {median:.4f} (at most {MEDIAN_DISTANCE})", highlight=False)
    console.print(f"embeddings, farthest: {largest:.4f} (at most {LARGEST_DISTANCE})", highlight=False)
    return median <= MEDIAN_DISTANCE and all(one.is_good for one in compared)


def _print_faces(console: Console, folder: Path, compared: list[ComparedFace]) -> None:
    columns = ("photo", "faces by OpenCV", "here", "landmarks", "distance", "")
    table = Table(*columns, title="one photo, both", title_justify="left")
    table.columns[0].overflow = "fold"
    for one in compared:
        apart = ("-" if value is None else f"{value:.4f}" for value in (one.shift, one.distance))
        name, word = escape(str(one.path.relative_to(folder))), "" if one.is_good else "[bold red]beyond[/]"
        table.add_row(name, *(str(count) for count in one.faces), *apart, word)
    console.print(table)
