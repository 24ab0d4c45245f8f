"""Building a segment: index parameters chosen by recall, measured on a sample against exact search."""

from typing import NamedTuple, Protocol

import hnswlib
import numpy as np
from numpy.typing import NDArray

from streams.gallery.exact import VectorRows, half_norms, search_block
from streams.gallery.id_table import IdTable, hashes_of, order_of
from streams.gallery.recall import recall_of
from streams.gallery.segment import Ids, IndexQuality, Segment, search_index
from streams.gallery.shared_vectors import SharedVectors
from streams.gallery.trial import will_miss_floor

_SAMPLE = 4000  # probes: with a pair each they tell 0.999 from 0.998
_HELD_OUT = 10  # at most one of so many nodes
_ENOUGH_PAIRS, _ENOUGH_PROBES = 4000, 500  # probes with pairs: in a crowd a few have them all
_SAMPLE_AT_ONCE, _SAMPLE_PAIRS = 250, 500_000  # in a crowd fewer probes have as many pairs
_ADDED_AT_ONCE = 50_000  # nodes, in seconds: progress is reported in between
_TRIAL_FROM, _TRIAL_PART = 200_000, 10  # nodes: fewer cost seconds; a tenth of them is the trial


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


class OnProgress(Protocol):
    """Called while work goes on: the stage, how many of how many steps of it are done, and what is being done in it."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "", /) -> None:
        """See the class."""


def build_segment(
    rows: VectorRows,
    threshold: float,
    floor: float,
    threads: int,
    at_least: IndexQuality | None = None,
    progress: OnProgress = lambda *_: None,
) -> Segment:
    """Index rows so that the share `floor` of the pairs within the threshold is found, in as little time as possible.

    Density after density is tried, from `at_least` on: what an earlier segment of the same scope needed. With many rows
    an index is given up early if it cannot reach the floor (see `trial`). If even the densest does not reach it, its
    quality says so. `progress` is called with the stages "measuring" and "building".
    """
    hashes = hashes_of(rows.ids)
    order = order_of(hashes)
    id_table = IdTable.of(hashes, rows.revisions, rows.offsets)
    ids = Ids.of([rows.ids[row] for row in order])
    shared, vectors = SharedVectors.of(rows.vectors[order])
    progress("measuring", 0, 1)
    sample = _sample(vectors, threshold)
    densities = [density for density in DENSITIES if at_least is None or density.m >= at_least.m]
    for density in densities:
        index = hnswlib.Index(space="l2", dim=vectors.shape[1])
        index.init_index(len(vectors), M=density.m, ef_construction=density.ef_construction)
        index.set_num_threads(threads)
        if len(vectors) >= _TRIAL_FROM and density is not densities[-1]:
            _add(index, vectors, sample.nodes // _TRIAL_PART, progress)
            progress("measuring", 0, 1)
            if will_miss_floor(index, density.most_ef, vectors, sample.probes, sample.in_reach(), floor):
                continue
        _add(index, vectors, sample.nodes, progress)
        progress("measuring", 0, 1)
        quality = measured(index, density, sample, threshold, floor)
        if quality.recall >= floor:
            break
    _add(index, vectors, len(vectors), progress)
    return Segment(id_table, ids, shared, index, quality)


def _add(index: hnswlib.Index, vectors: NDArray[np.float32], end: int, progress: OnProgress) -> None:
    """Add the vectors below `end` that the index does not have yet."""
    while (begin := index.get_current_count()) < end:
        progress("building", begin, len(vectors), f"M {index.M}")
        some = np.arange(begin, min(begin + _ADDED_AT_ONCE, end))
        index.add_items(vectors[some], some)


class Sample(NamedTuple):
    """Probes (m, d) to measure recall with, and their pairs: which of the first `nodes` lie in reach of each.

    A pair is one int64, probe · nodes + node.
    """

    nodes: int
    probes: NDArray[np.float32]
    pairs: NDArray[np.int64]
    is_made_up: bool = False

    def in_reach(self) -> NDArray[np.int64]:
        """The number of nodes in reach of each probe: (m,) int64."""
        return np.bincount(self.pairs // self.nodes, minlength=len(self.probes))


def measured(index: hnswlib.Index, density: Density, sample: Sample, threshold: float, floor: float) -> IndexQuality:
    """The quality of an index with the smallest ef that reaches the floor, else with the largest that is tried."""
    for ef in (ef for ef in _EFS if ef <= density.most_ef):
        index.set_ef(ef)
        at, found, _ = search_index(index, sample.probes, threshold)
        hit = np.isin(sample.pairs, at * sample.nodes + found)
        recall = recall_of(sample.pairs // sample.nodes, hit)
        if recall.share >= floor:
            break
    return IndexQuality(
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
    """The last nodes, held out of the index until it is measured. They are a random sample: nodes are in hash order.

    Where they have too few pairs to tell 0.999 from 1, probes are made up: a node, moved by half to all of the
    threshold in a direction in which two others differ. On `tests.population` up to five times as many of their pairs
    are missed as of newcomers', never fewer: they lie where no data leads to.
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
    """The first probes, as many as are needed for enough pairs, with these pairs, by exact search."""
    halves = half_norms(nodes)
    pairs: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    begin = 0
    while begin < len(probes) and sum(map(len, pairs)) < _SAMPLE_PAIRS:
        at, rows, _ = search_block(probes[begin : begin + _SAMPLE_AT_ONCE], nodes, halves, threshold)
        pairs.append((at + begin) * len(nodes) + rows)
        begin += _SAMPLE_AT_ONCE
    return Sample(len(nodes), probes[:begin], np.concatenate(pairs))
