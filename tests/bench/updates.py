"""What an update costs the matcher, beside a creation: the core alone, on the same gallery, in alternation."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from runtime.process.cores import cores
from schemas.envelope import Record, StoredRecord, announce, encode
from schemas.settings import Settings
from streams.gallery.build import build_segment
from streams.matching.match import Rules, match
from tests.bench.machine import print_table, sized
from tests.bench.matching import COLLECTION, SEED
from tests.bench.million import ENCODER, THRESHOLDS, gallery_of, rows_of
from tests.encodings import computed
from tests.population import again, embeddings, individual_id
from tests.records import stored

SEALED, DELTA, BATCHES = sized((100_000, 25_000, 20), (4000, 1000, 2))


def updates(settings: Settings) -> None:
    """Batches of newcomers, and as many of people who are registered and send another photo."""
    size = settings.match_batch
    vectors = embeddings(SEALED + DELTA, SEED)
    segment = build_segment(rows_of(vectors[:SEALED], 0), max(THRESHOLDS), settings.recall_floor, cores())
    segment.use_threads(cores())
    gallery = gallery_of(segment, rows_of(vectors[SEALED:], SEALED))
    known = np.random.default_rng(SEED).choice(SEALED + DELTA, BATCHES * size, replace=False)
    arrivals = {
        "created": (embeddings(BATCHES * size, SEED + 1), np.arange(BATCHES * size) + len(vectors), 1),
        "updated": (again(known, SEED, 2), known, 2),
    }
    records = {
        kind: [
            encode(announce(computed(individual_id(int(who)), face, revision, COLLECTION, ENCODER), "bench"))
            for face, who in zip(faces, people, strict=True)
        ]
        for kind, (faces, people, revision) in arrivals.items()
    }
    taken: dict[str, list[float]] = {kind: [] for kind in records}
    published: dict[str, int] = dict.fromkeys(records, 0)
    offset = len(vectors)
    rules = Rules(lambda *_: max(THRESHOLDS), settings.findings_limit)
    for number in range(BATCHES):
        for kind, all_of_them in records.items():
            batch = _placed(all_of_them[number * size : (number + 1) * size], offset)
            offset += size
            begun = time.perf_counter()
            published[kind] += len(match(gallery, batch, rules).publish)
            taken[kind].append((time.perf_counter() - begun) * 1e6 / size)
    created, updated = (statistics.median(times) for times in taken.values())
    events = (f"{count / BATCHES / size:.2f}" for count in published.values())
    columns = "created, µs", "events", "updated, µs", "events", "ratio"
    row = f"{created:.0f}", next(events), f"{updated:.0f}", next(events), f"{updated / created:.2f}"
    print_table((f"{SEALED:,} sealed, {DELTA:,} in the delta", *columns), [("one in a batch of 256", *row)])


def _placed(records: Sequence[Record], begin: int) -> list[StoredRecord]:
    return [stored(record, begin + number) for number, record in enumerate(records)]
