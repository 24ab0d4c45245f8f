"""Compaction: the index of a collection built anew from the log alone, and left for its matcher to take up."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS
from streams.connection import connect, key
from streams.delta import Rows
from streams.fold import Fold
from streams.inbox import Inbox
from streams.lease import Lease, lease_of
from streams.log import PartitionLog
from streams.manifest import Compacted, SegmentEntry
from streams.packing import pack_segment
from streams.segment import Quality, Segment, build_segment

log = logging.getLogger(__name__)

NAME = "compactor"
BYTES_OF_A_RECORD = 4_000  # of memory; 3,400 in a trial with 100,000 people
Progress = Callable[[str, int, int], None]
"""Told what is under way, how far it is, and to where it goes."""


class UnknownCollectionError(Exception):
    """Nobody was ever registered in that collection."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was built of an encoder in a collection, from the log below `offset`. Times in seconds.

    One whose recall is below the floor is not put into service: what was there stays.
    """

    collection: str
    encoder: str
    offset: int
    people: int
    quality: Quality
    is_put_into_service: bool
    built_s: float
    stored_s: float


class Compactor:
    """Of one shard's partition. Interrupted at any point, it leaves what was there; the next run removes its litter."""

    def __init__(self, settings: Settings, shard: Shard, partition: int, threads: int, progress: Progress) -> None:
        self._settings, self._shard, self._partition = settings, shard, partition
        self._threads, self._progress = threads, progress
        self._log = PartitionLog(settings, ENCODINGS, NAME)
        self._redis = connect(settings)
        self._inbox = Inbox(settings, self._redis, shard, partition)

    def records(self) -> int:
        """How many records there may be to read; the log has fewer where Kafka compacted it."""
        begin, end = self._log.bounds(self._partition)
        return end - begin

    def run(self, collection: str | None) -> Iterator[Result]:
        """Rebuild all, or one collection, each encoder by itself.

        Raises HeldError where another compaction is under way, LeaseLostError if another took over,
        LostChunksError where Redis lost what was written, OutOfMemoryError where it is full, UnknownCollectionError.
        """
        with lease_of(self._redis, key(self._settings, "lease", self._shard, self._partition)) as lease:
            removed = self._inbox.remove_litter()
            if removed:
                log.info("partition %d: %d chunks of a compaction that was cut off removed", self._partition, removed)
            begin, end = self._log.bounds(self._partition)
            fold = Fold(collection, self._shard)
            for batch in self._log.read(self._partition, begin, end):
                last = batch[-1].offset
                assert last is not None
                fold.add(batch)
                self._progress("reading", last + 1 - begin, end - begin)
            if collection is not None and fold.is_empty:
                raise UnknownCollectionError(collection)
            living = fold.living()
            del fold
            while living:
                (name, encoder), rows = living.popitem()
                if rows.ids:
                    yield self._rebuild(name, encoder, rows, end, lease)
            self._inbox.remove_litter()  # what was replaced
        self._log.close()

    def _rebuild(self, collection: str, encoder: str, rows: Rows, offset: int, lease: Lease) -> Result:
        settings, made_at, begun = self._settings, datetime.now(UTC), time.monotonic()
        segment = build_segment(
            rows,
            settings.threshold_for(collection),
            settings.recall_floor,
            self._threads,
            self._needed_before(collection, encoder, len(rows.ids)),
            self._progress,
        )
        built = time.monotonic()
        is_good = segment.quality.recall >= settings.recall_floor
        if is_good:
            lease.check()
            self._put_into_service(collection, encoder, segment, offset, made_at, lease)
        return Result(
            collection, encoder, offset, len(segment), segment.quality, is_good, built - begun, time.monotonic() - built
        )

    def _put_into_service(
        self, collection: str, encoder: str, segment: Segment, offset: int, made_at: datetime, lease: Lease
    ) -> None:
        self._progress("storing", 0, len(segment))
        blob = self._inbox.chunks.put(pack_segment(segment))
        try:
            self._progress("storing", len(segment), len(segment))
            entry = SegmentEntry(blob=blob, rows=len(segment), quality=segment.quality)
            compacted = Compacted(collection=collection, encoder=encoder, offset=offset, made_at=made_at, segment=entry)
            self._inbox.put(compacted, lease)
        except BaseException:
            self._inbox.chunks.remove(blob.chunks())
            raise

    def _needed_before(self, collection: str, encoder: str, people: int) -> Quality | None:
        """What a segment of about that size needed."""
        manifest = self._inbox.manifest()
        scopes = () if manifest is None else manifest.scopes
        return next(
            (
                segment.quality
                for scope in scopes
                for segment in scope.segments
                if (scope.collection, scope.encoder) == (collection, encoder)
                and segment.rows / 2 <= people <= 2 * segment.rows
            ),
            None,
        )
