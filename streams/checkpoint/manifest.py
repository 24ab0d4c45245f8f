"""The manifest of a checkpoint: one value in Redis, which names all chunks of the checkpoint."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from streams.gallery.segment import IndexQuality


class UnusableError(Exception):
    """A checkpoint that cannot be used. The text says why; the state comes from the log."""


class _ManifestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlobPart(_ManifestModel):
    """A file, cut into chunks, each with its SHA-256."""

    checksums: tuple[str, ...]


class Blob(_ManifestModel):
    """Files by name that belong together. Written once, never changed."""

    id: str
    parts: dict[str, BlobPart]

    def chunks(self) -> list[str]:
        """The names of all chunks."""
        return [chunk for name in self.parts for chunk in self.chunks_of(name)]

    def checksum(self) -> str:
        """The SHA-256 of the SHA-256s of its chunks, in their order, in hexadecimal."""
        checksums = (checksum for part in self.parts.values() for checksum in part.checksums)
        return hashlib.sha256("".join(checksums).encode()).hexdigest()

    def chunks_of(self, name: str) -> list[str]:
        """The names of the chunks of a part, in their order."""
        return [f"{self.id}:{name}:{number}" for number in range(len(self.parts[name].checksums))]


class SegmentEntry(_ManifestModel):
    """A sealed segment."""

    blob: Blob
    rows: int
    quality: IndexQuality


class ScopeEntry(_ManifestModel):
    """One encoder in one collection. `rest`: the rows that are not sealed, and which sealed rows are masked."""

    collection: str
    encoder: str
    segments: tuple[SegmentEntry, ...]
    rest: Blob
    compacted_at: datetime | None = None
    begun_at: datetime | None = None


class AbsentEntry(_ManifestModel):
    """Individuals without a vector."""

    collection: str
    blob: Blob


class _Document(_ManifestModel):
    """A document in one value of Redis."""

    format: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """JSON, after its SHA-256."""
        text = self.model_dump_json().encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text

    @classmethod
    def from_bytes(cls, value: bytes) -> Self:
        """The document of `to_bytes`. Raises UnusableError."""
        checksum, _, text = value.partition(b"\n")
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            raise UnusableError("its manifest is corrupt")
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            raise UnusableError("its manifest is of another format") from None


class Manifest(_Document):
    """The manifest of a state. `offset`: it is complete below that offset of the log."""

    offset: int
    made_at: datetime
    scopes: tuple[ScopeEntry, ...]
    absent: tuple[AbsentEntry, ...]

    def blobs(self) -> list[Blob]:
        """The blobs of all entries."""
        segments = [segment.blob for scope in self.scopes for segment in scope.segments]
        return [*segments, *(scope.rest for scope in self.scopes), *(absent.blob for absent in self.absent)]

    def chunks(self) -> list[str]:
        """The names of all chunks."""
        return [chunk for blob in self.blobs() for chunk in blob.chunks()]

    def check_age(self, longest: timedelta) -> None:
        """Raise UnusableError if it is older than `longest`: an erasure since may be gone from the log."""
        age = datetime.now(UTC) - self.made_at
        if age > longest:
            raise UnusableError(f"it is {age.days} days old, and Kafka keeps tombstones for {longest.days}")


class CompactedSegment(_Document):
    """A segment that compaction built of everything below an offset of the log, for one encoder in one collection."""

    collection: str
    encoder: str
    offset: int
    made_at: datetime
    segment: SegmentEntry
