"""What a user chose to replay. Pure."""

import re
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from schemas.envelope import StoredRecord
from schemas.events.base import individual_of
from schemas.events.encodings import RejectionReason
from schemas.faults import UserFault
from schemas.topics import ENCODINGS

_OFFSETS = re.compile(r"(\d+):(\d+)(?:-(\d*))?")


class SelectionError(UserFault):
    """A selection that contradicts itself. The text says what to do."""


class Offsets(NamedTuple):
    """Offsets of a partition, from `begin` on; below `end`, where there is one."""

    partition: int
    begin: int
    end: int | None

    @classmethod
    def parse(cls, text: str) -> "Offsets":
        """3:100-200 are the offsets 100 to 200 of partition 3, 3:100- all from 100 on, 3:100 is one."""
        found = _OFFSETS.fullmatch(text)
        if found is None:
            raise SelectionError(f"{text}: offsets are PARTITION:FROM-TO, PARTITION:FROM- or PARTITION:OFFSET")
        partition, begin, end = int(found[1]), int(found[2]), found[3]
        last = begin if end is None else int(end) if end else None
        if last is not None and last < begin:
            raise SelectionError(f"{text}: the last offset comes before the first")
        return cls(partition, begin, None if last is None else last + 1)


class Selection(BaseModel):
    """What a user chose. All parts must hold of a record.

    `since` and `until` are about when the record was published; where an outcome is asked for (`reason`, `encoder`),
    about when that was.
    """

    model_config = ConfigDict(frozen=True)

    topic: Literal["individuals", "encodings"] = "individuals"
    file: Path | None = None
    since: datetime | None = None
    until: datetime | None = None
    offsets: tuple[Offsets, ...] = ()
    collection: str | None = None
    individuals: tuple[str, ...] = ()
    reason: RejectionReason | None = None
    encoder: str | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.reason and self.encoder:
            raise SelectionError("--reason and --encoder: who was rejected was not encoded; choose one of them")
        if self.reason and self.topic == ENCODINGS.name:
            raise SelectionError("--reason: who was rejected is not in `encodings`; replay from `individuals`")
        if self.file and self.offsets:
            raise SelectionError("--offsets are of a topic; a file has none")
        if self.file and not self.has_outcome and (self.since or self.until):
            raise SelectionError("--since and --until: a file does not hold when its records were published")
        if self.since and self.until and self.until <= self.since:
            raise SelectionError("--until is not after --since: nothing lies between")
        return self

    @property
    def has_outcome(self) -> bool:
        """Whether it asks what became of the events."""
        return self.reason is not None or self.encoder is not None

    @property
    def origin(self) -> str:
        """What it chooses from, for people."""
        return self.topic if self.file is None else str(self.file)

    def is_in_time(self, timestamp: int) -> bool:
        """Whether that timestamp, in milliseconds, lies within its times."""
        seconds = timestamp / 1000
        return not (
            (self.since is not None and seconds < self.since.timestamp())
            or (self.until is not None and seconds >= self.until.timestamp())
        )

    def is_at(self, record: StoredRecord) -> bool:
        """Whether a record stands at one of its offsets."""
        return any(
            partition == record.partition and begin <= record.offset and (end is None or record.offset < end)
            for partition, begin, end in self.offsets
        )

    def is_about(self, key: str) -> bool:
        """Whether it chooses the individual with that key."""
        collection, who = individual_of(key)
        return self.collection in (None, collection) and (not self.individuals or who in self.individuals)
