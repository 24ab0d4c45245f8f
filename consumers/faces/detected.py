"""Faces that a detector found, and which of several count."""

from dataclasses import dataclass
from typing import Self

from schemas.events.encodings import FaceBox

# A face counts beside the largest if it has at least half its area: whoever stands as near to the camera. One with
# less stands at 1.4 times the distance or more, behind the subject, or hangs on the wall.
PROMINENT_WIDTH = 0.5**0.5  # in width


@dataclass(frozen=True, slots=True)
class DetectedFace:
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


def prominent_faces(faces: list[DetectedFace]) -> list[DetectedFace]:
    """The faces that have at least half the area of the largest, the largest first."""
    by_size = sorted(faces, key=lambda face: face.width, reverse=True)
    return [face for face in by_size if face.width >= PROMINENT_WIDTH * by_size[0].width]
