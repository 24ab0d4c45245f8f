"""Embeddings searched exactly: one flat matrix, in blocks small enough for the cache."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.events.base import Member
from schemas.events.encodings import EMBEDDING_DIMENSIONS
from streams.gallery.exact import Hits, VectorRows, search_block

_FIRST_CAPACITY = 1024


class Delta:
    """A growing set of embeddings, in the order of their arrival. An arrival costs an append.

    Rows are numbered from 0 and keep their numbers; one that is removed is masked, and the first ones can be dropped
    once they are sealed. Not thread-safe; what `living_rows` returned stays as it was.
    """

    def __init__(self) -> None:
        self._vectors = np.empty((_FIRST_CAPACITY, EMBEDDING_DIMENSIONS), dtype=np.float32)
        self._half_norms = np.empty(_FIRST_CAPACITY, dtype=np.float32)  # infinite where masked
        self._revisions = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._offsets = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._ids: list[str] = []
        self._dropped = 0
        self.living = 0

    def __len__(self) -> int:
        """Rows, the masked ones included, the dropped ones not."""
        return len(self._ids)

    def append(self, embedding: NDArray[np.float32], individual_id: str, revision: int, offset: int) -> int:
        """Add an embedding of shape (128,), whose it is, and where in the log it stands; returns its row."""
        position = len(self._ids)
        if position == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._half_norms = np.concatenate([self._half_norms, np.empty_like(self._half_norms)])
            self._revisions = np.concatenate([self._revisions, np.empty_like(self._revisions)])
            self._offsets = np.concatenate([self._offsets, np.empty_like(self._offsets)])
        self._vectors[position] = embedding
        self._half_norms[position] = embedding @ embedding / 2
        self._revisions[position] = revision
        self._offsets[position] = offset
        self._ids.append(individual_id)
        self.living += 1
        return self._dropped + position

    def remove(self, row: int) -> None:
        """Mask a living row: it is found no more."""
        self._half_norms[row - self._dropped] = np.inf
        self.living -= 1

    def is_living(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of each of those rows whether it is not masked: (n,) bool."""
        return np.isfinite(self._half_norms[rows - self._dropped])

    def drop_through(self, row: int) -> None:
        """Forget the rows up to that one: they are sealed."""
        count = row + 1 - self._dropped
        self.living -= int(np.isfinite(self._half_norms[:count]).sum())
        capacity = max(_FIRST_CAPACITY, 2 * (len(self._ids) - count))
        for name in ("_vectors", "_half_norms", "_revisions", "_offsets"):
            before = getattr(self, name)
            kept = np.empty((capacity, *before.shape[1:]), dtype=before.dtype)
            kept[: len(self._ids) - count] = before[count : len(self._ids)]
            setattr(self, name, kept)
        del self._ids[:count]
        self._dropped += count

    def living_rows(self) -> VectorRows:
        """All that is not masked."""
        count = len(self._ids)
        alive = np.flatnonzero(np.isfinite(self._half_norms[:count]))
        everyone = len(alive) == count
        return VectorRows(
            numbers=alive + self._dropped,
            # Rows are only ever appended: a view of those that are there stays as it is.
            vectors=self._vectors[:count] if everyone else self._vectors[alive],
            ids=self._ids.copy() if everyone else [self._ids[position] for position in alive],
            revisions=self._revisions[alive],
            offsets=self._offsets[alive],
        )

    def members(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[Member]:
        """Whose those rows are, and of which revision."""
        for row in rows:
            position = row - self._dropped
            yield Member(individual_id=self._ids[position], revision=int(self._revisions[position]))

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the log those rows stand: (n,) int64."""
        return self._offsets[rows - self._dropped]

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of rows, masked or not: (n, 128) float32."""
        return self._vectors[rows - self._dropped]

    def search(self, probes: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float) -> Hits:
        """Every row within the threshold of each probe that stands before it in the log.

        `probes` is (n, 128) float32, `offsets` (n,) int64.
        """
        count = len(self._ids)
        at, positions, distances = search_block(probes, self._vectors[:count], self._half_norms[:count], threshold)
        earlier = self._offsets[positions] < offsets[at]
        return Hits(at[earlier], positions[earlier] + self._dropped, distances[earlier])
