"""A sealed segment: an HNSW index that is never written to again, and the individuals of its rows.

https://arxiv.org/abs/1603.09320; the library is hnswlib. Its parameters follow from a recall floor: how much HNSW
misses is a property of the data, so it is measured on the very segment that was built.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import hnswlib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.events.base import Member
from streams.gallery.exact import SLACK, Hits, VectorRows, distances_of_pairs, half_norms, search_block
from streams.gallery.id_table import IdTable, hash_of
from streams.gallery.shared_vectors import SharedVectors

_SCAN_ROWS = 16_384  # 8 MB of vectors at once


class IndexQuality(BaseModel):
    """The parameters of an index, and its recall, measured against exact search when it was built."""

    model_config = ConfigDict(frozen=True)

    m: int
    ef_construction: int
    ef: int
    recall: float = Field(description="share of the pairs within the threshold that it found, of all or of a probe")
    recall_low: float = Field(default=0, description="between this and")
    recall_high: float = Field(default=1, description="this in 95 of 100 samples")
    sample_pairs: int = Field(description="of so many")
    sample_probes: int = Field(default=0, description="of so many people, drawn at random")
    sample_is_made_up: bool = Field(default=False, description="or of as many places near people")


@dataclass(frozen=True, slots=True)
class Ids:
    """Many ids in little memory: UTF-8, one after the other. `ends` is (n + 1,) int64, beginning with 0."""

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, ids: Sequence[str]) -> "Ids":
        """The ids of a list."""
        encoded = [name.encode() for name in ids]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> str:
        return self.text[self.ends[row] : self.ends[row + 1]].tobytes().decode()


class Segment:
    """The sealed rows of one encoder in one collection, and the index of their vectors.

    Invariant: rows are in the order of `id_table`, that of a hash, so they are as good as shuffled; every row has an id
    and shares one node of the index. Raises ValueError where the parts do not belong together: when a segment is built,
    and when it is read again.

    Queries run without Python's lock, in one thread until `use_threads`. `remove` masks a row; the index never changes.
    """

    def __init__(
        self, id_table: IdTable, ids: Ids, shared: SharedVectors, index: hnswlib.Index, quality: IndexQuality
    ) -> None:
        rows, nodes = len(id_table), len(shared.begins) - 1
        if (len(ids), len(shared.rows), index.get_current_count()) != (rows, rows, nodes):
            raise ValueError(
                f"{rows} rows, {len(ids)} ids, {len(shared.rows)} rows of {nodes} nodes, and "
                f"{index.get_current_count()} nodes in the index"
            )
        self.id_table, self.ids, self.shared, self.index, self.quality = id_table, ids, shared, index, quality
        self.alive = np.ones(len(id_table), dtype=np.bool_)
        self.living = len(id_table)
        index.set_ef(quality.ef)
        self.use_threads(1)

    @property
    def dimensions(self) -> int:
        """Numbers of each embedding."""
        return self.index.dim

    def use_threads(self, threads: int) -> None:
        """Search with so many threads from now on, of which each takes some of the probes."""
        self.index.set_num_threads(threads)

    def __len__(self) -> int:
        return len(self.id_table)

    def remove(self, row: int) -> None:
        """Mask a living row, so that it is not found any more."""
        self.alive[row] = False
        self.living -= 1

    def remove_rows(self, rows: NDArray[np.int64]) -> None:
        """Mask rows, (n,) int64, whether they are living or not."""
        self.alive[rows] = False
        self.living = int(self.alive.sum())

    def remove_ids(self, ids: Iterable[str]) -> None:
        """Mask the rows of individuals. Ids that are not here are ignored."""
        rows = (self.id_table.row_of(hash_of(individual_id)) for individual_id in ids)
        self.remove_rows(np.array([row for row in rows if row is not None], dtype=np.int64))

    def is_living(self, row: int) -> bool:
        """Whether a row is not masked."""
        return bool(self.alive[row])

    def members(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[Member]:
        """The individuals of rows, with their revisions."""
        for row in rows:
            yield Member(individual_id=self.ids[row], revision=int(self.id_table.revisions[row]))

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The offsets of the records of rows: (n,) int64."""
        return self.id_table.offsets[rows]

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of rows, masked or not: (n, d) float32."""
        return _vectors(self.index, self.shared.nodes_of(rows))

    def take(self, rows: NDArray[np.int64]) -> VectorRows:
        """The vectors and individuals of rows, (n,) int64, in that order."""
        vectors = self.vectors_of(rows)
        ids = [self.ids[row] for row in rows.tolist()]
        return VectorRows(vectors, ids, self.id_table.revisions[rows], self.id_table.offsets[rows])

    def search(self, probes: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float) -> Hits:
        """For each probe, the rows within the threshold whose records stand before it, as the index finds them.

        `probes` is (n, d) float32, `offsets` (n,) int64. Distances are measured exactly.
        """
        at, rows, distances = self.shared.hits(search_index(self.index, probes, threshold))
        good = self.alive[rows] & (self.id_table.offsets[rows] < offsets[at])
        return Hits(at[good], rows[good], distances[good])


def _vectors(index: hnswlib.Index, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    if not len(rows):
        return np.empty((0, index.dim), np.float32)
    found: NDArray[np.float32] = index.get_items(rows, return_type="numpy")
    return found


def search_index(
    index: hnswlib.Index,
    probes: NDArray[np.float32],
    threshold: float,
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None,
) -> Hits:
    """The nodes that the index finds within the threshold of each probe, however many.

    The first k is ef: hnswlib looks at that many in any case. Where the farthest of k is within the threshold, k
    doubles. Distances are exact. `vectors_of` returns the vectors of nodes; without it the index is asked.
    """
    count = index.get_current_count()
    limit = threshold**2 + SLACK
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    pending = np.arange(len(probes))
    k = min(index.ef, count)
    while len(pending):
        try:
            labels, squares = index.knn_query(probes[pending], k=k)
        except RuntimeError:  # the graph leads to fewer than k
            at, rows, _ = _scan(index, probes[pending], threshold)
            found.append((pending[at], rows))
            break
        open_ended = (squares[:, -1] <= limit) & (k < count)
        at, columns = np.nonzero((squares <= limit) & ~open_ended[:, None])
        found.append((pending[at], labels[at, columns].astype(np.int64)))
        pending = pending[open_ended]
        k = min(2 * k, count)
    at = np.concatenate([np.empty(0, np.int64), *(one for one, _ in found)])
    rows = np.concatenate([np.empty(0, np.int64), *(one for _, one in found)])
    distances = distances_of_pairs(probes, at, vectors_of or (lambda some: _vectors(index, some)), rows)
    near = distances <= threshold
    return Hits(at[near], rows[near], distances[near])


def _scan(index: hnswlib.Index, probes: NDArray[np.float32], threshold: float) -> Hits:
    """The nodes within the threshold, by an exact search of all."""
    parts = []
    for begin in range(0, index.get_current_count(), _SCAN_ROWS):
        rows = np.arange(begin, min(begin + _SCAN_ROWS, index.get_current_count()))
        vectors = _vectors(index, rows)
        hits = search_block(probes, vectors, half_norms(vectors), threshold)
        parts.append(hits._replace(rows=rows[hits.rows]))
    probes_hit, rows_hit, distances = zip(*parts, strict=True)
    return Hits(np.concatenate(probes_hit), np.concatenate(rows_hit), np.concatenate(distances))
