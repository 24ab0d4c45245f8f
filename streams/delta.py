"""Embeddings searched exactly: one flat matrix, in blocks small enough for the cache."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events import EMBEDDING_DIMENSIONS

_FIRST_CAPACITY = 1024
_BLOCK_ROWS = 2048  # of 512 bytes: 1 MiB, which a core's second-level cache holds
# float32 rounding in ‖x‖² + ‖y‖² − 2xy for embeddings of norm ≤ 2 stays below 1e-5; hits are measured again exactly.
_SLACK = 1e-4


class Hits(NamedTuple):
    """Pairs (probe, row) within the threshold: indices of shape (n,), int64, and distances (n,), float64."""

    probes: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def exact_distances(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean distances between corresponding rows of two (n, 128) arrays, computed in float64.

    Depends on the two embeddings alone, not on which is left or what else is compared with them.
    """
    difference = left.astype(np.float64) - right.astype(np.float64)
    distances: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances


class Delta:
    """A growing set of embeddings, in the order of their arrival. An arrival costs an append.

    Rows are numbered from 0 and never move; one that is removed is masked.
    """

    def __init__(self) -> None:
        self._vectors = np.empty((_FIRST_CAPACITY, EMBEDDING_DIMENSIONS), dtype=np.float32)
        self._half_norms = np.empty(_FIRST_CAPACITY, dtype=np.float32)  # ‖y‖²/2; infinite where masked
        self._rows = 0

    def __len__(self) -> int:
        """Rows, the masked ones included."""
        return self._rows

    def append(self, embedding: NDArray[np.float32]) -> int:
        """Add an embedding of shape (128,); returns its row."""
        if self._rows == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
            self._half_norms = np.concatenate([self._half_norms, np.empty_like(self._half_norms)])
        row = self._rows
        self._vectors[row] = embedding
        self._half_norms[row] = embedding @ embedding / 2
        self._rows += 1
        return row

    def remove(self, row: int) -> None:
        """Mask a row: it is found no more."""
        self._half_norms[row] = np.inf

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of those rows, of shape (n, 128)."""
        return self._vectors[rows]

    def search(self, probes: NDArray[np.float32], before: NDArray[np.int64], threshold: float) -> Hits:
        """Every row within the threshold of each probe that came before it.

        `probes` is (n, 128) float32; `before` is (n,) int64: the probe i is compared with rows below before[i].

        ‖x − y‖² ≤ t² is tested as xy − ‖y‖²/2 ≥ (‖x‖² − t²)/2, one matrix product a block, and what passes is
        measured again exactly.
        """
        least = (np.einsum("ij,ij->i", probes, probes) - threshold**2 - _SLACK) / 2
        found_probes, found_rows = [], []
        for begin in range(0, min(self._rows, int(before.max(initial=0))), _BLOCK_ROWS):
            end = min(begin + _BLOCK_ROWS, self._rows)
            closeness = probes @ self._vectors[begin:end].T
            closeness -= self._half_norms[begin:end]
            in_block, columns = np.nonzero(closeness >= least[:, None])
            found_probes.append(in_block)
            found_rows.append(columns + begin)
        if not found_probes:
            return Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
        at, rows = np.concatenate(found_probes), np.concatenate(found_rows)
        earlier = rows < before[at]
        at, rows = at[earlier], rows[earlier]
        distances = exact_distances(probes[at], self._vectors[rows])
        near = distances <= threshold
        return Hits(at[near], rows[near], distances[near])
