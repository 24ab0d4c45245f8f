"""Faces that a detector found, and which of several count."""

import math
from dataclasses import dataclass
from typing import Self

from schemas.events.encodings import FaceBox

# A face counts beside the first if it has at least so much of its weight: whoever stands as near to the camera, and as
# much in the middle. One with less stands behind the subject, at the edge, or hangs on the wall.
PROMINENT = 0.6
_LEAST_CERTAINTY = 0.05
_OFF_CENTRE = 0.7  # of its weight, a face in a corner of the photo loses
# Of a face that hangs out of the photo so much must be seen, or the detector be sure: it is nobody else.
_SEEN, _SURE_THOUGH_CUT = 0.75, 0.8


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A detected face: its box in pixels of the photo, upright, and the detector's score.

    `landmarks`, (x, y) of each: both eyes, the tip of the nose, both corners of the mouth, those first that are on the
    left of the picture. Empty where the detector sees none. `turns`: by how many quarters, against the clock, the photo
    had to be turned to show it upright; all places are those of the photo so turned.
    """

    top: float
    right: float
    bottom: float
    left: float
    score: float
    landmarks: tuple[tuple[float, float], ...] = ()
    turns: int = 0

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
class PhotoSize:
    """The sides of a photo, upright, in pixels."""

    height: float
    width: float


def prominent_faces(faces: list[DetectedFace], size: PhotoSize) -> list[DetectedFace]:
    """The faces that count, the subject's first: those with at least PROMINENT of its weight.

    The weight is the width that is seen, times how sure the detector is, less with the distance from the middle. A face
    that the edge cuts off and the detector is not sure of is nobody.
    """
    weights = {id(face): _weight(face, size) for face in faces if not _is_a_scrap(face, size)}
    by_weight = sorted(
        (face for face in faces if id(face) in weights), key=lambda face: weights[id(face)], reverse=True
    )
    return [face for face in by_weight if weights[id(face)] >= PROMINENT * weights[id(by_weight[0])]]


def _seen(face: DetectedFace, size: PhotoSize) -> tuple[float, float]:
    """The width and the height of what the photo has of a face."""
    wide = min(face.right, size.width) - max(face.left, 0.0)
    high = min(face.bottom, size.height) - max(face.top, 0.0)
    return max(wide, 0.0), max(high, 0.0)


def _is_a_scrap(face: DetectedFace, size: PhotoSize) -> bool:
    wide, high = _seen(face, size)
    area = face.width * max(face.bottom - face.top, 1e-9)
    return face.score < _SURE_THOUGH_CUT and wide * high < _SEEN * area


def _weight(face: DetectedFace, size: PhotoSize) -> float:
    wide, high = _seen(face, size)
    across = (face.left + face.right - size.width) / size.width
    down = (face.top + face.bottom - size.height) / size.height
    off_centre = min(1.0, math.hypot(across, down) / math.sqrt(2))
    certainty = min(1.0, max(face.score, _LEAST_CERTAINTY))
    return min(wide, high) * certainty * (1 - _OFF_CENTRE * off_centre)
