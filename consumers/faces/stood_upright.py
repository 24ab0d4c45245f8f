"""Which way up a face stands that the CNN found, by dlib's HOG detector."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from consumers.faces.detected import DetectedFace
from consumers.faces.detectors import FaceDetector, HogDetector, or_rejection, size_of
from consumers.photos.file import TurnedPhoto, UprightPhoto
from consumers.photos.rejected import RejectedError

_CROP_SIDE = 200  # pixels, with a margin around the face of half its width: it is 100 wide there
_MARGIN = 0.5
_FAINT = -1.0  # scores from here on are seen
# A face lies on its side or head only where HOG sees one there, and is surer of it by so much than as the photo is. Of
# 104 upright faces none is turned by that, and of as many with a mask two; without a mask all that lie are stood up.
_TURNED_SCORE = 0.1
_SURER_BY = 0.6


class StoodUpright:
    """A detector that finds faces however they lie, and is as sure of those: HOG tells which way up they stand."""

    def __init__(self, detector: FaceDetector, cache: Path) -> None:
        self._detector, self._hog = detector, HogDetector(cache)
        self.kind, self.provider = detector.kind, detector.provider

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        """See FaceDetector."""
        found = self._detector.find(photos)
        return [
            faces if isinstance(faces, RejectedError) else or_rejection(partial(self._stood_all, photo, faces))
            for photo, faces in zip(photos, found, strict=True)
        ]

    def _stood_all(self, photo: UprightPhoto, faces: list[DetectedFace]) -> list[DetectedFace]:
        return [self._stood_upright(photo, face) for face in faces]

    def _stood_upright(self, photo: UprightPhoto, face: DetectedFace) -> DetectedFace:
        seen = TurnedPhoto(photo, face.turns) if face.turns else photo
        crop = _crop(seen, face)
        scores = [self._hog.best_score(np.rot90(crop, turn).copy(), _FAINT) for turn in range(4)]
        turn = int(np.argmax(scores))
        if scores[turn] < _TURNED_SCORE or scores[turn] - scores[0] < _SURER_BY:
            return face
        size = size_of(seen)
        box, wide, high = (face.top, face.right, face.bottom, face.left), size.width, size.height
        for _ in range(turn):
            top, right, bottom, left = box
            box, wide, high = (wide - right, bottom, wide - left, top), high, wide
        top, right, bottom, left = box
        turns = (face.turns + turn) % 4
        return replace(face, top=top, right=right, bottom=bottom, left=left, landmarks=(), turns=turns)


def _crop(photo: UprightPhoto, face: DetectedFace) -> np.ndarray[Any, Any]:
    """The face with what is around it, black beyond the photo's edge, uint8 grey of shape (200, 200)."""
    pixels = photo.at_least(round(photo.long_side * _CROP_SIDE / max((1 + 2 * _MARGIN) * face.width, 1.0)))
    scale = max(pixels.shape[:2]) / photo.long_side
    margin = _MARGIN * face.width
    sides = (face.left - margin, face.top - margin, face.right + margin, face.bottom + margin)
    left, top, right, bottom = (round(side * scale) for side in sides)
    cut = Image.fromarray(pixels).crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    return np.asarray(cut.convert("L").resize((_CROP_SIDE, _CROP_SIDE)))
