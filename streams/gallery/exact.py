"""Exact search: distances and hits, computed in blocks small enough for the cache."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK_NUMBERS = 2**18  # of vectors: 1 MiB, which a core's second-level cache holds
_PAIRS_NUMBERS = 2**19  # of one side of pairs, 24 bytes each while they are measured
# float32 rounding in ‖x‖² + ‖y‖² − 2xy for embeddings of norm ≤ 2 stays below 1e-5; hits are measured again exactly.
SLACK = 1e-4


class Hits(NamedTuple):
    """Pairs (probe, row) within the threshold: indices of shape (n,), int64, and distances (n,), float64."""

    probes: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


class VectorRows(NamedTuple):
    """Embeddings with their individuals, (n,) of each: `vectors` is (n, d). The arrays are never written to."""

    vectors: NDArray[np.float32]
    ids: list[str]
    revisions: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def chosen(self, which: NDArray[np.intp]) -> "VectorRows":
        """Some of them, by their positions, in that order."""
        ids = [self.ids[position] for position in which.tolist()]
        return VectorRows(self.vectors[which], ids, self.revisions[which], self.offsets[which])

    @classmethod
    def together(cls, parts: "Sequence[VectorRows]") -> "VectorRows":
        """All of `parts`, in the order of the log."""
        vectors, ids, revisions, offsets = zip(*parts, strict=True)
        names = [name for some in ids for name in some]
        whole = cls(np.concatenate(vectors), names, np.concatenate(revisions), np.concatenate(offsets))
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
    """Euclidean distances between corresponding rows of two (n, d) arrays, computed in float64.

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
    pairs = max(1, _PAIRS_NUMBERS // probes.shape[1])
    for begin in range(0, len(rows), pairs):
        block = slice(begin, begin + pairs)
        distances[block] = exact_distances(probes[at[block]], vectors_of(rows[block]))
    return distances


def half_norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """‖y‖²/2 of each row of (n, d)."""
    halves: NDArray[np.float32] = np.einsum("ij,ij->i", vectors, vectors) / np.float32(2)
    return halves


def search_block(
    probes: NDArray[np.float32], vectors: NDArray[np.float32], halves: NDArray[np.float32], threshold: float
) -> Hits:
    """Every row of `vectors` (m, d) within the threshold of each probe (n, d); `halves` as `half_norms` has it.

    ‖x − y‖² ≤ t² is tested as xy − ‖y‖²/2 ≥ (‖x‖² − t²)/2, one matrix product a block, and what passes is
    measured again exactly. A row whose half norm is infinite is never found.
    """
    found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    least = half_norms(probes)[:, None] - np.float32((threshold**2 + SLACK) / 2)
    rows_at_once = max(1, _BLOCK_NUMBERS // vectors.shape[1])
    for begin in range(0, len(vectors), rows_at_once):
        closeness = probes @ vectors[begin : begin + rows_at_once].T
        closeness -= halves[begin : begin + rows_at_once]
        places = np.flatnonzero(closeness >= least)  # far faster than nonzero, which counts and walks in two dimensions
        found[0].append(places // closeness.shape[1])
        found[1].append(places % closeness.shape[1] + begin)
    at, rows = np.concatenate(found[0]), np.concatenate(found[1])
    distances = distances_of_pairs(probes, at, lambda some: vectors[some], rows)
    near = distances <= threshold
    return Hits(at[near], rows[near], distances[near])
