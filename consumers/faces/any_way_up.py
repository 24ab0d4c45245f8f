"""Photos that lie on their side: a face that is not sure upright is looked for in all four orientations."""

from collections.abc import Sequence
from dataclasses import replace

from consumers.faces.detected import DetectedFace
from consumers.faces.detectors import FaceDetector
from consumers.photos.file import TurnedPhoto, UprightPhoto
from consumers.photos.rejected import RejectedError

_TURNS = (1, 2, 3)  # quarters


class AnyWayUp:
    """A detector that turns a photo in which it sees nobody, or nobody for sure: the best score wins.

    Whoever sends a photo on its side, by mistake or in order to be registered twice, is found as upright.
    """

    def __init__(self, upright: FaceDetector, turned: FaceDetector, sure: float, better: float) -> None:
        """`turned` looks at the turned copies. A face upright with a score of `sure` ends the search.

        One that is turned must have a score `better` than that upright.
        """
        self._upright, self._turned, self._sure, self._better = upright, turned, sure, better
        self.kind, self.provider = upright.kind, upright.provider

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """See FaceDetector."""
        found = self._upright.find(photos)
        unsure = [
            place
            for place, faces in enumerate(found)
            if not isinstance(faces, RejectedError) and _best(faces) < self._sure
        ]
        views = [(place, turns) for place in unsure for turns in _TURNS]
        seen = self._turned.find([TurnedPhoto(photos[place], turns) for place, turns in views]) if views else []
        best = {place: self._better + _best(found[place]) for place in unsure}
        for (place, turns), faces in zip(views, seen, strict=True):
            if not isinstance(faces, RejectedError) and _best(faces) > best[place]:
                best[place] = _best(faces)
                found[place] = [replace(face, turns=turns) for face in faces]
        return found


def _best(faces: list[DetectedFace] | RejectedError) -> float:
    return 0.0 if isinstance(faces, RejectedError) else max((face.score for face in faces), default=0.0)
