"""The embeddings that are not sealed yet: one flat matrix, searched exactly."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events.base import Member
from streams.gallery.exact import Hits, VectorRows, search_block

_FIRST_CAPACITY = 4  # a deployment may have thousands of collections of a few people


class DeltaRows(NamedTuple):
    """The living rows of a delta when they were read, with their numbers in it: (n,) int64, ascending."""

    numbers: NDArray[np.int64]
    rows: VectorRows


class Delta:
    """Embeddings in the order of their arrival. An arrival costs an append.

    Rows are numbered from 0 and keep their numbers. A removed row is masked; the first rows are dropped once they are
    sealed. Not thread-safe; what `living_rows` and `numbered_rows` returned stays as it was.
    """

    def __init__(self, dimensions: int) -> None:
        self._vectors = np.empty((_FIRST_CAPACITY, dimensions), dtype=np.float32)
        self._half_norms = np.empty(_FIRST_CAPACITY, dtype=np.float32)  # infinite where masked
        self._revisions = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._offsets = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._ids: list[str] = []
        self._dropped = 0
        self.living = 0

    @property
    def dimensions(self) -> int:
        """Numbers of each embedding."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        """The number of rows, with the masked ones, without the dropped ones."""
        return len(self._ids)

    def append(self, embedding: NDArray[np.float32], individual_id: str, revision: int, offset: int) -> int:
        """Add an embedding, (d,) float32, with its individual and the offset of its record. Returns its row."""
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
        """Mask a living row, so that it is not found any more."""
        self._half_norms[row - self._dropped] = np.inf
        self.living -= 1

    def is_living(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows are not masked: (n,) bool."""
        return np.isfinite(self._half_norms[rows - self._dropped])

    def drop_through(self, row: int) -> None:
        """Drop the rows up to and including that one: they are sealed."""
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
        """All rows that are not masked, in the order of their arrival."""
        return self.numbered_rows().rows

    def numbered_rows(self) -> DeltaRows:
        """`living_rows` with their numbers."""
        count = len(self._ids)
        alive = np.flatnonzero(np.isfinite(self._half_norms[:count]))
        everyone = len(alive) == count
        rows = VectorRows(
            # Rows are only ever appended: a view of those that are there stays as it is.
            vectors=self._vectors[:count] if everyone else self._vectors[alive],
            ids=self._ids.copy() if everyone else [self._ids[position] for position in alive],
            revisions=self._revisions[alive],
            offsets=self._offsets[alive],
        )
        return DeltaRows(alive + self._dropped, rows)

    def members(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[Member]:
        """The individuals of rows, with their revisions."""
        for row in rows:
            position = row - self._dropped
            yield Member(individual_id=self._ids[position], revision=int(self._revisions[position]))

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The offsets of the records of rows: (n,) int64."""
        return self._offsets[rows - self._dropped]

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of rows, masked or not: (n, d) float32."""
        return self._vectors[rows - self._dropped]

    def search(self, probes: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float) -> Hits:
        """For each probe, every row within the threshold whose record stands before the probe's.

        `probes` is (n, d) float32, `offsets` (n,) int64.
        """
        count = len(self._ids)
        at, positions, distances = search_block(probes, self._vectors[:count], self._half_norms[:count], threshold)
        earlier = self._offsets[positions] < offsets[at]
        return Hits(at[earlier], positions[earlier] + self._dropped, distances[earlier])
