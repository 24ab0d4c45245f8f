"""What a checkpoint consists of: one value in Redis, which names the chunks of all that belongs to it."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from streams.gallery.segment import IndexQuality


class UnusableError(Exception):
    """A checkpoint that is not to be trusted. The text says why; the state is in the log."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlobPart(_Model):
    """A file, cut into chunks, each with its SHA-256."""

    checksums: tuple[str, ...]


class Blob(_Model):
    """Files that belong together, by name. Written once, never changed."""

    id: str
    parts: dict[str, BlobPart]

    def chunks(self) -> list[str]:
        """The names of all chunks."""
        return [chunk for name in self.parts for chunk in self.chunks_of(name)]

    def checksum(self) -> str:
        """SHA-256 of the SHA-256s of its chunks, in their order, in hexadecimal."""
        checksums = (checksum for part in self.parts.values() for checksum in part.checksums)
        return hashlib.sha256("".join(checksums).encode()).hexdigest()

    def chunks_of(self, name: str) -> list[str]:
        """The names of a part's chunks, in their order."""
        return [f"{self.id}:{name}:{number}" for number in range(len(self.parts[name].checksums))]


class SegmentEntry(_Model):
    """A sealed segment."""

    blob: Blob
    rows: int
    quality: IndexQuality


class ScopeEntry(_Model):
    """What is compared with each other. `rest`: what is not sealed, and what is masked."""

    collection: str
    encoder: str
    segments: tuple[SegmentEntry, ...]
    rest: Blob
    compacted_at: datetime | None = None


class AbsentEntry(_Model):
    """Individuals without a vector."""

    collection: str
    blob: Blob


class _Document(_Model):
    """What stands in one value of Redis."""

    format: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """JSON, after its SHA-256."""
        text = self.model_dump_json().encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """See `to_bytes`. Raises UnusableError."""
        checksum, _, text = value.partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            raise UnusableError("its manifest is corrupt")
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise UnusableError("its manifest is of another format") from None


class Manifest(_Document):
    """A state, and the offset of the log up to which it is complete."""

    offset: int
    made_at: datetime
    scopes: tuple[ScopeEntry, ...]
    absent: tuple[AbsentEntry, ...]

    def blobs(self) -> list[Blob]:
        """All that belongs to it."""
        segments = [segment.blob for scope in self.scopes for segment in scope.segments]
        return [*segments, *(scope.rest for scope in self.scopes), *(absent.blob for absent in self.absent)]

    def chunks(self) -> list[str]:
        """The names of all chunks."""
        return [chunk for blob in self.blobs() for chunk in blob.chunks()]

    def check_age(self, longest: timedelta) -> None:
        """Raise UnusableError where an erasure that it does not know of may be gone from the log."""
        age = datetime.now(UTC) - self.made_at
        if age > longest:
            raise UnusableError(f"it is {age.days} days old, and Kafka keeps tombstones for {longest.days}")


class CompactedSegment(_Document):
    """A segment that compaction made of all there was of an encoder in a collection below an offset of the log."""

    collection: str
    encoder: str
    offset: int
    made_at: datetime
    segment: SegmentEntry
