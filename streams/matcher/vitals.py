"""What a matcher says of each partition for `facematch status`: a value in Redis, written every few seconds."""

from collections.abc import Iterator
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from redis import Redis

from runtime.servers.redis import key
from schemas.settings import Settings
from schemas.shard import Shard
from streams.gallery.gallery import Gallery
from streams.gallery.segment import IndexQuality


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SegmentVitals(_Model):
    """A sealed segment."""

    rows: int
    living: int
    quality: IndexQuality


class ScopeVitals(_Model):
    """The embeddings of one encoder in one collection. `delta`: rows that are searched exactly."""

    collection: str
    encoder: str
    people: int
    delta: int
    segments: tuple[SegmentVitals, ...]
    compacted_at: datetime | None


class PartitionVitals(_Model):
    """How things stood with a partition at `at`. All below offset `matched` is matched."""

    partition: int
    shard: str
    matched: int
    at: datetime
    scopes: tuple[ScopeVitals, ...]


def vitals_of(gallery: Gallery, partition: int, matched: int, now: datetime) -> PartitionVitals:
    """The vitals of a partition whose gallery has all records below offset `matched`."""
    scopes = tuple(
        ScopeVitals(
            collection=collection,
            encoder=encoder,
            people=scope.living,
            delta=len(scope.delta),
            segments=tuple(
                SegmentVitals(rows=len(segment), living=segment.living, quality=segment.quality)
                for segment in scope.segments
            ),
            compacted_at=scope.compacted_at,
        )
        for collection, encoder, scope in gallery.scopes()
    )
    return PartitionVitals(partition=partition, shard=str(gallery.shard), matched=matched, at=now, scopes=scopes)


def write_vitals(redis: Redis, settings: Settings, shard: Shard, vitals: PartitionVitals) -> None:
    """Keep them in the place of what was said before."""
    redis.set(key(settings, "vitals", shard, vitals.partition), vitals.model_dump_json())


def read_vitals(redis: Redis, settings: Settings) -> Iterator[PartitionVitals]:
    """Of every partition of every shard that any matcher spoke of."""
    for name in redis.scan_iter(match=key(settings, "vitals", "*", "*"), count=1000):
        value = redis.get(name)
        if value is not None:
            yield PartitionVitals.model_validate_json(value)
