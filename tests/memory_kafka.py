"""Topics in memory, and a `TopicLog` of them that keeps the promises of `tests.log_promises`, as the real one does."""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from runtime.servers.log import BATCH, MissingTopicsError, Span, TopicLog
from schemas.envelope import Record, StoredRecord
from schemas.events.base import Event
from schemas.topics import TOPICS, Topic, partition_of
from tests.records import stored

_LIMIT_S = 60.0  # nobody writes any more what is still waited for


@dataclass(slots=True)
class _Partition:
    """Records by rising offset, with gaps; the next one gets the offset `end`."""

    records: list[StoredRecord] = field(default_factory=list)
    end: int = 0
    begin: int = 0


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


class MemoryKafka:
    """A broker: every topic of the table unless others are named. Thread-safe.

    `now` is the time of records, in milliseconds since 1970. `committed` has offsets by group, topic and partition.
    """

    def __init__(self, topics: Iterable[Topic[Event]] = TOPICS, now: Callable[[], int] = _milliseconds) -> None:
        self.committed: dict[tuple[str, str, int], int] = {}
        self._now = now
        self._topics = {topic.name: [_Partition() for _ in range(topic.partitions)] for topic in topics}
        self._news = threading.Condition()
        self._is_away = False

    def append(self, record: Record) -> StoredRecord:
        """Write a record to its partition, or to that of its collection, or to that of its key."""
        with self._news:
            self._wait_until_back()
            partitions = self._topics[record.topic]
            at = record.partition
            if at is None:
                at = partition_of(record.partition_by or (record.key or b"").decode(), len(partitions))
            partition = partitions[at]
            written = stored(record, partition.end, at, self._now())
            partition.records.append(written)
            partition.end += 1
            self._news.notify_all()
            return written

    def leave_gap(self, topic: str, partition: int, size: int) -> None:
        """Use up offsets without records, as records do that were compacted away."""
        with self._news:
            self._topics[topic][partition].end += size
            self._news.notify_all()

    def remove(self, topic: str, partition: int, below: int) -> None:
        """Remove records, as retention does it."""
        with self._news:
            kept = self._topics[topic][partition]
            kept.begin = below
            kept.records = [record for record in kept.records if record.offset >= below]

    def compact(self, topic: str) -> None:
        """Keep of each key the last record."""
        with self._news:
            for partition in self._topics[topic]:
                last = {record.key: record for record in partition.records}
                partition.records = [record for record in partition.records if last[record.key] is record]

    def records(self, topic: str) -> list[StoredRecord]:
        """All that a topic has, partition after partition."""
        with self._news:
            return [record for partition in self._topics[topic] for record in partition.records]

    def stop(self) -> None:
        """Go away: whoever asks waits, until `start`."""
        with self._news:
            self._is_away = True

    def start(self) -> None:
        """Come back."""
        with self._news:
            self._is_away = False
            self._news.notify_all()

    # for MemoryLog

    def partitions_of(self, topic: str) -> list[int]:
        """Their numbers. Raises MissingTopicsError."""
        with self._news:
            self._wait_until_back()
            if topic not in self._topics:
                raise MissingTopicsError(f"there is no topic {topic} on this Kafka: `facematch setup` creates topics")
            return list(range(len(self._topics[topic])))

    def span(self, topic: str, partition: int) -> Span:
        """From the first record that was ever there on, as Kafka tells it of a compacted topic, or that was kept."""
        with self._news:
            self._wait_until_back()
            found = self._topics[topic][partition]
            return Span(found.begin, found.end)

    def take(
        self, topic: str, left: dict[int, int], ends: Mapping[int, float], most: int, wait_s: float = _LIMIT_S
    ) -> list[StoredRecord]:
        """The next records of partitions, from offsets on that it moves; what is read to its end is taken out.

        Waits where there is nothing. Raises TimeoutError after _LIMIT_S; with a shorter `wait_s` returns nothing.
        """
        with self._news:
            self._wait_until_back()
            while not (batch := self._next(topic, left, ends, most)) and left:
                if not self._news.wait(wait_s):
                    if wait_s < _LIMIT_S:
                        break
                    raise TimeoutError(f"nobody writes what {topic} is read for: {left}")
                self._wait_until_back()
            return batch

    def _next(self, topic: str, left: dict[int, int], ends: Mapping[int, float], most: int) -> list[StoredRecord]:
        batch: list[StoredRecord] = []
        for at, begin in list(left.items()):
            partition = self._topics[topic][at]
            found = [record for record in partition.records if begin <= record.offset < ends[at]]
            taken = found[: most - len(batch)]
            batch += taken
            left[at] = taken[-1].offset + 1 if len(taken) < len(found) else int(min(partition.end, ends[at]))
            if left[at] >= ends[at]:
                del left[at]
            if len(batch) == most:
                break
        return batch

    def _wait_until_back(self) -> None:
        if not self._news.wait_for(lambda: not self._is_away, _LIMIT_S):
            raise TimeoutError("the broker does not come back")


class MemoryLog(TopicLog):
    """See TopicLog. `batch` is the most records that are handed over at once."""

    def __init__(
        self, kafka: MemoryKafka, topic: Topic[Event], group: str | None = None, batch: int = BATCH
    ) -> None:  # not the real one's: it would make a client
        self._kafka, self._topic, self._group, self._batch = kafka, topic.name, group, batch

    @cached_property
    def _partitions(self) -> list[int]:
        return self._kafka.partitions_of(self._topic)

    def close(self) -> None:
        """There is nothing to let go of."""

    def span(self, partition: int) -> Span:
        """See TopicLog."""
        self._check({partition})
        return self._kafka.span(self._topic, partition)

    def since(self, time: datetime) -> dict[int, Span]:
        """See TopicLog."""
        found = self.spans()
        first = {at: span.end for at, span in found.items()}
        for record in reversed(self._kafka.records(self._topic)):
            if record.timestamp >= time.timestamp() * 1000:
                first[record.partition] = record.offset
        return {at: Span(first[at], span.end) for at, span in found.items()}

    def committed(self, partition: int) -> int | None:
        """See TopicLog."""
        return self._kafka.committed.get((str(self._group), self._topic, partition))

    def read(self, spans: Mapping[int, Span]) -> Generator[list[StoredRecord], None, None]:
        """See TopicLog."""
        left = {at: span.begin for at, span in spans.items() if span.size}
        self._check(left.keys())
        ends = {at: span.end for at, span in spans.items()}
        while left:
            if batch := self._kafka.take(self._topic, left, ends, self._batch):
                yield batch

    def follow(self, begins: Mapping[int, int]) -> Generator[list[StoredRecord], None, None]:
        """See TopicLog."""
        left = dict(begins)
        self._check(left.keys())
        while True:
            yield self._kafka.take(self._topic, left, dict.fromkeys(left, math.inf), self._batch, wait_s=0.02)
