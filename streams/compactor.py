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
from streams.segment import Quality, build_segment

log = logging.getLogger(__name__)

NAME = "compactor"
BYTES_OF_A_RECORD = 4_000  # measured: see "Compaction" in the README
Progress = Callable[[str, int, int], None]
"""Told what is under way, how far it is, and to where it goes."""


class UnknownCollectionError(Exception):
    """Nobody was ever registered in that collection."""


class BelowFloorError(Exception):
    """No index that was tried finds as much as the recall floor asks. What was there stays in service."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was built of an encoder in a collection, from the log below `offset`. Times in seconds."""

    collection: str
    encoder: str
    offset: int
    people: int
    quality: Quality
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
        UnknownCollectionError and BelowFloorError.
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
        if segment.quality.recall < settings.recall_floor:
            raise BelowFloorError(
                f"{collection}: the densest index that was tried has a recall of {segment.quality.recall:.4f}, the "
                f"floor is {settings.recall_floor}; the segments in service stay"
            )
        built = time.monotonic()
        self._progress("storing", 0, len(segment))
        lease.check()
        blob = self._inbox.chunks.put(pack_segment(segment))
        try:
            self._progress("storing", len(segment), len(segment))
            entry = SegmentEntry(blob=blob, rows=len(segment), quality=segment.quality)
            compacted = Compacted(collection=collection, encoder=encoder, offset=offset, made_at=made_at, segment=entry)
            self._inbox.put(compacted, lease)
        except BaseException:
            self._inbox.chunks.remove(blob.chunks())
            raise
        self._inbox.remove_litter()  # what it replaced
        stored_s = time.monotonic() - built
        return Result(collection, encoder, offset, len(segment), segment.quality, built - begun, stored_s)

    def _needed_before(self, collection: str, encoder: str, people: int) -> Quality | None:
        """What a segment of about that size needed."""
        manifest = self._inbox.manifest()
        scopes = () if manifest is None else manifest.scopes
        return next(
            (
                segment.quality
                for scope in scopes
                for segment in scope.segments
                if (scope.collection, scope.encoder) == (collection, encoder) and people <= 2 * segment.rows
            ),
            None,
        )
