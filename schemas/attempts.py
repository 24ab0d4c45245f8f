"""What readers of Kafka died of: where each began, what it had in hand, and the records that are passed over. Pure.

Both are values of the topic `skipped`, and nothing of a person is in them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from schemas.envelope import Record, StoredRecord
from schemas.topics import SKIPPED

FATAL_ALONE = 2  # deaths with one record alone in hand: that record is set aside
MOST_IN_A_ROW = 3  # records set aside with none answered between: more would be a fault of the program, not of records
COMPACTION = "compaction"
"""Who passes over records of `duplicates` in a compaction; of `encodings` it passes over what a matcher does."""
_PLACE = re.compile(r"([a-z-]+)/([0-9]{1,9})/([0-9]{1,18})")


class Position(NamedTuple):
    """Where a record stands; as text topic/partition/offset, with the topic's name in the topic table."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`. Raises ValueError."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not topic/partition/offset, as individuals/0/17")
        return cls(found[1], int(found[2]), int(found[3]))


class Attempt(BaseModel):
    """How a reader has fared with a partition, as it was noted before work that may end its process.

    It began at offset `begin`. Before that it ended without a word `deaths` times, there or, the first time, before.
    `in_hand` are the first and the last offset of the records under way; None: any from `begin` on. `suspects`: one of
    the records between these two offsets was in hand at a death. `alone` has the deaths with a single record in hand,
    by its offset. `set_aside` records in a row were set aside.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    begin: int
    deaths: int = 0
    in_hand: tuple[int, int] | None = None
    suspects: tuple[int, int] | None = None
    alone: dict[int, int] = {}
    set_aside: int = 0

    def resumed(self, begin: int) -> "Attempt":
        """The attempt of whoever begins at an offset after this one ended without a word."""
        alone, suspects = dict(self.alone), self.suspects
        if self.in_hand is not None:
            first, last = self.in_hand
            if first == last:
                alone[first] = alone.get(first, 0) + 1
            else:
                suspects = self.in_hand
        return Attempt(
            begin=begin,
            deaths=self.deaths + 1 if begin == self.begin else 1,
            suspects=suspects if suspects is not None and suspects[1] >= begin else None,
            alone={offset: deaths for offset, deaths in alone.items() if offset >= begin},
            set_aside=self.set_aside,
        )

    def takes_alone(self, offset: int) -> bool:
        """Whether a record is taken by itself: it may be what the reader died of."""
        return offset in self.alone or (self.suspects is not None and self.suspects[0] <= offset <= self.suspects[1])

    def is_past(self, offset: int) -> bool:
        """Whether every record that the reader may have died of stands before an offset."""
        return all(one < offset for one in (*self.alone, *(self.suspects or ())))

    def holding(self, records: Sequence[StoredRecord]) -> "Attempt":
        """With these records, of one partition, in hand; none: with nothing known of what is."""
        held = (records[0].offset, records[-1].offset) if records else None
        return self.model_copy(update={"in_hand": held})


def portions_of(attempt: Attempt, records: Iterable[StoredRecord]) -> list[list[StoredRecord]]:
    """Records of one partition in portions, in their order: each suspect by itself, what lies between together."""
    portions: list[list[StoredRecord]] = []
    may_grow = False
    for record in records:
        is_alone = attempt.takes_alone(record.offset)
        if may_grow and not is_alone:
            portions[-1].append(record)
        else:
            portions.append([record])
        may_grow = not is_alone
    return portions


class Skipped(BaseModel):
    """A record is passed over by a reader, for good: it becomes a dead letter. `why` is for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reader: str
    why: str


def note_of(group: str, topic: str, partition: int, attempt: Attempt | None) -> Record:
    """The record of an attempt; None withdraws what was noted."""
    value = None if attempt is None else attempt.model_dump_json(exclude_defaults=True).encode()
    return Record(SKIPPED.name, f"tried/{group}/{topic}/{partition}".encode(), value, (), partition=0)


def skip_of(position: Position, skipped: Skipped) -> Record:
    """The record by which a reader passes over that at a position."""
    key = f"skipped/{skipped.reader}/{position}".encode()
    return Record(SKIPPED.name, key, skipped.model_dump_json().encode(), (), partition=0)


class Noted:
    """What the topic `skipped` has: the attempts of a group, and the positions that a reader passes over."""

    def __init__(self, group: str, reader: str) -> None:
        self._tried, self._skipped = f"tried/{group}/", f"skipped/{reader}/"
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self.skipped: set[Position] = set()

    def add(self, records: Iterable[StoredRecord]) -> None:
        """Add records, in the order of the log. What cannot be read is of a later version, and left out."""
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            try:
                if key.startswith(self._tried):
                    topic, partition = key.removeprefix(self._tried).split("/")
                    self._note((topic, int(partition)), record.value)
                elif key.startswith(self._skipped):
                    self._skip(Position.parse(key.removeprefix(self._skipped)), record.value)
            except ValueError:
                continue

    def _note(self, place: tuple[str, int], value: bytes | None) -> None:
        self.attempts.pop(place, None)
        if value is not None:
            self.attempts[place] = Attempt.model_validate_json(value)

    def _skip(self, position: Position, value: bytes | None) -> None:
        self.skipped.discard(position)
        if value is not None:
            self.skipped.add(position)
