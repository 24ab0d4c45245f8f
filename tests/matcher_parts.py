"""The parts of a matcher in memory, on one thread. Every call into one of them is a step at which a test may act."""

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from runtime.servers.log import Span
from schemas.envelope import Record, StoredRecord
from schemas.erased import Erased
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from schemas.topics import ENCODINGS, MATCHER
from streams.checkpoint.files import (
    Parts,
    pack_absent,
    pack_rest,
    pack_segment,
    unpack_absent,
    unpack_rest,
    unpack_segment,
)
from streams.checkpoint.manifest import CompactedSegment
from streams.checkpoint.state import State
from streams.gallery.segment import Segment
from streams.matcher.context import MatcherContext
from streams.matcher.ownership import Ownership
from streams.matcher.vitals import PartitionVitals
from tests.encodings import thresholds_of_tests
from tests.memory_journal import MemoryJournal
from tests.memory_kafka import MemoryKafka, MemoryLog

PARTITION = 0
NOW = datetime(2026, 1, 31, tzinfo=UTC)
T = TypeVar("T")
OnStep = Callable[[str], None]


class StepwiseLog(MemoryLog):
    """The encodings, in small batches. Every call is a step, and so is every batch. Refuses a read within a read."""

    def __init__(self, kafka: MemoryKafka, on_step: OnStep) -> None:
        super().__init__(kafka, ENCODINGS, MATCHER.name, batch=3)
        self.reads: list[Span] = []
        self._on_step = on_step
        self._is_reading = False

    def span(self, partition: int) -> Span:
        """See TopicLog."""
        self._on_step("log.span")
        return super().span(partition)

    def committed(self, partition: int) -> int | None:
        """See TopicLog."""
        self._on_step("log.committed")
        return super().committed(partition)

    def read(self, spans: Mapping[int, Span]) -> Generator[list[StoredRecord], None, None]:
        """See TopicLog."""
        assert not self._is_reading, "the log's one consumer is reading already"
        self._is_reading = True
        self.reads += spans.values()
        try:
            for batch in super().read(spans):
                self._on_step("log.read")
                yield batch
        finally:
            self._is_reading = False


class MemoryPublisher:
    """Kafka, which acknowledges at once."""

    def __init__(self, on_step: OnStep) -> None:
        self.published: list[Record] = []
        self._on_step = on_step

    def publish_all(self, records: Iterable[Record], before_each: Callable[[], None]) -> None:
        """Every record is a step, so is the return."""
        for record in records:
            self._on_step("publisher.publish")
            before_each()
            self.published.append(record)
        before_each()
        self._on_step("publisher.published")

    def last_of_each_key(self) -> dict[tuple[str, bytes | None], bytes | None]:
        """What Kafka's compaction keeps: the last value of each topic's keys."""
        return {(record.topic, record.key): record.value for record in self.published}


class MemoryProgress:
    """The matched offset."""

    def __init__(self, on_step: OnStep) -> None:
        self.offset: int | None = None
        self._on_step = on_step

    def matched(self, _partition: int) -> int | None:
        """See `Progress`."""
        self._on_step("progress.matched")
        return self.offset

    def advance(self, _partition: int, offset: int) -> None:
        """See `Progress`."""
        self._on_step("progress.advance")
        self.offset = max(offset, self.offset or 0)

    def forget(self, _partition: int) -> None:
        """See `Progress`."""
        self._on_step("progress.forget")
        self.offset = None


class MemoryErasures:
    """Nobody is erased unless the test says so."""

    def __init__(self) -> None:
        self.erased = Erased()

    def follow(self) -> object:
        """See `Erasures`."""
        return self

    def check(self) -> None:
        """See `Erasures`."""


def _through_files(parts: Parts, unpack: Callable[[Parts], T]) -> T:
    with ExitStack() as files:
        for file in parts.values():
            files.enter_context(file)
        return unpack(parts)


def _read_again(state: State) -> State:
    """A state as it comes out of Redis: it shares nothing with the gallery that it was taken of."""

    def copied(segment: Segment) -> Segment:
        return _through_files(pack_segment(segment), lambda parts: unpack_segment(parts, segment.quality))

    scopes = [
        replace(
            scope,
            segments=[copied(segment) for segment in scope.segments],
            rest=_through_files(pack_rest(scope.rest), unpack_rest),
        )
        for scope in state.scopes
    ]
    absent = [(name, _through_files(pack_absent(one), unpack_absent)) for name, one in state.absent]
    return State(state.offset, scopes, absent)


class MemoryCheckpoints:
    """Keeps one state."""

    def __init__(self, on_step: OnStep) -> None:
        self.state: State | None = None
        self._on_step = on_step

    def load(self, log_end: Callable[[], int]) -> State | None:
        """None for a state that is ahead of the log: it is of another log."""
        self._on_step("checkpoints.load")
        state = self.state
        return None if state is None or state.offset > log_end() else _read_again(state)

    def save(self, state: State, is_ours: Callable[[], bool]) -> bool:
        """See `Checkpoints`."""
        self._on_step("checkpoints.save")
        if is_ours():
            self.state = _read_again(state)
            return True
        return False

    def compacted(self) -> dict[bytes, CompactedSegment]:
        """Nothing was compacted."""
        self._on_step("checkpoints.compacted")
        return {}

    def take(self, value: bytes, compacted: CompactedSegment) -> Segment | None:
        """Never called: nothing was compacted."""
        raise AssertionError(f"{compacted} with {value!r} was never handed out")


class StepwiseBackground:
    """Keeps work until `step` runs it, in the thread of the caller."""

    def __init__(self) -> None:
        self.threads = self.search_threads = 1
        self._waiting: list[Callable[[], None]] = []

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """See `BackgroundWork`."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except Exception as error:  # noqa: BLE001 - raised again where the outcome is taken
                outcome.set_exception(error)

        self._waiting.append(run)
        return outcome

    def step(self) -> bool:
        """Run the work that was begun first. False where there is none."""
        if not self._waiting:
            return False
        self._waiting.pop(0)()
        return True


class MatcherParts:
    """Everything around one matcher. `steps` names every call so far; `on_step` is called before each takes effect."""

    def __init__(self, clock: Callable[[], float], **settings: Any) -> None:
        self.steps: list[str] = []
        self.on_step: OnStep = lambda _: None
        self.shown: list[PartitionVitals] = []
        self.written_at = datetime(1970, 1, 1, tzinfo=UTC)
        """The time of the records that are appended."""
        self.kafka = MemoryKafka([ENCODINGS], now=lambda: int(self.written_at.timestamp() * 1000))
        self.log, self.lookup = (StepwiseLog(self.kafka, self._step) for _ in range(2))
        self.publisher = MemoryPublisher(self._step)
        self.progress = MemoryProgress(self._step)
        self.checkpoints = MemoryCheckpoints(self._step)
        self.background = StepwiseBackground()
        self.journal = MemoryJournal()
        self.ownership = Ownership(clock)
        self.ownership.set([PARTITION])
        # smaller than it may be in earnest
        found = Settings(_env_file=None, thresholds=thresholds_of_tests()).model_copy(update=settings)
        self.context = MatcherContext(
            found,
            Thresholds(found),
            Shard(),
            log=self.log,
            lookup=self.lookup,
            publisher=self.publisher,
            progress=self.progress,
            ownership=self.ownership,
            erasures=MemoryErasures(),
            checkpoints_of=lambda _: self.checkpoints,
            background=self.background,
            attempts=self.journal.attempts(),
            restoring=MemoryJournal().attempts(),
            show=self.shown.append,
            clock=clock,
            now=lambda: NOW,
        )

    @property
    def records(self) -> list[StoredRecord]:
        """What the log has."""
        return self.kafka.records(ENCODINGS.name)

    def append(self, records: Iterable[Record]) -> None:
        """Put records behind the end of the log."""
        for record in records:
            self.kafka.append(replace(record, partition=PARTITION))

    def leave_gap(self, size: int) -> None:
        """Use up offsets, as records do that were compacted away."""
        self.kafka.leave_gap(ENCODINGS.name, PARTITION, size)

    def commit(self, offset: int) -> None:
        """Commit an offset for the matcher's group."""
        self.kafka.committed[MATCHER.name, ENCODINGS.name, PARTITION] = offset

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.on_step(name)
