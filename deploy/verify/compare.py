"""`facematch encoder verify`: this encoder against the face_recognition package, on photos."""

import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.faces.detected import DetectedFace
from consumers.faces.detectors import CnnDetector, HogDetector
from consumers.faces.encoder import FaceEncoder, models_folder
from consumers.photos.file import PhotoFile
from consumers.photos.rejected import RejectedError
from deploy.verify.identities import Identities
from producers.submit.entries import photos_in
from schemas.encoders.known import shipped
from schemas.settings import Settings
from schemas.thresholds import Thresholds

# What the encoder must keep to.
MEDIAN_DISTANCE = 0.10  # between the two embeddings of one face
LARGEST_DISTANCE = 0.25
NEAR_THRESHOLD = 0.10  # a pair may change sides only if the reference itself has it this near the threshold
FALSE_MATCH_RATE = 1e-3
BELOW_REFERENCE = 0.01  # of a few hundred pairs the rate has a standard error of nearly that
SAME_FACE = 0.3  # intersection over union of the two boxes

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """One photo: how many faces each found, and the embeddings of the largest, None where there is none."""

    path: Path
    pixels: int
    faces: tuple[int, int]
    detector: str
    reference: Vector | None
    ours: Vector | None

    @property
    def distance(self) -> float | None:
        """Between the two embeddings."""
        if self.reference is None or self.ours is None:
            return None
        return float(np.linalg.norm(self.reference - self.ours))


def _overlap(face: DetectedFace, box: tuple[int, int, int, int]) -> float:
    """Intersection over union with a box (top, right, bottom, left)."""
    top, right, bottom, left = box
    high = min(face.bottom, bottom) - max(face.top, top)
    wide = min(face.right, right) - max(face.left, left)
    both = max(0.0, high) * max(0.0, wide)
    return both / ((bottom - top) * (right - left) + (face.bottom - face.top) * face.width - both)


class Comparison:
    """Both encoders, loaded. Raises ModuleNotFoundError without the face_recognition package."""

    def __init__(self, settings: Settings) -> None:
        self._reference = _face_recognition()
        models, cache = models_folder(), settings.model_cache
        self._detectors = (HogDetector(cache), CnnDetector(models, cache))
        self._encoder = FaceEncoder(models, cache)
        self._max_pixels = settings.max_photo_pixels

    def compare(self, path: Path) -> Compared:
        """A photo, upright, through both; the reference as its users call it. Raises RejectedError."""
        photo = PhotoFile(path.read_bytes(), self._max_pixels)
        detector, faces = self._find(photo)
        pixels = photo.at_least(photo.long_side)
        boxes = self._reference.face_locations(pixels)
        reference = ours = None
        if boxes:
            largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[1] - box[3]))
            (reference,) = self._reference.face_encodings(pixels, [largest])
            same = [face for face in faces if _overlap(face, largest) > SAME_FACE]
            if same:
                ours = self._encoder.embed(self._encoder.align(photo, same[0]).chip[None])[0].astype(np.float64)
        size = pixels.shape[0] * pixels.shape[1]
        return Compared(path, size, (len(boxes), len(faces)), detector, reference, ours)

    def _find(self, photo: PhotoFile) -> tuple[str, list[DetectedFace]]:
        for detector in self._detectors:
            (faces,) = detector.find([photo])
            if isinstance(faces, RejectedError):
                raise faces
            if faces:
                return detector.kind.value, faces
        return "", []


def _face_recognition() -> Any:
    from PIL import ImageFile

    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about its own use of pkg_resources
        import face_recognition

    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing face_recognition sets it, for the whole process
    return face_recognition


def true_match_rate(distances: Vector, same: list[bool | None]) -> float:
    """The share of same-person pairs below the largest threshold at which at most 1 in 1000 others is matched."""
    others = np.sort(distances[[one is False for one in same]])
    threshold = others[int(FALSE_MATCH_RATE * len(others))]
    return float((distances[[one is True for one in same]] < threshold).mean())


def pair_distances(embeddings: list[Vector]) -> Vector:
    """Distances of all pairs, in the order of itertools.combinations."""
    return np.array([np.linalg.norm(a - b) for a, b in itertools.combinations(embeddings, 2)])


def verify(console: Console, settings: Settings, folder: Path) -> bool:
    """Compare and print. Returns whether the encoder keeps to its limits. Who is who: see Identities."""
    comparison = Comparison(settings)
    compared: list[Compared] = []
    with console.status("") as status:
        for path in photos_in(folder):
            status.update(escape(f"{path.name} …"))
            try:
                compared.append(comparison.compare(path))
            except RejectedError as error:
                console.print(f"left out: {path.relative_to(folder)}: {error}", markup=False, highlight=False)
    _print_photos(console, folder, compared)
    if all(one.distance is None for one in compared):
        console.print("no photo in which both found a face: nothing to compare")
        return False
    threshold = Thresholds(settings).of("", shipped("face_recognition").id, 1)
    assert threshold is not None  # it ships with operating points
    return _print_summary(console, threshold, compared)


def _print_photos(console: Console, folder: Path, compared: list[Compared]) -> None:
    columns = ("photo", "megapixels", "faces by face_recognition", "here", "detector", "distance")
    table = Table(*columns, title="one photo, both encoders", title_justify="left")
    table.columns[0].overflow = "fold"
    for one in compared:
        distance = "-" if one.distance is None else f"{one.distance:.3f}"
        name = escape(str(one.path.relative_to(folder)))
        table.add_row(name, f"{one.pixels / 1e6:.2f}", *(str(n) for n in one.faces), one.detector, distance)
    console.print(table)


def _print_summary(console: Console, threshold: float, compared: list[Compared]) -> bool:
    missed = [one.path.name for one in compared if one.reference is not None and one.ours is None]
    both = [one for one in compared if one.distance is not None]
    distances = np.array([one.distance for one in both])
    reference = pair_distances([one.reference for one in both if one.reference is not None])
    ours = pair_distances([one.ours for one in both if one.ours is not None])
    sides = (reference <= threshold) != (ours <= threshold)
    far = sides & (np.abs(reference - threshold) > NEAR_THRESHOLD)
    rows = [
        ("photos, of which both found a face in", f"{len(compared)}, {len(both)}", True),
        ("faces of the reference that were missed", f"{len(missed)} {' '.join(missed)}", not missed),
        (
            f"distance, median (at most {MEDIAN_DISTANCE})",
            f"{np.median(distances):.4f}",
            np.median(distances) <= MEDIAN_DISTANCE,
        ),
        (
            f"distance, largest (at most {LARGEST_DISTANCE})",
            f"{distances.max():.4f}",
            distances.max() <= LARGEST_DISTANCE,
        ),
        ("pairs on the other side of the threshold", f"{sides.sum()} of {len(sides)}", True),
        (f"… though more than {NEAR_THRESHOLD} from it", f"{far.sum()}", not far.any()),
    ]
    identities = Identities([one.path for one in both])
    same = [identities.same(a.path, b.path) for a, b in itertools.combinations(both, 2)]
    if True in same and False in same:
        theirs, here = true_match_rate(reference, same), true_match_rate(ours, same)
        what = (
            f"true match rate at a false match rate of {FALSE_MATCH_RATE:g}, of {same.count(True)} and "
            f"{same.count(False)} pairs (at most {BELOW_REFERENCE} below the reference)"
        )
        rows.append((what, f"{here:.4f}, the reference {theirs:.4f}", here >= theirs - BELOW_REFERENCE))
    table = Table("what", "measured", "", title="summary", title_justify="left")
    for what, measured, good in rows:
        table.add_row(what, escape(measured), "" if good else "[bold red]beyond the limit[/]")
    console.print(table)
    return all(good for _, _, good in rows)
