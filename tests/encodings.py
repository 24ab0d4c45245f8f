"""Encodings made up for tests: single ones, and crowds in whatever order the world hands them over."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.events.base import Detector
from schemas.events.encodings import EncodingComputed, EncodingErased, FaceBox, Quality

_FACE = FaceBox(top=0, right=9, bottom=9, left=0)
_QUALITY = Quality(face_pixels=9, detector_score=1, sharpness=100, brightness=100, frontality=1)
_NORM, _VARYING = 1.4, 16

EncodingEvent = EncodingComputed | EncodingErased


def thresholds_of_tests(threshold: float = 0.45) -> dict[str, float]:
    """One plain threshold for each encoder that tests make up, and for face_recognition."""
    return dict.fromkeys(("face_recognition", "test", "e", "f", "old", "new", "other", "another"), threshold)


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


def crowd(count: int, seed: int, collections: Sequence[str] = ("c",), prefix: str = "p") -> list[EncodingEvent]:
    """That many events, always the same for a seed: newcomers, updates, erasures, repetitions and stale revisions.

    A face is new, 1 to 2.6 away from others, or (every fifth) 0.05 to 0.6 away from that of someone before: about two
    thirds of those are pairs at a threshold of 0.45. They vary in few directions, where an HNSW index misses nobody:
    any pair that is missing was lost.
    """
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.normal(size=(128, _VARYING)))
    directions = random.normal(size=(count, _VARYING))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions = directions @ axes.T
    events: list[EncodingEvent] = []
    known: dict[str, list[EncodingEvent]] = {collection: [] for collection in collections}  # the latest of each

    for number, direction in enumerate(directions):
        collection = collections[int(random.integers(len(collections)))]
        people = known[collection]
        face = (_NORM * direction).astype(np.float32)
        at = int(random.integers(len(people))) if people else 0
        one = people[at] if people else None
        if isinstance(one, EncodingComputed) and random.random() < 0.2:
            face = (one.embedding + random.uniform(0.05, 0.6) * direction).astype(np.float32)
            at = int(random.integers(len(people)))
            one = people[at]
        kind = random.random()
        if one is None or kind < 0.88:
            event: EncodingEvent = computed(f"{prefix}{number}", face, 2, collection)
            people.append(event)
        elif kind < 0.94:
            event = people[at] = computed(one.individual_id, face, one.revision + 1, collection)
        elif kind < 0.97:
            event = people[at] = EncodingErased(
                collection=collection, individual_id=one.individual_id, revision=one.revision + 1
            )
        elif kind < 0.998:
            event = one
        else:
            event = computed(one.individual_id, face, 1, collection)
        events.append(event)
    return events


def twins(events: Iterable[EncodingEvent], prefix: str) -> list[EncodingEvent]:
    """For each encoding someone new with nearly that face: found with whom still has it, and not with whom had it."""
    encodings = [event for event in events if isinstance(event, EncodingComputed)]
    return [
        computed(f"{prefix}{number}", 0.9 * event.embedding, collection=event.collection)
        for number, event in enumerate(encodings)
    ]
