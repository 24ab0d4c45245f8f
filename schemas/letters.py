"""Dead letters: messages that could not be read, where they stood and why, and what was done about each.

Both are records of the topic `dead-letters`. A letter is the message as it came, behind whose headers stand those that
begin with `dead_letter_`. What was done is a record of its own behind the letter, so that it is kept as long as the
letter is; its key is the letter's name.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from schemas.envelope import Record, UnreadableError
from schemas.topics import DEAD_LETTERS

REDRIVEN = "redriven"  # header of a message that was sent again: how often it was; a letter that comes of it has it too
_POSITION = ("topic", "partition", "offset", "timestamp", "consumer", "error")
_LETTER_HEADERS = [f"dead_letter_{name}" for name in _POSITION]
_SETTLED_HEADER = "dead_letter_settled"


def dead_letter(record: Record, error: UnreadableError, consumer: str) -> Record:
    """The record for `dead-letters`: the bytes and headers as they came, and beside them where from and why."""
    position = (record.topic, record.partition, record.offset, record.timestamp, consumer, error)
    headers = tuple((name, str(value).encode()) for name, value in zip(_LETTER_HEADERS, position, strict=True))
    return Record(DEAD_LETTERS.name, record.key, record.value, (*record.headers, *headers))


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that could not be read: `record`, as it came and where it stood.

    `at` is when `consumer` wrote the letter (milliseconds since 1970), `error` why: it holds no value of the message.
    """

    record: Record
    consumer: str
    error: str
    at: int

    @property
    def name(self) -> str:
        """Where the message stood: topic/partition/offset. However often a letter of it is written, it is one."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"

    @property
    def redriven(self) -> int:
        """How often the message had been sent again before it became this letter."""
        count = dict(self.record.headers).get(REDRIVEN) or b""
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


def read_letter(record: Record) -> Letter | Settled | None:
    """What a record of `dead-letters` says; None where others wrote it."""
    if [name for name, _ in record.headers] == [_SETTLED_HEADER]:
        return Settled.model_validate_json(record.value or b"")
    came, added = record.headers[: -len(_POSITION)], record.headers[-len(_POSITION) :]
    if [name for name, _ in added] != _LETTER_HEADERS:
        return None
    topic, partition, offset, timestamp, consumer, error = ((value or b"").decode() for _, value in added)
    message = Record(topic, record.key, record.value, came, int(partition), int(offset), timestamp=int(timestamp))
    return Letter(message, consumer, error, record.timestamp or 0)
