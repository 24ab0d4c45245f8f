"""Rows with the same embedding (of a default photo, say) share one node of the index.

Identical points spoil an HNSW graph: they fill each other's links, and with 1,000 of them among 3,000 no parameters
that we tried found the pairs of the others. The nodes of an index therefore all differ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.gallery.exact import Hits


@dataclass(frozen=True, slots=True)
class SharedVectors:
    """The rows of each node: `rows[begins[node] : begins[node + 1]]`, both int32."""

    rows: NDArray[np.int32]
    begins: NDArray[np.int32]

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "tuple[SharedVectors, NDArray[np.float32]]":
        """The shared vectors of rows (n, d), and the vectors of the nodes, in the order of their first rows."""
        whole = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.itemsize * vectors.shape[1]))).ravel()
        _, first, of_unique = np.unique(whole, return_index=True, return_inverse=True)
        node_of_unique = np.empty(len(first), dtype=np.int64)
        node_of_unique[np.argsort(first)] = np.arange(len(first))
        nodes = node_of_unique[of_unique]
        rows = np.argsort(nodes, kind="stable")
        begins = np.searchsorted(nodes[rows], np.arange(len(first) + 1))
        return cls(rows.astype(np.int32), begins.astype(np.int32)), vectors[np.sort(first)]

    def nodes_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nodes of rows: (n,) int64."""
        nodes = np.empty(len(self.rows), dtype=np.int64)
        nodes[self.rows] = np.repeat(np.arange(len(self.begins) - 1), np.diff(self.begins))
        return nodes[rows]

    def hits(self, of_nodes: Hits) -> Hits:
        """The hits of all rows of the nodes that were hit."""
        begins = self.begins[of_nodes.rows]
        counts = self.begins[of_nodes.rows + 1] - begins
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.rows[np.repeat(begins, counts) + within].astype(np.int64)
        return Hits(np.repeat(of_nodes.probes, counts), rows, np.repeat(of_nodes.distances, counts))
