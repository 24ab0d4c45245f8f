"""A sealed segment: an HNSW index that is never written to again, and beside it whose its rows are.

https://arxiv.org/abs/1603.09320; the library is hnswlib. Its parameters follow from a recall floor: how much HNSW
misses is a property of the data, so it is measured on the very segment that was built.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import hnswlib
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.cores import cores
from schemas.events import EMBEDDING_DIMENSIONS, Member
from streams.bearers import Bearers
from streams.delta import SLACK, Hits, Rows, distances_of_pairs, half_norms, search_block
from streams.recall import recall_of
from streams.roster import Roster, hash_of, hashes_of, order_of
from streams.trial import is_in_vain

_SAMPLE = 4000
_HELD_OUT = 10  # one of so many at most
_ENOUGH_PAIRS, _ENOUGH_PROBES = 4000, 500  # that have any: in a crowd a few have all the pairs
_SAMPLE_AT_ONCE, _SAMPLE_PAIRS = 250, 500_000  # in a crowd fewer probes have as many pairs
_SCAN_ROWS = 16_384
_ADDED_AT_ONCE = 50_000
_TRIAL_FROM, _TRIAL_PART = 200_000, 10  # an index of fewer costs seconds; one of so many nodes is in the trial


class Density(NamedTuple):
    """hnswlib's parameters of construction: links of each node, and candidates looked at for them.

    `most_ef`: a larger ef costs more than it does to search the next denser index, which finds as much with a smaller.
    """

    m: int
    ef_construction: int
    most_ef: int


# Sparse ones are built faster where they suffice, and searched faster while their ef is small.
DENSITIES = (Density(16, 100, 96), Density(24, 150, 192), Density(32, 200, 512), Density(48, 400, 1024))
_EFS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Quality(BaseModel):
    """How an index was built, and what it finds: measured against exact search when it was built."""

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
        """From a list."""
        encoded = [name.encode() for name in ids]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __getitem__(self, row: int) -> str:
        return self.text[self.ends[row] : self.ends[row + 1]].tobytes().decode()


class Segment:
    """Rows are in the order of the roster, which is that of a hash: as good as shuffled. Nodes are borne by rows.

    Queries run without Python's lock. `remove` masks a row; the index stays as it is.
    """

    def __init__(self, roster: Roster, ids: Ids, bearers: Bearers, index: hnswlib.Index, quality: Quality) -> None:
        self.roster, self.ids, self.bearers, self.index, self.quality = roster, ids, bearers, index, quality
        self.alive = np.ones(len(roster), dtype=np.bool_)
        self.living = len(roster)
        index.set_ef(quality.ef)
        index.set_num_threads(cores())

    def __len__(self) -> int:
        return len(self.roster)

    def remove(self, row: int) -> None:
        """Mask a living row: it is found no more."""
        self.alive[row] = False
        self.living -= 1

    def remove_rows(self, rows: NDArray[np.int64]) -> None:
        """Mask rows, whether they are living or not."""
        self.alive[rows] = False
        self.living = int(self.alive.sum())

    def remove_ids(self, ids: Iterable[str]) -> None:
        """Mask the rows of those ids."""
        rows = (self.roster.row_of(hash_of(individual_id)) for individual_id in ids)
        self.remove_rows(np.array([row for row in rows if row is not None], dtype=np.int64))

    def is_living(self, row: int) -> bool:
        """Whether the row is not masked."""
        return bool(self.alive[row])

    def members(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterator[Member]:
        """Whose those rows are, and of which revision."""
        for row in rows:
            yield Member(individual_id=self.ids[row], revision=int(self.roster.revisions[row]))

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the log those rows stand: (n,) int64."""
        return self.roster.offsets[rows]

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings of rows, masked or not: (n, 128) float32."""
        return _vectors(self.index, self.bearers.nodes_of(rows))

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """Those rows, as a delta has them."""
        vectors = self.vectors_of(rows)
        ids = [self.ids[row] for row in rows.tolist()]
        return Rows(rows, vectors, ids, self.roster.revisions[rows], self.roster.offsets[rows])

    def search(self, probes: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float) -> Hits:
        """The rows within the threshold of each probe that stand before it in the log, as the index finds them.

        `probes` is (n, 128) float32, `offsets` (n,) int64. Distances are measured exactly.
        """
        at, rows, distances = self.bearers.hits(search_index(self.index, probes, threshold))
        good = self.alive[rows] & (self.roster.offsets[rows] < offsets[at])
        return Hits(at[good], rows[good], distances[good])


def _vectors(index: hnswlib.Index, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    if not len(rows):
        return np.empty((0, EMBEDDING_DIMENSIONS), np.float32)
    found: NDArray[np.float32] = index.get_items(rows, return_type="numpy")
    return found


def search_index(
    index: hnswlib.Index,
    probes: NDArray[np.float32],
    threshold: float,
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None,
) -> Hits:
    """The nodes that the index finds within the threshold of each probe, however many.

    The first k is ef: as many are looked at in any case. Where the farthest of k is within the threshold, k doubles.
    Distances are exact, by what `vectors_of` says of nodes: the index itself, unless there is a faster way.
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
    """Exactly what lies within the threshold, by looking at all rows."""
    parts = []
    for begin in range(0, index.get_current_count(), _SCAN_ROWS):
        rows = np.arange(begin, min(begin + _SCAN_ROWS, index.get_current_count()))
        vectors = _vectors(index, rows)
        hits = search_block(probes, vectors, half_norms(vectors), threshold)
        parts.append(hits._replace(rows=rows[hits.rows]))
    probes_hit, rows_hit, distances = zip(*parts, strict=True)
    return Hits(np.concatenate(probes_hit), np.concatenate(rows_hit), np.concatenate(distances))


def build_segment(
    rows: Rows,
    threshold: float,
    floor: float,
    threads: int,
    at_least: Quality | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Segment:
    """Index rows so that the share `floor` of the pairs within the threshold is found, in as little time as can be.

    `at_least` is what an earlier segment of the same scope needed: no sparser one is tried first. Of many rows each is
    given up early where it will be in vain (see `streams.trial`). Where even the densest does not reach the floor, its
    quality says so. `progress` is told what is done, how far, and to where.
    """
    hashes = hashes_of(rows.ids)
    order = order_of(hashes)
    roster = Roster(hashes[order], rows.revisions[order], rows.offsets[order])
    ids = Ids.of([rows.ids[row] for row in order])
    bearers, vectors = Bearers.of(rows.vectors[order])
    progress("measuring", 0, 1)
    sample = _sample(vectors, threshold)
    densities = [density for density in DENSITIES if at_least is None or density.m >= at_least.m]
    for density in densities:
        index = hnswlib.Index(space="l2", dim=EMBEDDING_DIMENSIONS)
        index.init_index(len(vectors), M=density.m, ef_construction=density.ef_construction)
        index.set_num_threads(threads)
        if len(vectors) >= _TRIAL_FROM and density is not densities[-1]:
            _add(index, vectors, sample.nodes // _TRIAL_PART, progress)
            progress("measuring", 0, 1)
            if is_in_vain(index, density.most_ef, vectors, sample.probes, sample.in_reach(), floor):
                continue
        _add(index, vectors, sample.nodes, progress)
        progress("measuring", 0, 1)
        quality = measured(index, density, sample, threshold, floor)
        if quality.recall >= floor:
            break
    _add(index, vectors, len(vectors), progress)
    return Segment(roster, ids, bearers, index, quality)


def _add(
    index: hnswlib.Index, vectors: NDArray[np.float32], end: int, progress: Callable[[str, int, int], None]
) -> None:
    """Add those of the vectors that it does not have yet, up to an end."""
    while (begin := index.get_current_count()) < end:
        progress(f"building, M {index.M}", begin, len(vectors))
        some = np.arange(begin, min(begin + _ADDED_AT_ONCE, end))
        index.add_items(vectors[some], some)


class Sample(NamedTuple):
    """What recall is measured with: probes (m, 128), and which of the first `nodes` lie in reach of each.

    A pair is one int64, probe · nodes + node.
    """

    nodes: int
    probes: NDArray[np.float32]
    pairs: NDArray[np.int64]
    is_made_up: bool = False

    def in_reach(self) -> NDArray[np.int64]:
        """How many nodes lie in reach of each probe: (m,) int64."""
        return np.bincount(self.pairs // self.nodes, minlength=len(self.probes))


def measured(index: hnswlib.Index, density: Density, sample: Sample, threshold: float, floor: float) -> Quality:
    """With the smallest ef that reaches the floor, else with the largest that is tried."""
    for ef in (ef for ef in _EFS if ef <= density.most_ef):
        index.set_ef(ef)
        at, found, _ = search_index(index, sample.probes, threshold)
        hit = np.isin(sample.pairs, at * sample.nodes + found)
        recall = recall_of(sample.pairs // sample.nodes, hit)
        if recall.share >= floor:
            break
    return Quality(
        m=density.m,
        ef_construction=density.ef_construction,
        ef=ef,
        recall=recall.share,
        recall_low=recall.low,
        recall_high=recall.high,
        sample_pairs=len(sample.pairs),
        sample_probes=len(sample.probes),
        sample_is_made_up=sample.is_made_up,
    )


def _sample(vectors: NDArray[np.float32], threshold: float) -> Sample:
    """The last nodes, held out of the index until it is measured: newcomers like any others, since nodes are shuffled.

    Where they have too few pairs to tell 0.999 from 1, probes are made up: a node, moved by half the threshold to all
    of it in a direction in which two others differ. On `tests.population` up to five times as many of their pairs are
    missed as of newcomers', never fewer: they lie where no data leads to.
    """
    nodes = len(vectors) - min(_SAMPLE, len(vectors) // _HELD_OUT)
    sample = pairs_of(vectors[nodes:], vectors[:nodes], threshold)
    found = len(np.unique(sample.pairs // sample.nodes))
    if len(sample.pairs) >= _ENOUGH_PAIRS and found >= _ENOUGH_PROBES:
        return sample
    random = np.random.default_rng(len(vectors))
    chosen, left, right = (random.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False) for _ in range(3))
    direction = vectors[left] - vectors[right]
    lengths = np.linalg.norm(direction, axis=1, keepdims=True)
    steps = random.uniform(0.5, 0.999, size=lengths.shape) * threshold
    probes = (vectors[chosen] + direction * (steps / np.maximum(lengths, 1e-9))).astype(np.float32)
    return pairs_of(probes, vectors, threshold)._replace(is_made_up=True)


def pairs_of(probes: NDArray[np.float32], nodes: NDArray[np.float32], threshold: float) -> Sample:
    """As many of the probes as have enough pairs, and the pairs, by exact search."""
    halves = half_norms(nodes)
    pairs: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    begin = 0
    while begin < len(probes) and sum(map(len, pairs)) < _SAMPLE_PAIRS:
        at, rows, _ = search_block(probes[begin : begin + _SAMPLE_AT_ONCE], nodes, halves, threshold)
        pairs.append((at + begin) * len(nodes) + rows)
        begin += _SAMPLE_AT_ONCE
    return Sample(len(nodes), probes[:begin], np.concatenate(pairs))
