"""The vitals of each partition for `facematch status`: a value in Redis, written every 2 s."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from redis import Redis

from runtime.servers.redis import key
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from streams.gallery.gallery import Gallery
from streams.gallery.segment import IndexQuality
from streams.matcher.candidates import CandidateWatch


class _VitalsModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class SegmentVitals(_VitalsModel):
    """A sealed segment."""

    rows: int
    living: int
    quality: IndexQuality


class ScopeVitals(_VitalsModel):
    """One encoder in one collection. `people`: living rows; `delta`: rows that are searched exactly.

    `threshold`: the one in force, None where there is none. `newcomers`, `candidates`, `expected`: see CandidateCounts.
    `strangers`: how many pairs of strangers are within the threshold in the whole collection, by the encoder's
    operating points; None where nobody has measured that.
    """

    collection: str
    encoder: str
    people: int
    delta: int
    segments: tuple[SegmentVitals, ...]
    compacted_at: datetime | None
    begun_at: datetime | None = None
    threshold: float | None = None
    newcomers: float = 0
    candidates: float = 0
    expected: float = 0
    strangers: float | None = None


class PartitionVitals(_VitalsModel):
    """The vitals of a partition at the time `at`. Everything below offset `matched` is matched."""

    partition: int
    shard: str
    matched: int
    at: datetime
    scopes: tuple[ScopeVitals, ...]


def vitals_of(
    gallery: Gallery, watch: CandidateWatch, thresholds: Thresholds, partition: int, matched: int, now: datetime
) -> PartitionVitals:
    """The vitals of a partition whose gallery has all records below offset `matched`."""

    def of_candidates(collection: str, encoder: str) -> dict[str, float | None]:
        living = gallery.collections[collection].living
        strangers = thresholds.strangers(collection, encoder, living)
        return {
            "threshold": thresholds.of(collection, encoder, living),
            "strangers": None if strangers is None else strangers * living / 2,
            **asdict(watch.of(collection, encoder)),
        }

    scopes = tuple(
        ScopeVitals(
            **of_candidates(collection, encoder),
            collection=collection,
            encoder=encoder,
            people=scope.living,
            delta=len(scope.delta),
            segments=tuple(
                SegmentVitals(rows=len(segment), living=segment.living, quality=segment.quality)
                for segment in scope.segments
            ),
            compacted_at=scope.compacted_at,
            begun_at=scope.begun_at,
        )
        for collection, encoder, scope in gallery.scopes()
    )
    return PartitionVitals(partition=partition, shard=str(gallery.shard), matched=matched, at=now, scopes=scopes)


def write_vitals(redis: Redis, settings: Settings, shard: Shard, vitals: PartitionVitals) -> None:
    """Replace the vitals of the partition in Redis."""
    redis.set(key(settings, "vitals", shard, vitals.partition), vitals.model_dump_json())


def read_vitals(redis: Redis, settings: Settings) -> Iterator[PartitionVitals]:
    """The vitals of every partition and shard that a matcher ever wrote."""
    for name in redis.scan_iter(match=key(settings, "vitals", "*", "*"), count=1000):
        value = redis.get(name)
        if value is not None:
            yield PartitionVitals.model_validate_json(value)
