"""Kafka, threads and the registry of the erased in memory, as far as a matcher and a sink use them."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, Future
from functools import partial
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

from confluent_kafka import KafkaError

from runtime.servers.kafka import SESSION_TIMEOUT_S
from runtime.servers.log import Span
from schemas.envelope import Message, Record, StoredRecord, decode
from schemas.erased import Erased
from schemas.events.base import Event
from schemas.topics import topic_named
from tests.simulation.actors import Schedule

T = TypeVar("T")
P = ParamSpec("P")
Rates = Mapping[str, float]
TIMEOUT_S = SESSION_TIMEOUT_S / 2  # of records that wait: see `streams.matcher.bootstrap`


class MemoryTopic:
    """One partition of a topic: `history` has all that was ever published, `records` what Kafka still has."""

    def __init__(self) -> None:
        self.history: list[StoredRecord] = []
        self._messages: list[Message[Event]] = []
        self.records: dict[int, StoredRecord] = {}

    @property
    def end(self) -> int:
        """The offset that the next record will get."""
        return len(self.history)

    @property
    def messages(self) -> list[Message[Event]]:
        """Those of `history`, each decoded once."""
        self._messages += [decode(record) for record in self.history[len(self._messages) :]]
        return self._messages

    def append(self, record: Record) -> None:
        """Give a record the next offset."""
        stored = StoredRecord(record.topic, record.key, record.value, record.headers, 0, self.end, timestamp=self.end)
        self.records[self.end] = stored
        self.history.append(stored)

    def compact(self, end: int) -> None:
        """Keep of each key below an offset the last record, as Kafka does. Null values stay for 14 days."""
        last = {record.key: offset for offset, record in self.records.items() if offset < end}
        self.records = {at: one for at, one in self.records.items() if at >= end or last[one.key] == at}

    def between(self, begin: int, end: int) -> list[StoredRecord]:
        """What it still has of those offsets."""
        return [self.records[offset] for offset in range(begin, end) if offset in self.records]


class MemoryLog:
    """A topic of one partition, read beside the stream, in batches of any size."""

    def __init__(self, schedule: Schedule, topic: MemoryTopic, committed: Callable[[], int | None]) -> None:
        self._schedule, self._topic, self._committed = schedule, topic, committed

    def span(self, partition: int) -> Span:
        self._schedule.call(f"asks for the end, {self._topic.end}")
        return Span(0, self._topic.end)

    def committed(self, partition: int) -> int | None:
        self._schedule.call(f"asks what is committed, {self._committed()}")
        return self._committed()

    def read(self, spans: Mapping[int, Span]) -> Generator[list[StoredRecord], None, None]:
        for begin, end in spans.values():
            position = begin
            while position < end:
                stop = min(end, position + self._schedule.random.randint(1, 8))
                self._schedule.call(f"reads [{position}, {stop})")
                if records := self._topic.between(position, stop):
                    yield records
                position = stop


class MemoryProducer:
    """Kafka's client, as `Publisher` uses it.

    Records wait in a queue until the client's own thread sends them, in their order. After `timeout_s`, or by bad luck,
    one is given up: it may have arrived all the same. Between what `Publisher` checks last and a record that waits in
    the queue nothing happens here; in Kafka's client that takes microseconds.
    """

    def __init__(
        self, schedule: Schedule, topics: Mapping[str, MemoryTopic], clock: Callable[[], float], rates: Rates
    ) -> None:
        """`rates` has the shares of records that are `refused` for good, and that are `late`: given up for now."""
        self._schedule, self._topics, self._clock, self._rates = schedule, topics, clock, rates
        self._waiting: list[tuple[float, Record, Callable[[KafkaError | None, None], None]]] = []
        self._outcomes: list[Callable[[], None]] = []

    def produce(self, topic: str, value: Any, key: Any, headers: Any, on_delivery: Any, partition: int = 0) -> None:
        record = Record(topic.partition(".")[2], key, value, tuple(headers))
        self._waiting.append((self._clock(), record, on_delivery))
        if self._schedule.chance(0.3):
            self._send()
        self._schedule.call(f"publishes {record.topic} {(key or b'').decode()}")

    def poll(self, seconds: float) -> None:
        self._schedule.call("waits for acknowledgements")
        self._send()
        outcomes, self._outcomes = self._outcomes, []
        for tell in outcomes:
            tell()

    def purge(self, in_flight: bool) -> None:
        self._waiting.clear()

    def list_topics(self, topic: str, timeout: float) -> Any:
        numbers = range(topic_named(topic.partition(".")[2]).partitions)  # as many, though all is in one here
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=dict.fromkeys(numbers))})

    def _send(self) -> None:
        for begun, record, on_delivery in self._waiting:
            code = None
            if self._clock() - begun > TIMEOUT_S or self._schedule.chance(self._rates["late"]):
                code = KafkaError._MSG_TIMED_OUT
            elif self._schedule.chance(self._rates["refused"]):
                code = KafkaError.INVALID_RECORD
            if code is None or (self._clock() - begun <= TIMEOUT_S and self._schedule.chance(0.5)):
                self._topics[record.topic].append(record)
            error = None if code is None else KafkaError(code)
            if error is not None:
                self._schedule.note(f"{(record.key or b'').decode()} is given up: {error.name()}")
            self._outcomes.append(partial(on_delivery, error, None))
        self._waiting.clear()


class Registry:
    """Who was erased, known at once."""

    def __init__(self, erased: Erased) -> None:
        self.erased = erased

    def follow(self) -> "Registry":
        return self

    def check(self) -> None:
        """Nothing fails."""


class InlineThreads(Executor):
    """Threads that have done their work before anybody looks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return done(lambda: fn(*args, **kwargs))


def done(work: Callable[[], T]) -> "Future[T]":
    """What it returns or raises."""
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - raised where the outcome is taken
        future.set_exception(error)
    return future
