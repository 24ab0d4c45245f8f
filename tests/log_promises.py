"""What a `TopicLog` promises: the real one on a broker keeps it, and that in memory which tests stand on."""

import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest

from runtime.process.background import Background
from runtime.servers.log import MissingTopicsError, Span, TopicLog
from schemas.envelope import Record, StoredRecord
from schemas.events.base import Event
from schemas.topics import ENCODINGS, ERASURES, Topic, partition_of

TOPIC = ENCODINGS
LIMIT_S = 60


class Broker(ABC):
    """A broker with the topics of the table, all of them empty."""

    @abstractmethod
    def open(self, group: str | None = None, topic: Topic[Event] = TOPIC) -> TopicLog:
        """A log of one of its topics."""

    @abstractmethod
    def append(self, records: Iterable[Record]) -> None:
        """Write records, in this order."""

    @abstractmethod
    def leave_gap(self, partition: int) -> None:
        """Use up some offsets of a partition of TOPIC for which no record is ever handed over."""

    @abstractmethod
    def commit(self, group: str, partition: int, offset: int) -> None:
        """Commit an offset of TOPIC for a group."""

    @abstractmethod
    def away(self) -> AbstractContextManager[None]:
        """Within it nobody answers."""

    def write(self, partition: int, *values: str) -> None:
        """Append records with these values to a partition."""
        self.append(Record(TOPIC.name, b"c/x", value.encode(), (("h", b"1"),), partition) for value in values)


def values(batches: Iterable[list[StoredRecord]], partition: int | None = None) -> list[str]:
    """The values of records, of one partition or of all."""
    records = chain.from_iterable(batches)
    return [(record.value or b"").decode() for record in records if partition in (None, record.partition)]


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[Background]:
    """Work that goes on beside the test, and has to end with it."""
    background = Background(work, "reader").start()
    yield background
    background.join(LIMIT_S)
    background.check()
    assert not background.is_running, "what is waited for came, and was not handed over"


class LogPromises:
    """A suite: whoever inherits it has a fixture `broker`."""

    def test_a_span_is_from_the_first_record_to_behind_the_last(self, broker: Broker) -> None:
        broker.write(2, "a", "b")
        with broker.open() as log:
            assert log.span(2) == Span(0, 2)
            assert log.span(3).size == 0
            assert log.spans() == {partition: log.span(partition) for partition in range(TOPIC.partitions)}

    def test_a_collections_partition_follows_from_how_many_the_broker_has(self, broker: Broker) -> None:
        with broker.open() as log:
            assert log.partition_of("camp-a") == partition_of("camp-a", len(log.spans()))
        with broker.open(topic=ERASURES) as log:
            assert log.partition_of("camp-a") == 0

    def test_what_is_read_is_what_was_written_and_where_it_stands(self, broker: Broker) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        broker.append(
            [
                Record(TOPIC.name, b"c/x", b"1", (("h", b"1"), ("empty", None)), 2),
                Record(TOPIC.name, b"c/y", None, (), 2),
            ]
        )
        with broker.open() as log:
            first, second = chain.from_iterable(log.read({2: Span(0, 2)}))
        assert (first.topic, first.partition, first.offset) == (TOPIC.name, 2, 0)
        assert (first.key, first.value, first.headers) == (b"c/x", b"1", (("h", b"1"), ("empty", None)))
        assert (second.offset, second.key, second.value, second.headers) == (1, b"c/y", None, ())
        assert before.timestamp() * 1000 <= first.timestamp <= second.timestamp

    def test_a_span_is_read_from_its_begin_and_below_its_end(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(10)))
        with broker.open() as log:
            assert values(log.read({2: Span(3, 6)})) == ["3", "4", "5"]
            assert values(log.read({2: Span(6, 6), 3: Span(0, 0)})) == []

    def test_partitions_are_read_side_by_side_and_each_in_order(self, broker: Broker) -> None:
        for partition in (0, 3, 5):
            broker.write(partition, *(f"{partition}/{number}" for number in range(300)))
        with broker.open() as log:
            batches = list(log.read({0: Span(0, 300), 3: Span(100, 200), 5: Span(299, 300)}))
        assert all(batches)
        assert values(batches, 0) == [f"0/{number}" for number in range(300)]
        assert values(batches, 3) == [f"3/{number}" for number in range(100, 200)]
        assert values(batches, 5) == ["5/299"]

    def test_gaps_are_passed_over_wherever_they_are(self, broker: Broker) -> None:
        broker.leave_gap(2)
        broker.write(2, "a")
        broker.leave_gap(2)
        broker.write(2, "b")
        broker.leave_gap(2)
        with broker.open() as log:
            span = log.span(2)
            read = list(chain.from_iterable(log.read({2: span})))
            assert [record.value for record in read] == [b"a", b"b"]
            a, b = (record.offset for record in read)
            assert 0 < a < b - 1 < span.end - 2, "there are no gaps"
            assert values(log.read({2: Span(a, a + 2)})) == ["a"]  # it ends in a gap
            assert values(log.read({2: Span(a + 1, b)})) == []  # it is a gap

    def test_a_read_that_stops_early_leaves_the_next_one_whole(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(500)))
        broker.write(3, "x")
        with broker.open() as log:
            read = log.read({2: Span(0, 500)})
            assert next(read)[0].value == b"0"
            read.close()
            assert values(log.read({2: Span(250, 500), 3: Span(0, 1)}), 2) == [
                str(number) for number in range(250, 500)
            ]

    def test_the_same_can_be_read_again(self, broker: Broker) -> None:
        broker.write(2, "a", "b")
        broker.write(3, "c")
        with broker.open() as log:
            for _ in range(3):
                assert sorted(values(log.read({2: Span(0, 2), 3: Span(0, 1)}))) == ["a", "b", "c"]

    def test_a_read_goes_on_where_it_was_after_another_within_it(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(500)))
        broker.write(3, *map(str, range(500)))
        found = []
        with broker.open() as log:
            for batch in log.read({2: Span(0, 500), 3: Span(0, 500)}):
                found.append(batch)
                assert values(log.read({2: Span(7, 8)})) == ["7"]
        for partition in (2, 3):
            assert values(found, partition) == [str(number) for number in range(500)]

    def test_what_is_written_behind_the_end_meanwhile_is_not_read(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(250)))
        with broker.open() as log:
            span, found = log.span(2), []
            for batch in log.read({2: span}):
                found.append(batch)
                broker.write(2, "late")
            assert values(found) == [str(number) for number in range(250)]
            assert log.span(2).end > span.end

    def test_an_end_that_the_log_does_not_have_yet_is_waited_for(self, broker: Broker) -> None:
        broker.write(2, "a")
        found: list[list[StoredRecord]] = []
        has_begun = threading.Event()

        def read() -> None:
            with broker.open() as log:
                for batch in log.read({2: Span(0, 3)}):
                    found.append(batch)
                    has_begun.set()

        with in_background(read) as reader:
            assert has_begun.wait(LIMIT_S)
            assert reader.is_running
            broker.write(2, "b", "c", "d")
        assert values(found) == ["a", "b", "c"]

    def test_who_follows_gets_what_is_there_and_what_comes(self, broker: Broker) -> None:
        broker.write(2, "0", "a")
        found: list[list[StoredRecord]] = []
        has_come = False
        with broker.open() as log:
            for batch in log.follow({2: 1}):
                found.append(batch)
                if values(found) == ["a"] and not batch and not has_come:  # it says too that nothing comes
                    broker.write(2, "b")
                    has_come = True
                if values(found) == ["a", "b"]:
                    break
            assert values(log.read({2: Span(0, 1)})) == ["0"]

    def test_a_time_is_found_in_every_partition(self, broker: Broker) -> None:
        broker.write(2, "a")
        with broker.open() as log:
            now = datetime.now(UTC)
            assert log.since(now - timedelta(hours=1)) == log.spans()
            spans = log.since(now + timedelta(hours=1))
            assert spans[2] == Span(1, 1)
            assert not any(span.size for span in spans.values())

    def test_the_offset_of_a_group_is_returned_and_reading_commits_none(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(10)))
        with broker.open("sink") as log:
            assert values(log.read({2: Span(0, 10)}))
            assert log.committed(2) is None
        broker.commit("sink", 2, 4)
        with broker.open("sink") as log:
            assert values(log.read({2: Span(0, 10)}))
            assert log.committed(2) == 4
        with broker.open("sink") as log, broker.open("matcher") as other:
            assert log.committed(2) == 4
            assert other.committed(2) is None

    def test_a_topic_that_is_not_there_is_not_waited_for(self, broker: Broker) -> None:
        unknown: Topic[Event] = Topic("unknown", (), "", "", None)
        with broker.open(topic=unknown) as log:
            with pytest.raises(MissingTopicsError, match=r"unknown.*`facematch setup`"):
                log.spans()
            with pytest.raises(MissingTopicsError, match="unknown"):
                next(log.read({0: Span(0, 1)}))

    def test_a_partition_that_is_not_there_is_not_waited_for(self, broker: Broker) -> None:
        with broker.open() as log:
            with pytest.raises(MissingTopicsError, match="no partition 100"):
                log.span(100)
            with pytest.raises(MissingTopicsError, match="no partition 100"):
                next(log.read({0: Span(0, 1), 100: Span(0, 1)}))
            with pytest.raises(MissingTopicsError, match="no partition 100"):
                next(log.follow({100: 0}))

    def test_a_broker_that_goes_away_is_waited_for(self, broker: Broker) -> None:
        broker.write(2, *map(str, range(250)))
        found: list[list[StoredRecord]] = []
        spans: list[Span] = []
        has_begun, is_away = threading.Event(), threading.Event()

        def read() -> None:
            with broker.open() as log:
                for batch in log.read({2: Span(0, 253)}):
                    found.append(batch)
                    has_begun.set()
                    assert is_away.wait(LIMIT_S)

        def ask() -> None:
            with broker.open() as log:
                has_begun.wait(LIMIT_S)
                assert is_away.wait(LIMIT_S)
                spans.append(log.span(2))

        with in_background(read) as reader, in_background(ask) as asker:
            assert has_begun.wait(LIMIT_S)
            with broker.away():
                is_away.set()
                asker.join(0.5)
                for background in (asker, reader):
                    background.check()
                    assert background.is_running
            broker.write(2, "a", "b", "c")
        assert values(found) == [*map(str, range(250)), "a", "b", "c"]
        assert spans[0].begin == 0
        assert spans[0].end >= 250


def public_methods(kind: type) -> set[str]:
    """The names of what a class lets others call."""
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
