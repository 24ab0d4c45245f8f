"""`make bench-matcher`: the matcher against hnswlib alone, in one run. Prints Markdown tables.

`python -m tests.bench.matcher throughput latency` measures only those of the PARTS.

All people are of `tests.population`, registered in one collection. Of the newcomers a share is registered already, by
another photo. Everything runs on two cores of one machine: the matcher, Kafka, Redis, and what measures them.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from deploy.local.stack import Stack
from schemas.settings import Settings
from schemas.tables import duplicates
from tests.bench.bare_index import count_pairs, fastest, one_at_a_time
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.bench.matching import SEED, Matching, newcomers
from tests.bench.million import THRESHOLDS, million
from tests.bench.updates import updates
from tests.integration.world import Lines, World
from tests.population import again, embeddings

REGISTERED = sized(100_000, 4000)
# Three times as many stay below the delta's limit: nothing is sealed meanwhile.
NEWCOMERS, REPEATS = sized((15_000, 3), (1000, 1))
DELTA_LIMIT = sized(50_000, 3000)
EVENTS_A_SECOND, LATENCY_S = sized((200, 30), (200, 2))
PROBES = sized(2000, 200)


class Bench:
    """What the parts share: servers, and the settings of all that runs on them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lines = folder, Lines()
        self.stack = Stack(folder / "stack", self._lines.add)
        self.settings = Settings()
        self._registered: Matching | None = None

    def matching(self, **settings: Any) -> Matching:
        """A matcher with nothing to match yet."""
        return Matching(World(self.stack, self._lines, self._folder / "data", **settings))

    def registered(self) -> Matching:
        """A matcher, not running, with `REGISTERED` people in a sealed segment. Made once."""
        if self._registered is None:
            self._registered = self.matching(delta_limit=DELTA_LIMIT)
            begun = time.monotonic()
            quality = self._registered.seal(embeddings(REGISTERED, SEED), 900)
            report(f"{REGISTERED:,} published and sealed in {time.monotonic() - begun:.0f} s: {quality}")
            self._registered.stop()
        return self._registered


def throughput(bench: Bench) -> None:
    """Encodings that wait in Kafka → findings acknowledged, against the bare loop on the same vectors."""
    matching, threshold = bench.registered(), max(THRESHOLDS)
    gallery = embeddings(REGISTERED, SEED)
    probes = newcomers(REGISTERED, PROBES, REPEATS * NEWCOMERS)
    index = fastest(gallery, REGISTERED + REPEATS * NEWCOMERS, probes, threshold, bench.settings.recall_floor)
    rows: list[tuple[str, ...]] = []
    runs = []
    for repeat in range(REPEATS):
        photos = newcomers(REGISTERED, NEWCOMERS, repeat * NEWCOMERS)
        alone, pairs_alone = one_at_a_time(index, photos, threshold)
        ours, pairs = matching.rate(photos, 300)
        matching.stop()
        pairs_there = count_pairs(gallery, photos, threshold)
        gallery = np.concatenate([gallery, photos])
        runs.append((alone, ours))
        figures = f"{alone:.0f}", f"{ours:.0f}", f"{ours / alone:.2f}"
        rows.append((str(repeat + 1), *figures, f"{pairs_alone / pairs_there:.4f}", f"{pairs / pairs_there:.4f}"))
    medians = [statistics.median(run) for run in zip(*runs, strict=True)]
    rows.append(("median", *(f"{rate:.0f}" for rate in medians), f"{medians[1] / medians[0]:.2f}", "", ""))
    quality = matching.state().scopes[0].segments[0].quality
    columns = "hnswlib alone, newcomers/s", "facematch, newcomers/s", "ratio", "recall, alone", "recall, facematch"
    print_table((f"{REGISTERED:,} registered", *columns), rows)
    print(f"\nhnswlib alone: {_parameters(index)}; facematch: {quality}")


def latency(bench: Bench) -> None:
    """Encoding in Kafka → its last finding in Postgres, of newcomers that are registered already."""
    matching = bench.registered()
    matching.world.start("match", "sink")
    taken = delays(matching, shot=1)
    matching.stop()
    figures = (f"{np.quantile(taken, share):.0f}" for share in (0.5, 0.95, 0.99, 1.0))
    columns = f"{EVENTS_A_SECOND} newcomers/s", "with findings", "p50, ms", "p95, ms", "p99, ms", "longest, ms"
    print_table(columns, [("Kafka → Postgres", str(len(taken)), *figures)])


def delays(matching: Matching, shot: int) -> NDArray[np.float64]:
    """From an encoding in Kafka to its last finding in Postgres, in milliseconds, while newcomers arrive evenly.

    Each has a photo taken before; `shot` numbers this one.
    """
    matching.wait_until_written(600)
    first = matching.published
    random = np.random.default_rng(shot)
    known = random.choice(REGISTERED, EVENTS_A_SECOND * LATENCY_S, replace=False)
    matching.publish_evenly(again(known, SEED, shot), EVENTS_A_SECOND)
    matching.wait_until_written(60)
    encoded = matching.encoded_at(first)
    query = select(duplicates.c.individual_b, func.max(duplicates.c.recorded_at)).group_by(duplicates.c.individual_b)
    with matching.world.connect() as connection:
        recorded = {who: at.timestamp() for who, at in connection.execute(query)}
    return np.array([recorded[who] - at for who, at in encoded.items() if who in recorded]) * 1000


PARTS: dict[str, Callable[[Bench], None]] = {
    "throughput": throughput,
    "latency": latency,
    "updates": lambda bench: updates(bench.settings),
    "million": lambda bench: million(bench.matching(), bench.settings),
}


def _parameters(index: hnswlib.Index) -> str:
    return f"M {index.M}, ef_construction {index.ef_construction}, ef {index.ef}"


def run(chosen: list[str], parts: dict[str, Callable[[Bench], None]]) -> None:
    """Those parts, or all, on one set of servers."""
    begin_benchmark()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        bench = Bench(Path(folder))
        try:
            bench.stack.start_servers(report)
            for part in chosen or parts:
                parts[part](bench)
        finally:
            bench.stack.stop()


if __name__ == "__main__":
    run(sys.argv[1:], PARTS)
