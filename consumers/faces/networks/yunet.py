"""YuNet: photos → faces with five landmarks (Wu et al., "YuNet: A tiny millisecond-level face detector", 2023).

What the network gives is decoded, and overlapping boxes are suppressed, as OpenCV's FaceDetectorYN does.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.onnx_files import YUNET_STRIDES, build_yunet
from consumers.faces.networks.sessions import Session

_SIDE = 32  # the photo's sides are filled up to a multiple of it, at the right and at the bottom
_OVERLAP = 0.3  # of two boxes, intersection over union: the lower score is the same face
_MOST = 5000  # boxes that are looked at, the best


class YunetFaces(NamedTuple):
    """Faces in a photo, the best first: boxes (n, 4) as left, top, width, height; landmarks (n, 5, 2); scores (n,).

    Landmarks as (x, y): the eyes, the tip of the nose, the corners of the mouth, the left of the picture first.
    All in pixels of the photo.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


class Yunet:
    """Finds faces of 10 to 300 pixels."""

    provider: str
    """What runs the network: "cuda" or "cpu"."""

    def __init__(self, weights: Path, cache: Path, threads: int = 1) -> None:
        """Opens face_detection_yunet_2023mar.onnx; `cache` is the folder of built graphs.

        Raises WeightsError and CacheError.
        """
        self._session = Session(cached_graph(cache, weights, build_yunet), threads)
        self.provider = self._session.provider

    def find(self, pixels: NDArray[np.uint8], least_score: float) -> YunetFaces:
        """Faces with at least that score, in RGB pixels of shape (height, width, 3)."""
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % _SIDE), (0, -width % _SIDE), (0, 0)))
        (cells,) = self._session.run(padded[np.newaxis])
        return _suppressed(_decoded(cells, padded.shape[0], padded.shape[1], least_score))


def _decoded(cells: NDArray[np.float32], height: int, width: int, least_score: float) -> YunetFaces:
    """The faces that cells (n, 16) see in a photo of those sides, in the order of the cells."""
    grids = []
    for stride in YUNET_STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
        grids.append(np.column_stack([columns, rows, np.full(rows.size, stride)]))
    grid = np.concatenate(grids).astype(np.float32)
    scores = np.sqrt(np.clip(cells[:, 0], 0, 1) * np.clip(cells[:, 1], 0, 1))
    seen = scores >= least_score
    cells, place, stride_of, scores = cells[seen], grid[seen, :2], grid[seen, 2:], scores[seen]
    sizes = np.exp(cells[:, 4:6]) * stride_of
    corners = (place + cells[:, 2:4]) * stride_of - sizes / 2
    landmarks = (cells[:, 6:].reshape(-1, 5, 2) + place[:, np.newaxis]) * stride_of[:, np.newaxis]
    return YunetFaces(np.concatenate([corners, sizes], axis=1), landmarks, scores)


def _suppressed(faces: YunetFaces) -> YunetFaces:
    """Of boxes that overlap the best alone, the best first."""
    order = np.argsort(-faces.scores, kind="stable")[:_MOST]
    kept: list[int] = []
    left, top, width, height = faces.boxes.T
    right, bottom, area = left + width, top + height, width * height
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        across = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        down = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        common = np.maximum(across, 0) * np.maximum(down, 0)
        order = rest[common <= _OVERLAP * (area[best] + area[rest] - common)]
    return YunetFaces(*(part[kept] for part in faces))
