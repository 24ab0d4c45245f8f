"""A record that ends its reader again and again is set aside; a fault that hits every record empties no topic."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.servers.attempts import Attempts, Reader
from schemas.attempts import MOST_IN_A_ROW, Attempt, Position, Skipped, portions_of, skip_of
from schemas.envelope import Source, StoredRecord, UnreadableError, decode, is_set_aside
from schemas.topics import SINK
from tests.memory_journal import MemoryJournal

TOPIC = SINK.reads[0].name
PLACE = (TOPIC, 0)
BATCH = 10


class DeathError(Exception):
    """What a record does to its reader."""


def record_at(offset: int, partition: int = 0) -> StoredRecord:
    return StoredRecord(TOPIC, b"key", b"value", (), partition, offset, 0)


class Log:
    """A partition of `size` records that is read in batches by processes that may die."""

    def __init__(self, size: int, deadly: Sequence[int] = (), reader: Reader | None = None) -> None:
        self.size, self.deadly = size, set(deadly)
        self.journal = MemoryJournal(reader)
        self.committed = 0
        self.done: list[int] = []

    def live(self, killed_at: int | None = None) -> Attempts:
        """One process, until it is through. Raises DeathError where it dies, or is killed with that record in hand."""
        attempts = self.journal.attempts()
        attempts.assigned({PLACE: self.committed})
        for begin in range(self.committed, self.size, BATCH):
            records = [record_at(offset) for offset in range(begin, min(begin + BATCH, self.size))]
            with attempts.working():
                for portion in attempts.portions(records):
                    self._work(portion, killed_at)
            self.committed = records[-1].offset + 1
        return attempts

    def _work(self, portion: Sequence[StoredRecord], killed_at: int | None) -> None:
        if killed_at in [record.offset for record in portion]:
            raise DeathError
        if any(record.offset in self.deadly and not is_set_aside(record) for record in portion):
            raise DeathError
        self.done += [record.offset for record in portion if not is_set_aside(record)]

    def lives(self, most: int) -> int:
        """How many processes die before one is through."""
        for deaths in range(most):
            try:
                self.live().close()
            except DeathError:
                continue
            return deaths
        return most


def lose_a_server(attempts: Attempts) -> None:
    with attempts.working():
        for _ in attempts.portions([record_at(0)]):
            raise ConnectionError


def test_a_record_that_ends_its_reader_is_set_aside_and_all_others_are_worked_on() -> None:
    log = Log(100, [37])
    assert log.lives(10) == 4  # with all in hand, with its batch, and twice alone
    assert set(log.done) == set(range(100)) - {37}
    assert log.journal.letters == [f"{TOPIC}/0/37"]
    assert log.journal.read().skipped == {Position(TOPIC, 0, 37)}


def test_it_stays_set_aside_for_whoever_reads_from_the_beginning() -> None:
    log = Log(100, [37])
    log.lives(10)
    log.committed, log.done = 0, []
    assert log.lives(1) == 0
    assert len(log.done) == 99
    assert log.journal.letters == [f"{TOPIC}/0/37"]


def test_records_that_end_it_far_apart_and_side_by_side_are_all_set_aside() -> None:
    log = Log(1000, [5, 6, 400, 401, 402, 999])
    log.lives(100)
    assert len(set(log.done)) == 994
    assert len(set(log.journal.letters)) == 6


def test_a_fault_that_hits_every_record_sets_three_aside_and_no_more() -> None:
    log = Log(100, range(100))
    assert log.lives(60) == 60
    assert (log.done, log.committed) == ([], 0)
    assert len(set(log.journal.letters)) == MOST_IN_A_ROW


def test_once_that_fault_is_mended_it_goes_on_with_the_next_record() -> None:
    log = Log(100, range(100))
    log.lives(60)
    log.deadly.clear()
    assert log.lives(1) == 0
    assert log.done == list(range(MOST_IN_A_ROW, 100))


def test_a_stop_in_good_order_is_no_death() -> None:
    log = Log(100)
    for _ in range(20):
        log.committed = 0
        attempts = log.live()
        assert not attempts.is_careful
        attempts.close()
    assert log.journal.read().attempts == {}


def test_a_fault_that_is_no_records_is_no_death() -> None:
    log = Log(100)

    for _ in range(20):
        attempts = log.journal.attempts()
        attempts.assigned({PLACE: 0})
        with pytest.raises(ConnectionError):
            lose_a_server(attempts)
        attempts.close()
    assert not log.live().is_careful
    assert log.journal.letters == []


@settings(deadline=None)
@given(st.lists(st.integers(0, 99), max_size=60, unique=True))
def test_one_that_is_killed_again_and_again_at_other_places_sets_nothing_aside(kills: list[int]) -> None:
    log = Log(100)

    for offset in kills:
        log.committed = min(log.committed, offset // BATCH * BATCH)
        try:
            log.live(offset)
        except DeathError:
            continue
    log.lives(1)
    assert log.journal.letters == []


def test_whoever_is_through_with_what_it_looked_at_closely_takes_all_at_once_again() -> None:
    log = Log(300, [5], Reader("reader", "reader", Source.SINK, closely=50))
    log.lives(10)
    log.size = 600
    assert not log.live().is_careful


def test_of_several_partitions_the_one_with_the_record_is_blamed() -> None:
    journal, deaths = MemoryJournal(), 0
    batch = [record_at(offset, partition) for offset in range(5) for partition in (0, 1, 2)]
    done: set[tuple[int, int]] = set()
    while deaths < 20:
        attempts = journal.attempts()
        attempts.assigned({(TOPIC, partition): 0 for partition in (0, 1, 2)})
        try:
            with attempts.working():
                for portion in attempts.portions(batch):
                    if any((one.partition, one.offset) == (1, 3) and not is_set_aside(one) for one in portion):
                        raise DeathError
                    done |= {(one.partition, one.offset) for one in portion}
        except DeathError:
            deaths += 1
            continue
        break
    assert journal.letters == [f"{TOPIC}/1/3"]
    assert done == {(one.partition, one.offset) for one in batch}


def test_a_record_that_was_skipped_by_hand_cannot_be_read() -> None:
    journal = MemoryJournal()
    journal.write([skip_of(Position(TOPIC, 0, 1), Skipped(reader="reader", why="by hand"))])
    attempts = journal.attempts()
    attempts.assigned({PLACE: 0})
    ((first, second, third),) = attempts.portions([record_at(offset) for offset in range(3)])
    assert [is_set_aside(record) for record in (first, second, third)] == [False, True, False]
    with pytest.raises(UnreadableError, match="set aside"):
        decode(second)


def test_what_went_to_another_is_not_withdrawn() -> None:
    log = Log(10)
    attempts = log.live()
    attempts.forget([PLACE])
    attempts.close()
    assert PLACE in log.journal.read().attempts


@settings(deadline=None)
@given(st.sets(st.integers(0, 30)), st.tuples(st.integers(0, 30), st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_portions_keep_the_order_and_take_suspects_alone(
    offsets: set[int], suspects: tuple[int, int], alone: set[int]
) -> None:
    records = [record_at(offset) for offset in sorted(offsets)]
    attempt = Attempt(begin=0, suspects=(min(suspects), max(suspects)), alone=dict.fromkeys(alone, 1))
    portions = portions_of(attempt, records)
    assert [record for portion in portions for record in portion] == records
    assert all(len(portion) == 1 for portion in portions if any(attempt.takes_alone(one.offset) for one in portion))


@pytest.mark.parametrize("text", ["", "individuals/0", "individuals/0/x", "individuals/0/1/2", "individuals/-1/2"])
def test_a_position_is_a_topic_a_partition_and_an_offset(text: str) -> None:
    with pytest.raises(ValueError, match="topic/partition/offset"):
        Position.parse(text)
    assert Position.parse("individuals/3/17") == Position("individuals", 3, 17)
