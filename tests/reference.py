"""The reference that encodings are held against: the face_recognition package, as its users call it."""

import itertools
from pathlib import Path

import face_recognition
from PIL import ImageFile

ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing face_recognition sets it, for the whole process


def reference_pairs(photos: list[Path], threshold: float) -> dict[tuple[str, str], float]:
    """Pairs of photos, by name, at most the threshold apart, with their distance. Each photo has one face."""
    encodings = {}
    for path in photos:
        (encodings[path.name],) = face_recognition.face_encodings(face_recognition.load_image_file(path))
    distances = {
        (a, b): float(face_recognition.face_distance([encodings[a]], encodings[b])[0])
        for a, b in itertools.combinations(sorted(encodings), 2)
    }
    return {pair: distance for pair, distance in distances.items() if distance <= threshold}
