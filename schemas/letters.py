"""Dead letters: messages that could not be read, where they stood and why, and what was done about each.

Both are records of the topic `dead-letters`. A letter is the message as it came, behind whose headers stand those that
begin with `dead_letter_`. What was done is a record of its own behind the letter, so that it is kept as long as the
letter is; its key is the letter's name.
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from schemas.envelope import UNREADABLE, Headers, Record, StoredRecord, UnreadableError
from schemas.topics import DEAD_LETTERS, MOST_LETTER_BYTES

REDRIVEN = "redriven"  # header of a message that was sent again: how often it was; a letter that comes of it has it too
_PREFIX = "dead_letter_"
_REMOVED = "records that Kafka removed: "
_SETTLED_HEADER = "dead_letter_settled"


class Origin(NamedTuple):
    """Where a message stood that could not be read, who tried to, and why it failed: the headers `dead_letter_*`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    consumer: str
    error: str

    @property
    def name(self) -> str:
        """What the letter is called: topic/partition/offset. However often it is written, it is one."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def headers(self) -> Headers:
        """A header for each field."""
        return tuple((_PREFIX + name, str(value).encode()) for name, value in self._asdict().items())

    @classmethod
    def split(cls, headers: Headers) -> "tuple[Origin, Headers] | None":
        """What the headers of a letter hold, and the headers of the message itself; None where one is missing.

        Of several with one name the last is the letter's: the message may have come with headers of such names.
        """
        last = {name: place for place, (name, _) in enumerate(headers)}
        places = [last.get(_PREFIX + field) for field in cls._fields]
        texts = [(headers[place][1] or b"").decode(errors="replace") for place in places if place is not None]
        if len(texts) < len(places):
            return None
        topic, partition, offset, timestamp, consumer, error = texts
        try:
            origin = cls(topic, int(partition), int(offset), int(timestamp), consumer, error)
        except ValueError:
            return None
        return origin, tuple(header for place, header in enumerate(headers) if place not in places)


def dead_letter(record: StoredRecord, error: UnreadableError | str, consumer: str) -> Record:
    """The record for `dead-letters`: the bytes and headers as they came, and beside them where from and why.

    Of a record that is too large for the topic, where it stood, and its size and SHA-256.
    """
    origin = Origin(record.topic, record.partition, record.offset, record.timestamp, consumer, str(error))
    headers = tuple(header for header in record.headers if header[0] != UNREADABLE)
    parts = [record.key or b"", record.value or b"", *(name.encode() + (value or b"") for name, value in headers)]
    size = sum(map(len, parts))
    lost = f"{origin.error}; it is not kept: {size} bytes, the SHA-256 of its value is {_sha256(record.value)}"
    summary = Record(DEAD_LETTERS.name, None, None, origin._replace(error=lost).headers())
    if size > MOST_LETTER_BYTES:
        return summary
    return Record(DEAD_LETTERS.name, record.key, record.value, (*headers, *origin.headers()), smaller=summary)


def _sha256(value: bytes | None) -> str:
    return hashlib.sha256(value or b"").hexdigest()


def letter_of_removed(topic: str, partition: int, first: int, end: int, consumer: str) -> Record:
    """The letter of records that Kafka removed before `consumer` had read them: from offset `first` on, below `end`.

    Nothing is known of them but where they stood.
    """
    error = f"{_REMOVED}{end - first} (offsets {first} to {end - 1}); {consumer} had not read them"
    origin = Origin(topic, partition, first, 0, consumer, error)
    return Record(DEAD_LETTERS.name, None, None, origin.headers())


def removed_records(error: str) -> int:
    """How many records were removed, by the error of such a letter; 0 for any other."""
    found = re.match(f"{re.escape(_REMOVED)}([0-9]+)", error)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that could not be read: `record`, as it came and where it stood.

    `at` is when `consumer` wrote the letter (milliseconds since 1970), `error` why: it holds no value of the message.
    """

    record: StoredRecord
    consumer: str
    error: str
    at: int

    @property
    def name(self) -> str:
        """Where the message stood: topic/partition/offset. However often a letter of it is written, it is one."""
        return self.record.position

    @property
    def redriven(self) -> int:
        """How often the message had been sent again before it became this letter."""
        return times_redriven(self.record.headers)


def times_redriven(headers: Headers) -> int:
    """How often a message with these headers was sent again."""
    count = dict(headers).get(REDRIVEN) or b""
    return int(count) if re.fullmatch(rb"[0-9]{1,9}", count) else 0


class LetterOutcome(StrEnum):
    """What was done about a letter."""

    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class Settled(BaseModel):
    """Something was done about a letter; the last counts. `by` and `note`: who discarded it, and why."""

    model_config = ConfigDict(frozen=True)

    letter: str
    outcome: LetterOutcome
    by: str | None = None
    note: str | None = None


def settled_record(settled: Settled) -> Record:
    """The record for `dead-letters`."""
    value = settled.model_dump_json(exclude_none=True).encode()
    return Record(DEAD_LETTERS.name, settled.letter.encode(), value, ((_SETTLED_HEADER, settled.outcome.encode()),))


def read_letter(record: StoredRecord) -> Letter | Settled | None:
    """The letter in a record of `dead-letters`; None where it was not written by facematch."""
    if [name for name, _ in record.headers] == [_SETTLED_HEADER]:
        return Settled.model_validate_json(record.value or b"")
    found = Origin.split(record.headers)
    if found is None:
        return None
    origin, came = found
    message = StoredRecord(
        origin.topic, record.key, record.value, came, origin.partition, origin.offset, origin.timestamp
    )
    return Letter(message, origin.consumer, origin.error, record.timestamp)
