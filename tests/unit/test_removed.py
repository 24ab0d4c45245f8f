"""Who reads on where Kafka has removed something reports it; a gap that is none of that is passed over."""

from collections.abc import Iterable

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from runtime.servers.removed import RemovalWatch
from runtime.telemetry.metrics import REMOVED
from schemas.envelope import Record
from schemas.letters import Letter, read_letter, removed_records
from schemas.settings import Settings
from schemas.topics import ENCODINGS, INDIVIDUALS, SINK
from tests.records import stored

PLACE = (f"facematch.{INDIVIDUALS.name}", 0)


class _Consumer:
    """Kafka's client, as far as it says where a partition begins; `begin` None: nobody answers."""

    def __init__(self) -> None:
        self.begin: int | None = 0
        self.asked = 0

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert place.partition == PLACE[1]
        assert timeout
        self.asked += 1
        if self.begin is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self.begin, 1_000


class _Watched:
    def __init__(self) -> None:
        self.consumer, self.published = _Consumer(), list[Record]()
        self.watch = RemovalWatch(Settings(), SINK, self.consumer, self._publish)  # type: ignore[arg-type]
        self._counted = self._count()

    def _publish(self, records: Iterable[Record]) -> None:
        self.published += records

    def _count(self) -> float:
        return float(REMOVED.labels(SINK.name, INDIVIDUALS.name)._value.get())

    def reported(self) -> list[tuple[str, int]]:
        """The names of letters, and how many records each says are gone."""
        letters = [read_letter(stored(record, at)) for at, record in enumerate(self.published)]
        found = [(one.name, removed_records(one.error)) for one in letters if isinstance(one, Letter)]
        assert sum(count for _, count in found) == self._count() - self._counted
        return found


@pytest.fixture
def watched() -> _Watched:
    return _Watched()


def test_what_is_removed_before_a_partition_is_assigned_is_reported_once(watched: _Watched) -> None:
    watched.consumer.begin = 13
    watched.watch.assigned({PLACE: 3})
    watched.watch.read(*PLACE, 13)
    assert watched.reported() == [("individuals/0/3", 10)]


def test_a_group_that_has_not_been_there_misses_nothing(watched: _Watched) -> None:
    watched.consumer.begin = 13
    watched.watch.assigned({PLACE: -1001})
    watched.watch.read(*PLACE, 13)
    assert watched.reported() == []


def test_what_is_removed_while_a_consumer_is_behind_is_reported(watched: _Watched) -> None:
    watched.watch.assigned({PLACE: 3})
    watched.watch.read(*PLACE, 3)
    watched.consumer.begin = 9
    watched.watch.read(*PLACE, 9)
    assert watched.reported() == [("individuals/0/4", 5)]


def test_what_a_broker_that_was_away_could_not_tell_the_first_record_tells(watched: _Watched) -> None:
    watched.consumer.begin = None
    watched.watch.assigned({PLACE: 3})
    watched.consumer.begin = 13
    watched.watch.read(*PLACE, 13)
    assert watched.reported() == [("individuals/0/3", 10)]


def test_a_transactions_mark_and_what_is_compacted_away_are_no_loss(watched: _Watched) -> None:
    watched.watch.assigned({PLACE: 3, (f"facematch.{ENCODINGS.name}", 0): 3})
    watched.watch.read(*PLACE, 5)
    asked = watched.consumer.asked
    watched.watch.read(f"facematch.{ENCODINGS.name}", 0, 500)
    assert watched.consumer.asked == asked, "every gap of a compacted topic would cost a question"
    assert watched.reported() == []
