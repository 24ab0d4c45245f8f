"""What must come out, by the shortest way: the latest revision of each living individual, compared in all pairs."""

import itertools
from collections.abc import Iterable

import numpy as np

from schemas.events import EncodingComputed, EncodingErased


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
