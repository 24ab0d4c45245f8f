"""Embeddings searched exactly: one flat matrix, in blocks small enough for the cache."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events import EMBEDDING_DIMENSIONS, Member

_FIRST_CAPACITY = 1024
_BLOCK_ROWS = 2048  # of 512 bytes: 1 MiB, which a core's second-level cache holds
_BLOCK_PAIRS = 4096  # of 3 KiB while they are measured
# float32 rounding in ‖x‖² + ‖y‖² − 2xy for embeddings of norm ≤ 2 stays below 1e-5; hits are measured again exactly.
SLACK = 1e-4


class Hits(NamedTuple):
    """Pairs (probe, row) within the threshold: indices of shape (n,), int64, and distances (n,), float64."""

    probes: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


class Rows(NamedTuple):
    """Living rows, of a delta in the order of their arrival. The arrays are not written to any more."""

    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    ids: list[str]
    revisions: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def chosen(self, which: NDArray[np.intp]) -> "Rows":
        """Some of them, by their positions here, in that order."""
        ids = [self.ids[position] for position in which.tolist()]
        return Rows(self.numbers[which], self.vectors[which], ids, self.revisions[which], self.offsets[which])

    @classmethod
    def together(cls, parts: "Sequence[Rows]") -> "Rows":
        """All of several, in the order of the log."""
        numbers, vectors, ids, revisions, offsets = zip(*parts, strict=True)
        names = [name for some in ids for name in some]
        whole = cls(
            np.concatenate(numbers), np.concatenate(vectors), names, np.concatenate(revisions), np.concatenate(offsets)
        )
        return whole.chosen(np.argsort(whole.offsets))


def nearest_of_each(
    probes: NDArray[np.int64], distances: NDArray[np.float64], offsets: NDArray[np.int64], limit: int
) -> NDArray[np.intp]:
    """Positions of the nearest `limit` hits of each probe, by probe, the nearest first; (n,) of each argument.

    Of hits equally near the one that stands earlier in the log.
    """
    order = np.lexsort((offsets, distances, probes))
    at = probes[order]
    nearest: NDArray[np.intp] = order[np.arange(len(at)) - np.searchsorted(at, at) < limit]
    return nearest


def exact_distances(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distances between corresponding rows of two (n, 128) arrays, computed in float64.

    Depends on the two embeddings alone, not on which is left or what else is compared with them.
    """
    difference = left.astype(np.float64) - right.astype(np.float64)
    distances: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


def distances_of_pairs(
    probes: NDArray[np.float32],
    at: NDArray[np.int64],
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """`exact_distances` of pairs (probe, row), (n,) each, in blocks: in a crowd there are millions of them."""
    distances = np.empty(len(rows), np.float64)
    for begin in range(0, len(rows), _BLOCK_PAIRS):
        block = slice(begin, begin + _BLOCK_PAIRS)
        distances[block] = exact_distances(probes[at[block]], vectors_of(rows[block]))
    return distances


def half_norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """‖y‖²/2 of each row of (n, 128)."""
    halves: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors) / np.float32(2)
    return halves


def search_block(
    probes: NDArray[np.float32], vectors: NDArray[np.float32], halves: NDArray[np.float32], threshold: float
) -> Hits:
    """Every row of `vectors` (m, 128) within the threshold of each probe (n, 128); `halves` as `half_norms` has it.

    ‖x − y‖² ≤ t² is tested as xy − ‖y‖²/2 ≥ (‖x‖² − t²)/2, one matrix product a block, and what passes is
    measured again exactly. A row whose half norm is infinite is never found.
    """
    found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    least = half_norms(probes)[:, None] - np.float32((threshold**2 + SLACK) / 2)
    for begin in range(0, len(vectors), _BLOCK_ROWS):
        closeness = probes @ vectors[begin : begin + _BLOCK_ROWS].T
        closeness -= halves[begin : begin + _BLOCK_ROWS]
        places = np.flatnonzero(closeness >= least)  # far faster than nonzero, which counts and walks in two dimensions
        found[0].append(places // closeness.shape[1])
        found[1].append(places % closeness.shape[1] + begin)
    at, rows = np.concatenate(found[0]), np.concatenate(found[1])
    distances = distances_of_pairs(probes, at, lambda some: vectors[some], rows)
    near = distances <= threshold
    return Hits(at[near], rows[near], distances[near])


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

    def living_rows(self) -> Rows:
        """All that is not masked."""
        count = len(self._ids)
        alive = np.flatnonzero(np.isfinite(self._half_norms[:count]))
        everyone = len(alive) == count
        return Rows(
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
