"""What must come out, by the shortest way: the latest revision of each living individual, compared in all pairs."""

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from schemas.events import Detector, EncodingComputed, EncodingErased, FaceBox, Quality

_FACE = FaceBox(top=0, right=9, bottom=9, left=0)
_QUALITY = Quality(face_pixels=9, detector_score=1, sharpness=100, brightness=100, frontality=1)


def computed(
    who: str, embedding: NDArray[np.float32], revision: int = 1, collection: str = "c", encoder: str = "test"
) -> EncodingComputed:
    """An encoding, of a face of which only the embedding matters."""
    return EncodingComputed(
        collection=collection,
        individual_id=who,
        revision=revision,
        encoder=encoder,
        embedding=embedding,
        face=_FACE,
        detector=Detector.HOG,
        quality=_QUALITY,
    )


def living(events: Iterable[EncodingComputed | EncodingErased]) -> dict[str, EncodingComputed]:
    """The latest encoding of each living individual, by key; the events in any order, with distinct revisions."""
    latest: dict[str, EncodingComputed | EncodingErased] = {}
    for event in events:
        if event.key not in latest or event.revision > latest[event.key].revision:
            latest[event.key] = event
    return {key: event for key, event in latest.items() if isinstance(event, EncodingComputed)}


def pairs(encodings: Iterable[EncodingComputed], threshold: float) -> set[tuple[str, str, str]]:
    """(collection, smaller id, larger id) of all pairs of one collection and encoder within the threshold."""
    return {
        (a.collection, *sorted((a.individual_id, b.individual_id)))  # type: ignore[misc]
        for a, b in itertools.combinations(encodings, 2)
        if (a.collection, a.encoder) == (b.collection, b.encoder)
        and np.linalg.norm(a.embedding.astype(np.float64) - b.embedding.astype(np.float64)) <= threshold
    }
