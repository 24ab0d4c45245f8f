"""The CPU pool's detector of encoders that align by a template: photo → faces with landmarks, by YuNet."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.detected import DetectedFace, prominent_faces
from consumers.faces.detectors import or_rejection, resized, size_of
from consumers.faces.networks.yunet import Yunet
from consumers.photos.file import UprightPhoto
from consumers.photos.rejected import RejectedError
from schemas.events.base import Detector

# Longer sides of the copies that are searched in turn, until one shows a face: of a portrait that fills the photo the
# first is enough, of one that is a twentieth of its width the last.
LONG_SIDES = (320, 640, 1280)
LEAST_SCORE = 0.6


class YunetDetector:
    """YuNet on copies of bounded size, a larger one only where the smaller shows nobody."""

    kind = Detector.YUNET

    def __init__(self, network: Yunet, long_sides: Sequence[int] = LONG_SIDES) -> None:
        self._network, self._long_sides = network, long_sides
        self.provider = network.provider

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """See FaceDetector."""
        return [or_rejection(partial(self._find, photo)) for photo in photos]

    def _find(self, photo: UprightPhoto) -> list[DetectedFace]:
        for long_side in dict.fromkeys(min(side, photo.long_side) for side in self._long_sides):
            copy = copied(photo, long_side)
            faces = faces_in(self._network, copy, max(copy.shape[:2]) / photo.long_side)
            if faces:
                return prominent_faces(faces, size_of(photo))
        return []


def copied(photo: UprightPhoto, long_side: int) -> NDArray[np.uint8]:
    """A copy, RGB of shape (height, width, 3), whose longer side has so many pixels, or those of the photo."""
    pixels = photo.at_least(long_side)
    if max(pixels.shape[:2]) <= long_side:
        return pixels
    return np.asarray(resized(Image.fromarray(pixels), long_side))


def faces_in(
    network: Yunet, copy: NDArray[np.uint8], scale: float, least_score: float = LEAST_SCORE
) -> list[DetectedFace]:
    """The faces in a copy whose sides are `scale` times the photo's, in pixels of the photo."""
    found = network.find(copy, least_score)
    return [
        DetectedFace(
            top=float(top) / scale,
            right=float(left + width) / scale,
            bottom=float(top + height) / scale,
            left=float(left) / scale,
            score=float(score),
            landmarks=tuple((float(x) / scale, float(y) / scale) for x, y in points),
        )
        for (left, top, width, height), points, score in zip(*found, strict=True)
    ]
