"""One batch of records: events go into the tables, what cannot be read becomes dead letters. Parts are handed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.envelope import Message, Record, Source, StoredRecord, UnreadableError, decode, is_set_aside
from schemas.events.base import Event
from schemas.letters import dead_letter
from schemas.topics import SINK

LETTERS_OF = tuple(topic.name for topic in SINK.reads if topic.letters_by == SINK.name)
Events = list[tuple[Message[Event], int]]  # with Kafka's timestamps, in milliseconds since 1970
Publish = Callable[[list[Record]], None]  # returns once Kafka has acknowledged all of them


@dataclass(frozen=True, slots=True)
class Remaining:
    """The events of a batch that count, and null values for the keys of all that Kafka must forget."""

    events: Events
    nulls: list[Message[Event]]


class Tables(Protocol):
    """The tables that the sink fills: those of Postgres, or what stands in for them in a test."""

    def write(self, events: Events, publish: Publish) -> Remaining:
        """Write all events in one transaction, or raise and leave the tables as they were.

        `publish` is called within the transaction, before it is committed.
        """
        ...


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """What became of a batch: `events` were read, `remaining` of them count.

    `letters` has each record that could not be read, where the letter is the sink's to write, with its letter.
    """

    events: Events
    remaining: Remaining
    letters: list[tuple[StoredRecord, Record]]


class BatchWriter:
    """Writes batches of records. Any batch may be written again, by any process: the tables end the same.

    Invariant: once `write` has returned, Postgres has the batch and Kafka has acknowledged its letters and null values;
    only then may its offsets be committed.
    """

    def __init__(self, tables: Tables, publish: Publish) -> None:
        self._tables, self._publish = tables, publish

    def write(self, records: Sequence[StoredRecord]) -> WrittenBatch:
        """Write the events in the records, and publish a dead letter of each record that cannot be read.

        Raises what `publish` and the tables raise; then nothing of the batch may be taken for written.
        """
        events: Events = []
        letters: list[tuple[StoredRecord, Record]] = []
        for record in records:
            try:
                events.append((decode(record), record.timestamp))
            except UnreadableError as error:
                if record.topic in LETTERS_OF and not is_set_aside(record):
                    letters.append((record, dead_letter(record, error, Source.SINK)))
        self._publish([letter for _, letter in letters])
        return WrittenBatch(events, self._tables.write(events, self._publish), letters)
