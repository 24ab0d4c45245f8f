"""What must come out, by the shortest way: the latest revision of each living individual, compared in all pairs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound

_BLOCK = 2048
# float32 rounding of ‖x − y‖²/2 for embeddings of norm ≤ 2 stays below 1e-5; what passes is measured again exactly.
_SLACK = 1e-3


class Pair(NamedTuple):
    """Two revisions of two individuals, the smaller id first."""

    collection: str
    encoder: str
    a: str
    revision_a: int
    b: str
    revision_b: int

    @property
    def sides(self) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
        """(collection, individual, revision) of both."""
        return (self.collection, self.a, self.revision_a), (self.collection, self.b, self.revision_b)


def pair_of(event: DuplicateFound) -> Pair:
    """The pair that was found."""
    a, b = event.a, event.b
    return Pair(event.collection, event.encoder, a.individual_id, a.revision, b.individual_id, b.revision)


def ids(pairs: Iterable[Pair]) -> set[tuple[str, str, str]]:
    """(collection, smaller id, larger id) of each."""
    return {(pair.collection, pair.a, pair.b) for pair in pairs}


def latest(events: Iterable[EncodingComputed | EncodingErased]) -> dict[str, EncodingComputed | EncodingErased]:
    """The event that counts of each individual, by key: the highest revision; of equals the erasure, or the later."""
    best: dict[str, EncodingComputed | EncodingErased] = {}
    for event in events:
        if event.key not in best or rank(event) >= rank(best[event.key]):
            best[event.key] = event
    return best


def living(events: Iterable[EncodingComputed | EncodingErased]) -> dict[str, EncodingComputed]:
    """The latest encoding of each living individual, by key."""
    return {key: event for key, event in latest(events).items() if isinstance(event, EncodingComputed)}


class Lifetime(NamedTuple):
    """A revision of an individual, from the offset at which it was the latest to that at which it no longer was."""

    encoding: EncodingComputed
    begin: int
    end: float


def lifetimes(log: Iterable[tuple[int, EncodingComputed | EncodingErased]]) -> dict[tuple[str, int], Lifetime]:
    """Every revision that was ever the latest, by key and revision; the log's records with their offsets, in order."""
    lives: dict[tuple[str, int], Lifetime] = {}
    best: dict[str, EncodingComputed | EncodingErased] = {}
    for offset, event in log:
        before = best.get(event.key)
        if before is not None and rank(event) <= rank(before):
            continue
        if before is not None and (before.key, before.revision) in lives:
            lives[before.key, before.revision] = lives[before.key, before.revision]._replace(end=offset)
        best[event.key] = event
        if isinstance(event, EncodingComputed):
            lives[event.key, event.revision] = Lifetime(event, offset, math.inf)
    return lives


def pairs(encodings: Iterable[EncodingComputed], threshold: float) -> dict[Pair, float]:
    """All pairs of one collection and encoder within the threshold, with their exact distances."""
    scopes: dict[tuple[str, str], list[EncodingComputed]] = defaultdict(list)
    for encoding in encodings:
        scopes[encoding.collection, encoding.encoder].append(encoding)
    found: dict[Pair, float] = {}
    for (collection, encoder), members in scopes.items():
        embeddings = np.stack([member.embedding for member in members])
        for i, j, distance in _near(embeddings, threshold):
            a, b = sorted((members[i], members[j]), key=lambda member: member.individual_id)
            if a.individual_id != b.individual_id:
                pair = Pair(collection, encoder, a.individual_id, a.revision, b.individual_id, b.revision)
                found[pair] = distance
    return found


def exact_distance(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Euclidean distance of two embeddings, in float64."""
    return float(np.linalg.norm(x.astype(np.float64) - y.astype(np.float64)))


def rank(event: EncodingComputed | EncodingErased) -> tuple[int, bool]:
    """The higher one counts."""
    return event.revision, isinstance(event, EncodingErased)


def _near(embeddings: NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Rows i < j within the threshold, and their distance; every block of rows with every block from it on."""
    half_squares = np.einsum("ij,ij->i", embeddings, embeddings)[:, None] / 2
    ones = np.ones_like(half_squares)
    left = np.hstack([embeddings, -half_squares, ones])
    right = np.hstack([embeddings, ones, -half_squares])
    for top in range(0, len(embeddings), _BLOCK):
        for begin in range(top, len(embeddings), _BLOCK):
            closeness = left[top : top + _BLOCK] @ right[begin : begin + _BLOCK].T  # −‖x − y‖²/2
            rows, columns = np.nonzero(closeness >= -(threshold**2 + _SLACK) / 2)
            for i, j in zip((rows + top).tolist(), (columns + begin).tolist(), strict=True):
                if i < j:
                    distance = exact_distance(embeddings[i], embeddings[j])
                    if distance <= threshold:
                        yield i, j, distance
