"""The parts that a matcher is put together of. Who starts it hands in the real ones, a test those in memory."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from runtime.servers.attempts import Attempts
from runtime.servers.log import Span
from runtime.telemetry.tracing import Tracer
from schemas.envelope import Record, StoredRecord
from schemas.erased import Erased
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from streams.checkpoint.manifest import CompactedSegment
from streams.checkpoint.state import State
from streams.gallery.segment import Segment
from streams.matcher.ownership import Ownership
from streams.matcher.vitals import PartitionVitals

T = TypeVar("T")


class EncodingLog(Protocol):
    """`encodings`, read by partition and offset beside the stream. Kept by `TopicLog`, and by `MemoryLog` in tests."""

    def span(self, partition: int) -> Span:
        """The offsets that the partition has: from `begin` on, below `end`."""

    def committed(self, partition: int) -> int | None:
        """The offset that the matcher's group has committed, None where it has none."""

    def read(self, spans: Mapping[int, Span]) -> Generator[list[StoredRecord], None, None]:
        """The records of those spans, in batches. Compaction may have left gaps."""


class RecordPublisher(Protocol):
    """Publishes records to Kafka."""

    def publish_all(self, records: Iterable[Record], before_each: Callable[[], None]) -> None:
        """Return once all are acknowledged. `before_each` is called before every record and after the last."""


class ProgressStore(Protocol):
    """Up to where each partition is matched, kept in Redis."""

    def matched(self, partition: int) -> int | None:
        """The offset below which everything is matched, None where it is not known."""

    def advance(self, partition: int, offset: int) -> None:
        """Everything below an offset is matched. Never goes back."""

    def forget(self, partition: int) -> None:
        """Drop an offset that does not belong to this log."""


class Erasures(Protocol):
    """Who was erased, read from `erasures`."""

    erased: Erased

    def follow(self) -> object:
        """Read all there is, the first time; from then on what comes is read in the background."""

    def check(self) -> None:
        """Raise what the background raised."""


class Checkpoints(Protocol):
    """The checkpoint of one partition in Redis."""

    def load(self, log_end: Callable[[], int]) -> State | None:
        """The state that was saved, None where there is none that belongs to a log that ends at `log_end()`."""

    def save(self, state: State, is_ours: Callable[[], bool]) -> bool:
        """Replace the checkpoint. False where it was not written: the one before stays."""

    def compacted(self) -> dict[bytes, CompactedSegment]:
        """The segments that compaction has made for this partition, by their value in Redis."""

    def take(self, value: bytes, compacted: CompactedSegment) -> Segment | None:
        """Load one of them, None where it cannot be used."""


class BackgroundWork(Protocol):
    """Runs work beside matching.

    One piece of work may use `threads` threads, a search by the thread that matches `search_threads`.
    """

    threads: int
    search_threads: int

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """Begin a piece of work. The future has its result, or what it raised."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class MatcherContext:
    """What the partitions of a matcher process share.

    `log` is read in stretches, `lookup` by single offsets, also while a stretch of `log` is being read.
    `checkpoints_of` opens the checkpoints of a partition. `show` puts a partition's vitals where `facematch status`
    finds them. `attempts` knows what a matcher must not die of again while it matches, `restoring` while it restores.
    `clock` counts seconds and never goes back; `now` is the time of day.
    """

    settings: Settings
    thresholds: Thresholds
    shard: Shard
    log: EncodingLog
    lookup: EncodingLog
    publisher: RecordPublisher
    progress: ProgressStore
    ownership: Ownership
    erasures: Erasures
    checkpoints_of: Callable[[int], Checkpoints]
    background: BackgroundWork
    attempts: Attempts
    restoring: Attempts
    show: Callable[[PartitionVitals], None]
    tracer: Tracer | None = None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _now
