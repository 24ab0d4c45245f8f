"""The matcher with a million people: what a newcomer costs, what is found, how long a restart takes, and memory.

How many look alike grows with the gallery: at a threshold of 0.45 a newcomer meets about 30 strangers among a million
(see `tests.population`), and to publish them costs more than to find them. Whoever has a million would lower the
threshold; 0.40 leaves about as many as 0.45 does among 100,000. Both are measured, on one graph that is dense enough
for 0.45, each with the ef that reaches the recall floor.
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.process.cores import cores
from schemas.envelope import StoredRecord
from schemas.settings import Settings
from streams.gallery.build import DENSITIES, build_segment, measured, pairs_of
from streams.gallery.collection import Collection
from streams.gallery.exact import VectorRows, half_norms, search_block
from streams.gallery.gallery import Gallery
from streams.gallery.scope import Scope
from streams.gallery.segment import IndexQuality, Segment
from streams.matching.match import Rules, match
from tests.bench.bare_index import memory_alone
from tests.bench.machine import print_table, report, sized
from tests.bench.matching import COLLECTION, OTHERS, PARTITION, SEED, Matching, newcomers, records_of
from tests.population import embeddings, individual_id
from tests.records import stored

MILLION, FEW = sized((1_000_000, 10_000), (10_000, 1000))
# Sparser ones miss the recall floor at this size, and the sealer ends here; to find it out anew takes 10 minutes.
DENSE_ENOUGH = IndexQuality(m=32, ef_construction=200, ef=0, recall=0, sample_pairs=0)
THRESHOLDS = (0.45, 0.40)
PROBES = sized(2000, 200)
BATCHES, DELTA = sized((11, 25_000), (2, 500))
WAITING = sized(49_990, 1000)  # below settings.delta_limit, so that nothing is sealed or stored meanwhile
RESTARTS = sized(3, 1)
ENCODER = "test"


def million(matching: Matching, settings: Settings) -> None:
    """Everything, in the order of the tables in docs/measured.md."""
    vectors = embeddings(MILLION, SEED)
    begun = time.monotonic()
    rows = rows_of(vectors, 0)
    segment = build_segment(rows, max(THRESHOLDS), settings.recall_floor, cores(), DENSE_ENOUGH)
    segment.use_threads(cores())
    report(f"{MILLION} sealed in {time.monotonic() - begun:.0f} s on {cores()} cores: {segment.quality}")
    efs = {max(THRESHOLDS): segment.quality.ef, min(THRESHOLDS): enough_for(segment, vectors, settings.recall_floor)}
    recall(segment, vectors, efs)
    cost(segment, efs, settings)
    segment.index.set_ef(segment.quality.ef)
    alone = memory_alone(segment.index)
    matching.store(vectors, gallery_of(segment, rows_of(vectors[:0], 0)))
    del vectors, rows, segment
    restart_and_memory(matching, alone)


def enough_for(segment: Segment, vectors: NDArray[np.float32], floor: float) -> int:
    """The ef with which the graph reaches the floor at the lower threshold, as sealing finds it out."""
    in_order = vectors[segment.id_table.offsets]  # of a row the offset is the number of its vector
    sample = pairs_of(newcomers(MILLION, 2 * PROBES, PROBES), in_order, min(THRESHOLDS))
    (density,) = [density for density in DENSITIES if density.m == segment.quality.m]
    return measured(segment.index, density, sample, min(THRESHOLDS), floor).ef


def recall(segment: Segment, vectors: NDArray[np.float32], efs: dict[float, int]) -> None:
    """Pairs of newcomers and the sealed million, against exact search."""
    probes = newcomers(MILLION, PROBES)
    halves, offsets = half_norms(vectors), np.full(PROBES, 2 * MILLION)
    order = segment.id_table.offsets  # of a segment's row the offset, which is the number of the vector
    table = []
    for threshold, ef in efs.items():
        segment.index.set_ef(ef)
        at, rows, _ = search_block(probes, vectors, halves, threshold)
        found = segment.search(probes, offsets, threshold)
        hit = np.isin(at * MILLION + rows, found.probes * MILLION + order[found.rows])
        each = np.bincount(at, minlength=PROBES)
        figures = f"{each.mean():.1f}", f"{np.median(each):.0f}", str(len(at)), f"{hit.mean():.4f}"
        table.append((f"{threshold:.2f}", str(ef), *figures))
    print_table((f"threshold, {MILLION:,}", "ef", "pairs of a newcomer, mean", "median", "pairs", "recall"), table)


def cost(segment: Segment, efs: dict[float, int], settings: Settings) -> None:
    """What a newcomer costs in the core: records in, records out, in the matcher's batches."""
    many = gallery_of(segment, rows_of(embeddings(DELTA, OTHERS), MILLION))
    photos = newcomers(FEW, 2 * len(THRESHOLDS) * BATCHES * settings.match_batch, DELTA)
    records = [
        stored(record, 2 * MILLION + number, PARTITION) for number, record in enumerate(records_of(photos, 2 * MILLION))
    ]
    batches = [records[i : i + settings.match_batch] for i in range(0, len(records), settings.match_batch)]
    table = []
    for threshold, ef in efs.items():
        segment.index.set_ef(ef)
        few = gallery_of(None, rows_of(embeddings(FEW, SEED), 0))
        taken: tuple[list[float], list[float]] = [], []
        published = [0, 0]
        for _ in range(BATCHES):
            for place, gallery in enumerate((few, many)):
                seconds, count = _match(gallery, batches.pop(), threshold, settings.findings_limit)
                taken[place].append(seconds * 1e6 / settings.match_batch)
                published[place] += count
        small, large = (statistics.median(times) for times in taken)
        findings = (f"{count / BATCHES / settings.match_batch - 1:.2f}" for count in published)
        columns = f"{small:.0f}", next(findings), f"{large:.0f}", next(findings), f"{large / small:.2f}"
        table.append((f"{threshold:.2f}", *columns))
    columns = f"{FEW:,}: µs a newcomer", "findings", f"{MILLION:,}: µs a newcomer", "findings", "ratio"
    print_table(("threshold", *columns), table)


def _match(gallery: Gallery, batch: Sequence[StoredRecord], threshold: float, limit: int) -> tuple[float, int]:
    begun = time.perf_counter()
    consequences = match(gallery, batch, Rules(lambda *_: threshold, limit))
    return time.perf_counter() - begun, len(consequences.publish)


def restart_and_memory(matching: Matching, alone: dict[str, float]) -> None:
    """Of a process that has a million sealed and as many in the delta as it can have."""
    rate, _ = matching.rate(newcomers(MILLION, WAITING), 900)
    taken = []
    for number in range(RESTARTS):
        matching.stop()
        matching.publish(newcomers(MILLION, 1, WAITING + number))
        begin = matching.end()
        started = matching.start()
        matching.wait_until_matched(120)
        ((published, _),) = matching.checks(begin).values()
        taken.append(published - started)
    ours = matching.memory()
    matching.stop()
    columns = *(f"restart {number + 1}, s" for number in range(RESTARTS)), "median, s"
    restarts = (f"{seconds:.1f}" for seconds in (*taken, statistics.median(taken)))
    print_table(("newcomers/s before", *columns), [(f"{rate:.0f}", *restarts)])
    rows = [
        (f"hnswlib alone, {MILLION:,}", f"{alone['VmRSS']:.0f}", f"{alone['VmHWM']:.0f}"),
        (f"facematch match, {MILLION + WAITING + RESTARTS:,}", f"{ours['VmRSS']:.0f}", f"{ours['VmHWM']:.0f}"),
        ("ratio", f"{ours['VmRSS'] / alone['VmRSS']:.2f}", f"{ours['VmHWM'] / alone['VmHWM']:.2f}"),
    ]
    print_table(("after a restart", "memory, MB", "most, MB"), rows)


def rows_of(vectors: NDArray[np.float32], first: int) -> VectorRows:
    """Individuals `first`, `first + 1` …, each at the offset of its number."""
    numbers = np.arange(first, first + len(vectors))
    return VectorRows(vectors, [individual_id(i) for i in numbers.tolist()], np.ones_like(numbers), numbers)


def gallery_of(segment: Segment | None, rest: VectorRows) -> Gallery:
    """A gallery of a sealed segment and the rest in the delta."""
    gallery, collection = Gallery(), Collection()
    scope = Scope.of_dimensions(rest.vectors.shape[1])
    scope.segments += [] if segment is None else [segment]
    gallery.collections[COLLECTION], collection.scopes[ENCODER] = collection, scope
    collection.hold(ENCODER, rest)
    return gallery
