"""`make bench-compaction`: a compaction of a million people, and what it costs the matcher. Prints Markdown tables.

`python -m tests.bench.compaction latency` measures only those of the PARTS. Kafka, Redis, Postgres, the matcher, the
compaction and what measures them share the machine. For a million people the threshold is 0.40: see
`tests.bench.million`.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import hnswlib
import numpy as np

from runtime.process.cores import cores
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EMBEDDING_DIMENSIONS
from schemas.topics import CERTIFICATES
from tests.bench.machine import print_table, report, sized
from tests.bench.matcher import EVENTS_A_SECOND, REGISTERED, Bench, delays, run
from tests.bench.matching import SEED, Matching
from tests.population import embeddings

MILLION, THRESHOLD = sized(1_000_000, 5000), 0.40


def compact(matching: Matching) -> "subprocess.Popen[bytes]":
    """The command, as the schedule starts it."""
    world = matching.world
    env = {**os.environ, **world.stack.addresses, **world.env}
    return subprocess.Popen([sys.executable, "-m", "deploy.cli", "compact"], env=env, stdout=sys.stderr)


def certificates(matching: Matching) -> list[CompactionCertified]:
    """All that there are."""
    return [event for event in matching.world.events(CERTIFICATES) if isinstance(event, CompactionCertified)]


def million(bench: Bench) -> None:
    """The whole job, and hnswlib alone on the same vectors. No matcher ever ran: all pairs are missed."""
    matching = bench.matching(threshold=THRESHOLD)
    vectors = embeddings(MILLION, SEED)
    matching.publish(vectors)
    matching.commit_all()
    report("published")
    with compact(matching) as job:
        assert job.wait() == 0
    (certificate,) = certificates(matching)
    assert certificate.index is not None
    assert certificate.recall is not None
    report(certificate.model_dump_json())
    index = hnswlib.Index(space="l2", dim=EMBEDDING_DIMENSIONS)
    index.init_index(MILLION, M=certificate.index.m, ef_construction=certificate.index.ef_construction)
    order = np.random.default_rng(SEED).permutation(MILLION)
    begun = time.monotonic()
    index.add_items(vectors[order], np.arange(MILLION), num_threads=cores())
    alone = time.monotonic() - begun
    seconds = certificate.seconds
    rate = {
        "reading": f"{MILLION / seconds['reading']:,.0f} records/s",
        "building": f"{seconds['building'] / alone:.2f}× of add_items alone, {alone:.0f} s",
        "comparing": f"{seconds['comparing'] / MILLION * 1e6:.0f} µs a person",
        "publishing": f"{certificate.pairs.found} pairs",
    }
    rows = [(part, f"{taken:.1f}", rate.get(part, "")) for part, taken in seconds.items()]
    print_table((f"{MILLION:,} people", "s", ""), [*rows, ("all", f"{sum(seconds.values()):.1f}", "")])
    parameters, recall = certificate.index, certificate.recall
    print(
        f"\nM {parameters.m}, ef_construction {parameters.ef_construction}, ef {parameters.ef}; recall "
        f"{recall.recall:.4f}, with 95 % confidence {recall.low:.4f} to {recall.high:.4f} ({recall.pairs} pairs of "
        f"{recall.people} people); {certificate.memory_mb:.0f} MB"
    )


def latency(bench: Bench) -> None:
    """Encoding in Kafka → its last finding in Postgres, with and without a compaction beside it."""
    matching = bench.registered()
    matching.world.start("match", "sink")
    idle = np.median(delays(matching, shot=1))
    over = threading.Event()

    def keep_compacting() -> None:
        while not over.is_set():
            with compact(matching) as job:
                while job.poll() is None and not over.wait(0.1):
                    pass
                job.terminate()

    beside = threading.Thread(target=keep_compacting)
    beside.start()
    busy = np.median(delays(matching, shot=2))
    over.set()
    beside.join()
    columns = (
        f"{EVENTS_A_SECOND} newcomers/s among {REGISTERED:,}",
        "p50 without, ms",
        "p50 beside a compaction, ms",
        "ratio",
    )
    print_table(columns, [("Kafka → Postgres", f"{idle:.0f}", f"{busy:.0f}", f"{busy / idle:.2f}")])


PARTS: dict[str, Callable[[Bench], None]] = {"latency": latency, "million": million}


if __name__ == "__main__":
    run(sys.argv[1:], PARTS)
