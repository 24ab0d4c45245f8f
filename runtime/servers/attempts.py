"""A record that a reader died of several times is set aside, so that it stops no worker.

Whoever reads takes records from here in portions. What is in hand is noted on the topic `skipped` before work begins,
first once for each partition, after a death more closely, so that whoever starts next knows what the one before died
of. A stop in good order, and a fault that is none of a record's, withdraw the note.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from confluent_kafka import KafkaException
from redis.exceptions import RedisError

from runtime.servers.flow import StalledError
from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher, PublishError, UnacknowledgedError
from runtime.telemetry.metrics import SET_ASIDE
from schemas.attempts import (
    FATAL_ALONE,
    MOST_IN_A_ROW,
    Attempt,
    Noted,
    Position,
    Skipped,
    note_of,
    portions_of,
    skip_of,
)
from schemas.envelope import SET_ASIDE as SET_ASIDE_HEADER
from schemas.envelope import UNREADABLE, Record, Source, StoredRecord, is_set_aside
from schemas.faults import UserFault
from schemas.letters import dead_letter
from schemas.settings import Settings
from schemas.topics import SKIPPED

log = structlog.stdlib.get_logger(__name__)

_PATIENCE_S = 5.0
Place = tuple[str, int]
"""A partition: the topic's name in the topic table, and its number."""
INNOCENT = (
    KafkaException,
    MemoryError,
    OSError,
    PublishError,
    RedisError,
    StalledError,
    UnacknowledgedError,
    UserFault,
)
"""What a worker ends with where no record is to blame."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: the consumer `group`, and whose skipped records it passes over, `name`, as all shards of a matcher do.

    Dead letters are those of `source`. After `deaths` at one place it looks closer, at the first `closely` records.
    `innocent`: what else ends it without being a record's fault, beside INNOCENT.
    """

    group: str
    name: str
    source: Source
    deaths: int = 1
    closely: int = 10_000
    innocent: tuple[type[Exception], ...] = ()


class Journal(Protocol):
    """The topic `skipped`, as a reader reads and writes it."""

    def read(self) -> Noted:
        """All that it has by now."""

    def write(self, records: Sequence[Record]) -> None:
        """Return once all are acknowledged."""

    def withdraw(self, records: Sequence[Record]) -> None:
        """As `write`, but for a few seconds only. Raises PublishError, UnacknowledgedError."""


class KafkaJournal:
    """See Journal. A broker that is away is waited for."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        client = f"{reader.group}-skipped"
        self._log, self._publisher = TopicLog(settings, SKIPPED, client), Publisher(settings, client)
        self._reader = reader

    def read(self) -> Noted:
        """See Journal.read."""
        noted = Noted(self._reader.group, self._reader.name)
        for batch in self._log.read({0: self._log.span(0)}):
            noted.add(batch)
        return noted

    def write(self, records: Sequence[Record]) -> None:
        """See Journal.write."""
        self._publisher.publish_all(records)

    def withdraw(self, records: Sequence[Record]) -> None:
        """See Journal.withdraw."""
        self._publisher.publish_each(records, _PATIENCE_S)


@dataclass(slots=True)
class _State:
    """How a partition fares in this process.

    `left`: how many records are still looked at closely. `is_noted`: that it began here. `is_withdrawn`: the topic has
    nothing of it, nor of a process before.
    """

    attempt: Attempt
    left: int
    is_withdrawn: bool
    is_noted: bool = False


class Attempts:
    """The records of some partitions, in portions that are noted before they are worked on. Not thread-safe.

    Invariant: while records that a reader may have died of are in hand, Kafka has acknowledged which these are.
    """

    def __init__(self, reader: Reader, journal: Journal) -> None:
        self._reader, self._journal = reader, journal
        self._states: dict[Place, _State] = {}
        self._skipped: set[Position] = set()

    @property
    def is_careful(self) -> bool:
        """Whether records of some partition are looked at closely: one portion at a time."""
        return any(state.left for state in self._states.values())

    def assigned(self, begins: Mapping[Place, int]) -> None:
        """Partitions to read, with the offsets to begin at; below 0: none is known."""
        if not begins:
            return
        noted = self._journal.read()
        self._skipped = noted.skipped
        for place, begin in begins.items():
            SET_ASIDE.labels(self._reader.group, place[0])  # there before the first is counted
            before = noted.attempts.get(place)
            attempt = Attempt(begin=begin) if before is None else before.resumed(begin)
            is_careful = attempt.deaths >= self._reader.deaths or bool(attempt.suspects or attempt.alone)
            self._states[place] = _State(attempt, self._reader.closely if is_careful else 0, before is None)
            if is_careful:
                log.warning(
                    "whoever began here before died: what is in hand is noted, and one record at a time is taken of "
                    "those that it may have been",
                    group=self._reader.group,
                    topic=place[0],
                    partition=place[1],
                    offset=begin,
                    suspects=attempt.suspects,
                    died_alone_with=sorted(attempt.alone),
                )

    def revoked(self, places: Iterable[Place]) -> None:
        """Partitions are given back in good order."""
        states = {place: self._states.pop(place) for place in list(places) if place in self._states}
        noted = [note_of(self._reader.group, *place, None) for place, state in states.items() if not state.is_withdrawn]
        if noted:
            with suppress(PublishError, UnacknowledgedError):  # it counts as a death then: one is none
                self._journal.withdraw(noted)

    def forget(self, places: Iterable[Place]) -> None:
        """Partitions went to others, who have noted what they do: nothing of them is withdrawn."""
        for place in places:
            self._states.pop(place, None)

    @contextmanager
    def working(self) -> Generator[None, None, None]:
        """Around work on records. Unless what it raises is no record's fault, the notes stay, whatever comes after."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, INNOCENT + self._reader.innocent):
                self._states.clear()
            raise

    def close(self) -> None:
        """Withdraw what is noted: the process ends in good order, or by what is no record's fault."""
        self.revoked(self._states)

    def portions(self, records: Sequence[StoredRecord]) -> Iterator[list[StoredRecord]]:
        """The records in portions, each to be worked on at once, and for good when the next is asked for.

        In order within a partition. One that is set aside comes as one that cannot be read: see UNREADABLE.
        """
        if not self.is_careful:
            yield self.take(records)
            return
        by_place: dict[Place, list[StoredRecord]] = {}
        for record in records:
            by_place.setdefault((record.topic, record.partition), []).append(record)
        for place, group in by_place.items():
            for portion in portions_of(self._states[place].attempt, group) if place in self._states else [group]:
                taken = self.take(portion)
                yield taken
                self.answered(taken)

    def take(self, records: Sequence[StoredRecord]) -> list[StoredRecord]:
        """Note that records are in hand, before work on them begins. While it is careful, of one partition only.

        A record that is set aside comes as one that cannot be read.
        """
        taken = [self._marked(record) for record in records]
        place = (taken[0].topic, taken[0].partition) if taken else None
        state = None if place is None else self._states.get(place)
        if self.is_careful and state is not None and place is not None:
            if len(taken) == 1 and state.attempt.alone.get(taken[0].offset, 0) >= FATAL_ALONE:
                taken = [self._set_aside(state, taken[0])]
            if state.left:
                state.attempt = state.attempt.holding(taken)
                self._publish([self._note(place, state)])
        self._note_begins(taken)
        return taken

    def answered(self, records: Sequence[StoredRecord]) -> None:
        """Records that were taken are worked on for good. Nothing is to be done while it is not careful."""
        if not self.is_careful or not records:
            return
        place = (records[0].topic, records[0].partition)
        state = self._states.get(place)
        if state is None or not state.left:
            return
        state.left = max(0, state.left - len(records))
        state.attempt = state.attempt.holding([])
        if not is_set_aside(records[-1]):
            state.attempt = state.attempt.model_copy(update={"set_aside": 0})
        if not state.attempt.is_past(records[-1].offset + 1):
            state.left = max(1, state.left)
        self._publish([self._note(place, state)])

    def _note_begins(self, records: Iterable[StoredRecord]) -> None:
        """Note where each partition began whose first records these are."""
        new = {(record.topic, record.partition) for record in records}
        states = {place: self._states[place] for place in new if place in self._states}
        self._publish([self._note(place, state) for place, state in states.items() if not state.is_noted])

    def _set_aside(self, state: _State, record: StoredRecord) -> StoredRecord:
        """Set a record aside for good, unless so many before it were that the fault is none of theirs."""
        position = Position(record.topic, record.partition, record.offset)
        times = state.attempt.alone[record.offset]
        if state.attempt.set_aside >= MOST_IN_A_ROW:
            log.error(
                f"{MOST_IN_A_ROW} records in a row were set aside, and the next one ends this worker too: the fault is "
                "the program's or a server's. No more are set aside; see docs/runbook.md, Record set aside",
                group=self._reader.group,
                position=str(position),
                deaths=times,
            )
            return record
        why = f"{self._reader.group} died {times} times with it alone in hand"
        skipped = Skipped(reader=self._reader.name, why=why)
        self._publish([dead_letter(record, f"set aside: {why}", self._reader.source), skip_of(position, skipped)])
        SET_ASIDE.labels(self._reader.group, record.topic).inc()
        log.error(
            "a record is set aside: this worker died of it again and again",
            group=self._reader.group,
            position=str(position),
            deaths=times,
        )
        self._skipped.add(position)
        alone = {offset: deaths for offset, deaths in state.attempt.alone.items() if offset != record.offset}
        state.attempt = state.attempt.model_copy(update={"alone": alone, "set_aside": state.attempt.set_aside + 1})
        return self._marked(record)

    def _marked(self, record: StoredRecord) -> StoredRecord:
        if not self._skipped or Position(record.topic, record.partition, record.offset) not in self._skipped:
            return record
        return (
            record
            if is_set_aside(record)
            else replace(record, headers=((UNREADABLE, SET_ASIDE_HEADER), *record.headers))
        )

    def _note(self, place: Place, state: _State) -> Record:
        """The note of how a partition fares; none once nothing of it is looked at closely any more."""
        is_calm = state.is_noted and not state.left
        state.is_noted, state.is_withdrawn = True, is_calm
        return note_of(self._reader.group, *place, None if is_calm else state.attempt)

    def _publish(self, records: Sequence[Record]) -> None:
        if records:
            self._journal.write(records)


def attempts_of(settings: Settings, reader: Reader) -> Attempts:
    """The attempts of a reader, noted on Kafka. Raises MissingTopicsError once it is used."""
    return Attempts(reader, KafkaJournal(settings, reader))
