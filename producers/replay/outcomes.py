"""What became of individuals: who was rejected and why, who is encoded and by what. Folds over the log. Pure."""

from collections.abc import Container
from contextlib import suppress
from typing import NamedTuple

from schemas.envelope import StoredRecord, UnreadableError, decode, decode_as_sent
from schemas.events.encodings import EncodingAsSent, Rank, RejectionReason
from schemas.topics import REJECTIONS

NO_ANSWER = "no answer yet"


class RejectionAnswer(NamedTuple):
    """The latest rejection of an individual: that of the highest revision, of several the last."""

    revision: int
    timestamp: int
    reason: RejectionReason
    event_id: str


class EncodingAnswer(NamedTuple):
    """The latest record of an individual in `encodings`, and where it stands. Without an encoder: erased."""

    revision: int
    timestamp: int
    partition: int
    offset: int
    encoder: str | None

    @property
    def rank(self) -> Rank:
        """See `Rank`."""
        return Rank(self.revision, self.encoder is None)


class Outcomes:
    """The latest rejection and the latest encoding of each individual, or of those in `whose`."""

    def __init__(self, whose: Container[str] | None = None) -> None:
        self._whose = whose
        self.rejections: dict[str, RejectionAnswer] = {}
        self.encodings: dict[str, EncodingAnswer] = {}

    def add_rejection(self, record: StoredRecord) -> None:
        """Take in a record of `rejections`. What cannot be read is a dead letter."""
        key = (record.key or b"").decode(errors="replace")
        if self._whose is not None and key not in self._whose:
            return
        with suppress(UnreadableError):
            event = decode(record, REJECTIONS).event
            one = RejectionAnswer(event.revision, record.timestamp, event.reason, event.event_id)
            self.rejections[key] = max(one, self.rejections.get(key, one))

    def add_encoding(self, record: StoredRecord) -> None:
        """Take in a record of `encodings`. What cannot be read is a dead letter."""
        key = (record.key or b"").decode(errors="replace")
        if self._whose is not None and key not in self._whose:
            return
        with suppress(UnreadableError):
            event = decode_as_sent(record)
            encoder = event.encoder if isinstance(event, EncodingAsSent) else None
            before = self.encodings.get(key)
            if before is None or before.rank <= event.rank:
                self.encodings[key] = EncodingAnswer(
                    event.revision, record.timestamp, record.partition, record.offset, encoder
                )

    def is_encoded(self, key: str, revision: int) -> bool:
        """Whether that revision of an individual, or a higher one, is encoded, or erased."""
        encoding = self.encodings.get(key)
        return encoding is not None and encoding.revision >= revision

    def of(self, key: str, revision: int) -> str:
        """What became of that revision of an individual, in words."""
        encoding, rejection = self.encodings.get(key), self.rejections.get(key)
        if encoding is not None and encoding.revision >= revision:
            if encoding.encoder is None:
                return "erased"
            return f"encoded by {encoding.encoder}" if encoding.revision == revision else "a later revision is encoded"
        if rejection is not None and rejection.revision >= revision:
            return f"rejected: {rejection.reason}" if rejection.revision == revision else "a later one is rejected"
        return NO_ANSWER
