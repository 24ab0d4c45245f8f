"""Chooses the records to replay from a topic or a file, and counts why others are left out. Pure."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from producers.replay.file import FileRecord
from producers.replay.outcomes import EncodingAnswer, RejectionAnswer
from producers.replay.selection import Selection, SelectionError
from schemas.envelope import Readable, StoredRecord, UnreadableError, decode, decode_as_sent
from schemas.erased import Erased
from schemas.events.base import IndividualEvent, individual_of
from schemas.events.encodings import EncodingAsSent, EncodingComputed, EncodingErased
from schemas.events.registrations import IndividualDeleted
from schemas.topics import ENCODINGS, INDIVIDUALS

ERASED, REPEATED, SUPERSEDED, UNREADABLE = (
    "erased since",
    "the same event once more",
    "of whom Kafka has something later",
    "not readable: a dead letter already",
)
Answers = Mapping[str, RejectionAnswer] | Mapping[str, EncodingAnswer]
EventAsRead = IndividualEvent | EncodingAsSent


class ChosenEvent(NamedTuple):
    """A record to replay, and the fields of its event."""

    record: StoredRecord | FileRecord
    type: str
    collection: str
    individual_id: str
    revision: int


class Chooser:
    """Chooses records one by one. `left_out` counts, by reason, records that match but have no effect any more.

    `answers`: by individual key its outcome, or of `encodings` its latest record; records of others are not chosen. The
    log has copies of events that were replayed before: each event is chosen once.
    """

    def __init__(self, selection: Selection, erased: Erased, answers: Answers | None = None) -> None:
        self._selection = selection
        self._erased = erased
        self._answers = answers
        self._is_by_time = not selection.has_outcome and (selection.since or selection.until) is not None
        self._seen: set[tuple[str, str]] = set()
        self.chosen = 0
        self.left_out: Counter[str] = Counter()
        self.collections: set[str] = set()
        self.individuals: set[str] = set()

    def choose(self, record: StoredRecord | FileRecord) -> ChosenEvent | None:
        """The record with its event's fields if it is chosen, else None."""
        key = (record.key or b"").decode(errors="replace")
        if not self._is_meant(record, key):
            return None
        wanted = None if self._answers is None else self._answers[key]
        if isinstance(wanted, EncodingAnswer) and record.topic == ENCODINGS.name and isinstance(record, StoredRecord):
            return self._chosen_latest(record, key, wanted)
        try:
            event, identity = _read(record)
        except UnreadableError:
            self.left_out[UNREADABLE] += 1
            return None
        problem = self._problem(event, identity, wanted)
        if problem is None:
            self.chosen += 1
            kind = EncodingComputed.__name__ if isinstance(event, EncodingAsSent) else type(event).__name__
            return ChosenEvent(record, kind, event.collection, event.individual_id, event.revision)
        if problem:
            self.left_out[problem] += 1
        return None

    def check(self) -> None:
        """Raise SelectionError if the collection or an individual was never seen. Call it once all is read.

        Finding nothing within a time or at some offsets is an answer, and no error.
        """
        if self._is_by_time or self._selection.offsets:
            return
        collection = self._selection.collection
        if collection is not None and collection not in self.collections:
            raise SelectionError(f"nothing there is about collection {collection}; there is: {_some(self.collections)}")
        unknown = set(self._selection.individuals) - self.individuals
        if unknown:
            raise SelectionError(f"nothing there is about individual {_some(unknown)}")

    def _is_meant(self, record: StoredRecord | FileRecord, key: str) -> bool:
        """Whether the record matches the selection, as far as its position, time and key tell."""
        selection = self._selection
        if isinstance(record, StoredRecord):
            if self._is_by_time and not selection.is_in_time(record.timestamp):
                return False
            if selection.offsets and not selection.is_at(record):
                return False
        if selection.collection is not None or selection.individuals:
            collection, who = individual_of(key)
            self.collections.add(collection)
            if not selection.is_about(key):
                return False
            self.individuals.add(who)
        return self._answers is None or key in self._answers

    def _chosen_latest(self, record: StoredRecord, key: str, latest: EncodingAnswer) -> ChosenEvent | None:
        """The record of `encodings` if it is the latest one, whose fields are known already."""
        collection, who = individual_of(key)
        if (record.partition, record.offset) != (latest.partition, latest.offset):
            self.left_out[SUPERSEDED] += 1
        elif latest.encoder is not None and self._erased.covers(collection, who, latest.revision):
            self.left_out[ERASED] += 1
        else:
            self.chosen += 1
            kind = EncodingErased if latest.encoder is None else EncodingComputed
            return ChosenEvent(record, kind.__name__, collection, who, latest.revision)
        return None

    def _problem(
        self, event: EventAsRead, identity: tuple[str, str], wanted: RejectionAnswer | EncodingAnswer | None
    ) -> str | None:
        """Why a record is left out; None: it is chosen; empty: it was not asked for."""
        match wanted:
            case RejectionAnswer() if wanted.event_id != identity[1]:
                return ""
            case EncodingAnswer() if wanted.revision != event.revision:
                return ""
            case _:
                pass
        if not isinstance(event, IndividualDeleted) and self._erased.covers(
            event.collection, event.individual_id, event.revision
        ):
            return ERASED
        if identity in self._seen:
            return REPEATED
        self._seen.add(identity)
        return None


def _read(record: Readable) -> tuple[EventAsRead, tuple[str, str]]:
    """The event of a record, with its source and id, which identify it. Raises UnreadableError."""
    if record.topic == ENCODINGS.name:  # millions of records: only what is needed is read
        event, headers = decode_as_sent(record), dict(record.headers)
        source, event_id = headers["ce_source"], headers["ce_id"]
        return event, ((source or b"").decode(), (event_id or b"").decode())
    message = decode(record, INDIVIDUALS)
    return message.event, (message.source, message.id)


def _some(names: Collection[str], most: int = 10) -> str:
    shown = sorted(names)[:most]
    return (", ".join(shown) or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
