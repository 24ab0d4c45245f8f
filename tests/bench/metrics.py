"""`make bench-metrics`: which share of a worker's time metrics take. Prints a Markdown table.

The sink and the matcher do their real work on real servers. Counted is the processor time of the loop's own thread:
waiting for servers is left out, and so is what the clients' own threads do. What metrics take is measured where they
are called, in the same batches: batches with and without them differ by less than batches do anyway.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.context_managers import Timer
from prometheus_client.metrics import MetricWrapperBase

from consumers.encoder.answers import Task, answer_to
from consumers.encoder.metering import AnswerCounter
from consumers.encoder.process import Pool, load_encoding
from consumers.sink import worker as sink_worker
from consumers.sink.batch import BatchWriter, WrittenBatch
from consumers.sink.gauges import TableGauges
from deploy.demo.photos import fetch_demo_photos
from runtime.servers.lag import Positions
from runtime.telemetry.health import Health
from schemas.encoders.known import FACE_RECOGNITION
from schemas.envelope import Record, StoredRecord, announce, encode
from schemas.events.base import Event, Member
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import STACK_FOLDER, Settings
from schemas.shard import Shard
from streams.matcher import partition
from streams.matcher.bootstrap import context_of
from streams.matcher.partition import PartitionMatcher
from tests.bench.machine import begin_benchmark, print_table, report, sized
from tests.encodings import computed
from tests.integration.world import World, running_servers
from tests.population import embeddings
from tests.records import stored

GALLERY, SEED = sized(20_000, 1000), 5
BATCHES, SINK_BATCHES = sized((100, 60), (3, 3))
SKIPPED = sized(10, 1)  # until it is warm
PHOTOS = sized(40, 2)
Row = tuple[str, ...]

# Everything that is called for the sake of metrics and probes.
METRICS = (
    (MetricWrapperBase, "labels"),
    (Counter, "inc"),
    (Gauge, "set"),
    (Histogram, "observe"),
    (Histogram, "time"),
    (Timer, "__enter__"),
    (Timer, "__exit__"),
    (Health, "beat"),
    (Health, "still_waiting"),
    (Positions, "processed"),
    (TableGauges, "refresh"),
    (sink_worker, "count_written"),
    (partition, "count_matched"),
)


class Spent:
    """Processor time of this thread within the functions that it wraps; within one another they count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_within = False

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._is_within or threading.current_thread() is not threading.main_thread():
                return function(*arguments, **named)
            self._is_within, begun = True, time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - begun
                self._is_within = False

        return timed


def _measure(name: str, step: Callable[[], int], batches: int) -> Row:
    """Microseconds a message: medians of all, and of what is spent on metrics; and the share of these in the rest."""
    spent, taken, of_metrics = Spent(), [], []
    with ExitStack() as stack:
        for owner, function in METRICS:
            stack.enter_context(patch.object(owner, function, spent.wrapped(getattr(owner, function))))
        for _ in range(batches):
            spent.seconds, begun = 0.0, time.thread_time()
            count = step()
            taken.append((time.thread_time() - begun) * 1e6 / count)
            of_metrics.append(spent.seconds * 1e6 / count)
    return _row(name, taken, of_metrics)


def _row(name: str, taken: Sequence[float], of_metrics: Sequence[float]) -> Row:
    share = sum(of_metrics) / (sum(taken) - sum(of_metrics))
    return name, f"{statistics.median(taken):.1f}", f"{statistics.median(of_metrics):.2f}", f"{share * 100:.2f} %"


def matcher(world: World) -> Row:
    """Newcomers among 20,000, from the record to the findings that Kafka has and the offset that Redis has."""
    settings = world.settings
    context = context_of(settings, Shard())
    context.ownership.set([0])
    context.ownership.start()
    one = PartitionMatcher(0, context)
    one.restore()
    size = settings.match_batch
    records = [
        stored(encode(announce(computed(f"p{number}", face), "bench")), number)
        for number, face in enumerate(embeddings(GALLERY + BATCHES * size, SEED))
    ]
    batches = iter(range(0, len(records), size))

    def step() -> int:
        begin = next(batches)
        one.process(records[begin : begin + size])
        return size

    for _ in range(GALLERY // size):
        step()
    return _measure("matcher, one of 256", step, BATCHES)


def the_sink(world: World) -> Row:
    """What follows from registrations, from Kafka into Postgres: of each the registration, the check and a pair."""
    sink = sink_worker.build_sink(world.settings, world.engine)
    world.publish_records(list(_events_of(world.settings.sink_batch * (SINK_BATCHES + SKIPPED) // 3)))
    counts: list[int] = []
    write = BatchWriter.write

    def counting(writer: BatchWriter, records: Sequence[StoredRecord]) -> WrittenBatch:
        counts.append(len(records))
        return write(writer, records)

    def step() -> int:
        before = len(counts)
        while len(counts) == before:
            sink.step()
        return counts[-1]

    with patch.object(BatchWriter, "write", counting):
        for _ in range(SKIPPED):
            step()
        row = _measure(f"sink, one of {world.settings.sink_batch} or fewer", step, SINK_BATCHES)
    sink.close()
    return row


def _events_of(people: int) -> Iterator[Record]:
    for number in range(people):
        who, now = f"p{number}", datetime.now(UTC)
        events: tuple[Event, ...] = (
            IndividualCreated(collection="c", individual_id=who, revision=1, photo=Photo(uri=f"file:///{who}.jpg")),
            DuplicateFound(
                collection="c",
                encoder="e",
                a=Member(individual_id=who, revision=1),
                b=Member(individual_id=f"{who}-twin", revision=1),
                distance=0.3,
                threshold=0.45,
            ),
            IndividualChecked(
                collection="c", individual_id=who, revision=1, encoder="e", duplicates=1, truncated=False
            ),
        )
        for event in events:
            yield encode(announce(event, "bench", now))


def encoder(settings: Settings) -> Row:
    """A photo in a process of the CPU pool, and what its worker counts of the answer."""
    encoding, counter = load_encoding(settings, Pool.CPU, FACE_RECOGNITION), AnswerCounter("bench", "individuals")
    photo = (fetch_demo_photos(STACK_FOLDER.resolve() / "photos") / "obama.jpg").read_bytes()
    event = IndividualCreated(collection="c", individual_id="a", revision=1, photo=Photo(uri="file:///obama.jpg"))
    message = announce(event, "bench")
    record, task = stored(encode(message)), Task(message, photo)
    taken, counting = [], []
    for _ in range(PHOTOS):
        begun = time.process_time()
        (result,) = encoding.encode([task])
        answer = answer_to(record, task, result)
        encoded = time.process_time()
        counter.count([answer])
        taken.append((time.process_time() - begun) * 1e6)
        counting.append((time.process_time() - encoded) * 1e6)
    return _row("encoder, CPU pool, one photo", taken, counting)


def run() -> None:
    """All three, one after the other."""
    begin_benchmark()
    rows = []
    with running_servers(report) as (stack, lines, folder):
        for part in (the_sink, matcher):
            report(part.__name__)
            rows.append(part(World(stack, lines, folder / "data")))
        rows.append(encoder(Settings()))
    print_table(("processor time a message", "all, µs", "metrics, µs", "metrics / rest"), rows)


if __name__ == "__main__":
    run()
