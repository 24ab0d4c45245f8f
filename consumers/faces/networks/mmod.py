"""Photos → faces: dlib's CNN detector, run by onnxruntime.

Max-margin object detection (King 2015, arXiv:1502.00046): a network scores every place of an image pyramid, a place
with a positive score is a window of fixed size, and of windows that overlap the best stays.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.faces.networks import pyramid
from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.graphs import MEAN, MMOD_CENTRE, MMOD_MIN_SIDE, MMOD_STRIDE, build_mmod
from consumers.faces.networks.sessions import Session
from consumers.faces.networks.weights import read_suppression
from schemas.events.encodings import FaceBox

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """A face: its box in the photo, edges included, and a score, positive and without unit."""

    box: FaceBox
    score: float


class MmodDetector:
    """The CNN detector: finds what `dlib.cnn_face_detection_model_v1` does."""

    provider: str
    """What runs the network: "cuda" or "cpu"."""

    def __init__(self, weights: Path, cache: Path, threads: int = 1, batch: int = 1) -> None:
        """Opens mmod_human_face_detector.dat; `cache` is the folder of built graphs.

        `batch`: how many photos of one size run at once. A GPU wants several; on a processor it is no faster, and
        each takes 150 bytes a pixel while it runs.
        Raises WeightsError and CacheError.
        """
        self._suppression = read_suppression(weights)
        self._session = Session(cached_graph(cache, weights, build_mmod), threads)
        self.provider = self._session.provider
        self._batch = batch

    def detect(self, photos: Sequence[Photo], upsample: int = 0) -> list[list[Detection]]:
        """The faces of each photo, the best first. Photos are uint8 RGB of shape (height, width, 3), of any sizes.

        The smallest face found is 80 pixels wide; each of the `upsample` times that the photo is doubled first
        halves that, and takes four times as long. Raises ValueError on another shape or dtype.
        """
        of_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, photo in enumerate(photos):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
                raise ValueError(f"a photo is uint8 of shape (height, width, 3), not {photo.dtype} of {photo.shape}")
            of_size[photo.shape].append(index)
        found: list[list[Detection]] = [[] for _ in photos]
        for indices in of_size.values():
            for start in range(0, len(indices), self._batch):
                some = indices[start : start + self._batch]
                for index, detections in zip(some, self._detect([photos[i] for i in some], upsample), strict=True):
                    found[index] = detections
        return found

    def _detect(self, photos: Sequence[Photo], upsample: int) -> list[list[Detection]]:
        """The faces of photos of one size."""
        for _ in range(upsample):
            photos = [pyramid.upsample(photo) for photo in photos]
        places = pyramid.layout(*photos[0].shape[:2])
        if min(places.height, places.width) < MMOD_MIN_SIDE:
            return [[] for _ in photos]
        scores = self._session.run(pyramid.tile(photos, MEAN, places))
        return [self._detections(each[0], places, upsample) for each in scores]

    def _detections(self, scores: NDArray[np.float32], places: pyramid.Layout, upsample: int) -> list[Detection]:
        boxes, confidences = candidates(scores, self._suppression.window)
        boxes = rounded(pyramid.to_photo(boxes, places.levels))
        kept = suppress(boxes, self._suppression.overlap)
        boxes = rounded(pyramid.before_upsampling(boxes[kept], upsample))
        return [
            Detection(FaceBox(left=int(left), top=int(top), right=int(right), bottom=int(bottom)), float(score))
            for (left, top, right, bottom), score in zip(boxes, confidences[kept], strict=True)
        ]


def candidates(scores: NDArray[np.float32], window: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The windows of positive score in a score map, float32 (rows, columns), the best first.

    Returns boxes, float64 (N, 4): left, top, right, bottom in pixels of the network's input, and scores, (N,).
    """
    rows, columns = np.nonzero(scores > 0)
    confidences = scores[rows, columns]
    order = np.argsort(-confidences, kind="stable")
    centres = np.stack([columns, rows], axis=1)[order] * float(MMOD_STRIDE) + MMOD_CENTRE
    half = (window - 1) / 2
    return np.concatenate([centres - half, centres + half], axis=1), confidences[order]


def rounded(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """To whole pixels, halves away from zero, as dlib makes a rectangle of a drectangle."""
    return np.trunc(boxes + np.copysign(0.5, boxes))


def suppress(boxes: NDArray[np.float64], overlap: float) -> list[int]:
    """Non-max suppression: the boxes, of (N, 4) with the best first, that no better one stands for.

    A box stands for another where their intersection is more than `overlap` of the smallest box around both; edges
    are included, in whole pixels. That is dlib's test_box_overlap, not intersection over union.
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    assert (sizes > 0).all()
    open_ = np.ones(len(boxes), dtype=bool)
    kept = []
    for index in range(len(boxes)):
        if not open_[index]:
            continue
        kept.append(index)
        inner_low, inner_high = np.maximum(boxes[index, :2], boxes[:, :2]), np.minimum(boxes[index, 2:], boxes[:, 2:])
        outer_low, outer_high = np.minimum(boxes[index, :2], boxes[:, :2]), np.maximum(boxes[index, 2:], boxes[:, 2:])
        inner = np.maximum(inner_high - inner_low + 1, 0).prod(axis=1)
        outer = (outer_high - outer_low + 1).prod(axis=1)
        open_ &= inner <= overlap * outer
    return kept
