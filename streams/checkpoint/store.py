"""Checkpoints of a partition in Redis: what spares a matcher to read the whole log when it starts.

A checkpoint is a cache. Whatever is wrong with it is found when it is read, and the state comes from the log instead.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

import structlog
from redis import Redis
from redis.exceptions import OutOfMemoryError

from runtime.servers.redis import key, value_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import TOMBSTONES_KEPT
from streams.checkpoint.chunks import KEEP_CHUNKS, Chunks
from streams.checkpoint.files import pack_absent, pack_rest, pack_segment, unpack_absent, unpack_rest, unpack_segment
from streams.checkpoint.handover import Inbox, field_of
from streams.checkpoint.manifest import (
    AbsentEntry,
    Blob,
    CompactedSegment,
    Manifest,
    ScopeEntry,
    SegmentEntry,
    UnusableError,
)
from streams.checkpoint.state import ScopeState, State
from streams.gallery.segment import Segment
from streams.gallery.without_vector import WithoutVector

log = structlog.stdlib.get_logger(__name__)

# In one step: only if nobody else has published since, and only if every chunk is there. What it has from the inbox is
# removed there: its chunks are named by one or the other at any time.
_PUBLISH = f"""
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'changed' end
{KEEP_CHUNKS}
redis.call('SET', KEYS[1], ARGV[2])
for i = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 'published'
"""
_PUBLISHED, _CHANGED, _MISSING = "published", "changed", "missing"


class CheckpointStore:
    """The checkpoint of one shard's partition. `save` and `load` are called from one thread at a time."""

    def __init__(self, settings: Settings, redis: Redis, shard: Shard, partition: int) -> None:
        self._log = log.bind(partition=partition, **({"shard": str(shard)} if shard.count > 1 else {}))
        self._redis = redis
        self._manifest_key = key(settings, "manifest", shard, partition)
        self._chunks = Chunks(redis, key(settings, "chunk", shard, partition))
        self._inbox = Inbox(settings, redis, shard, partition)
        self._taken: dict[bytes, CompactedSegment] = {}
        self._publish = redis.register_script(_PUBLISH)
        self._stored: WeakKeyDictionary[Segment | WithoutVector, Blob] = WeakKeyDictionary()

    def load(self, log_end: int) -> State | None:
        """The state of the checkpoint, None where there is none or it cannot be used; the log says why.

        `log_end` is the offset that the next record of the log will get.
        """
        while True:
            value = self._redis.get(self._manifest_key)
            if not isinstance(value, bytes):
                if log_end:
                    self._log.info("Redis has no checkpoint: the state comes from the log")
                return None
            try:
                return self._state(_checked(value, log_end))
            except UnusableError as error:
                if self._redis.get(self._manifest_key) != value:
                    continue  # replaced while it was read
                self._log.warning("the checkpoint is not used: the state comes from the log", because=str(error))
                self._redis.delete(self._manifest_key)
                left = self._inbox.entries().values()
                self._chunks.remove_others({chunk for one in left for chunk in one.segment.blob.chunks()})
                return None

    def compacted(self) -> dict[bytes, CompactedSegment]:
        """What compaction left to be taken, by its value in Redis."""
        return self._inbox.entries()

    def take(self, value: bytes, compacted: CompactedSegment) -> Segment | None:
        """A segment that compaction made, None where it cannot be used; the log says why.

        It is removed from where it lay once a state that has it is saved.
        """
        try:
            segment = self._segment(compacted.segment)
        except UnusableError as error:
            of = f"{compacted.collection}/{compacted.encoder}"
            self._log.warning("a compacted segment is not used", of=of, because=str(error))
            self._inbox.remove(value, compacted)
            return None
        self._taken[value] = compacted
        return segment

    def save(self, state: State, is_ours: Callable[[], bool]) -> bool:
        """Write what Redis does not have yet, then the manifest in one step; then remove what it replaced.

        Nothing is written where `is_ours` says that the partition has gone to another process, or where a later
        checkpoint is there already. False where it was not written; the one before stays.
        """
        outcome = _MISSING
        while outcome == _MISSING and is_ours():
            written: list[Blob] = []
            try:
                manifest = self._write(state, written)
                outcome = self._put_in_place(manifest) if is_ours() else "lost meanwhile"
            except OutOfMemoryError:
                self._log.error("Redis has no memory left for a checkpoint: a start reads more of the log")
                outcome = "out of memory"
            if outcome == _PUBLISHED:
                return True
            self._chunks.remove(chunk for blob in written for chunk in blob.chunks())
            self._forget(self._stored.values() if outcome == _MISSING else written)
        return False

    def _forget(self, blobs: Iterable[Blob]) -> None:
        gone = {blob.id for blob in blobs}
        for sealed in [one for one, blob in self._stored.items() if blob.id in gone]:
            del self._stored[sealed]

    def _write(self, state: State, written: list[Blob]) -> Manifest:
        def stored(sealed: Segment | WithoutVector) -> Blob:
            if sealed not in self._stored:
                parts = pack_segment(sealed) if isinstance(sealed, Segment) else pack_absent(sealed)
                blob = self._stored[sealed] = self._chunks.put(parts)
                written.append(blob)
            return self._stored[sealed]

        scopes = []
        for scope in state.scopes:
            rest = self._chunks.put(pack_rest(scope.rest))
            written.append(rest)
            segments = tuple(
                SegmentEntry(blob=stored(segment), rows=len(segment), quality=segment.quality)
                for segment in scope.segments
            )
            scopes.append(
                ScopeEntry(
                    collection=scope.collection,
                    encoder=scope.encoder,
                    segments=segments,
                    rest=rest,
                    compacted_at=scope.compacted_at,
                )
            )
        absent = tuple(AbsentEntry(collection=name, blob=stored(one)) for name, one in state.absent)
        return Manifest(offset=state.offset, made_at=datetime.now(UTC), scopes=tuple(scopes), absent=absent)

    def _put_in_place(self, manifest: Manifest) -> str:
        chunks = manifest.chunks()
        keys = [self._manifest_key, self._inbox.key, *(self._chunks.key(chunk) for chunk in chunks)]
        has = {(scope.collection, scope.encoder, scope.compacted_at) for scope in manifest.scopes}
        in_it = {value: one for value, one in self._taken.items() if (one.collection, one.encoder, one.made_at) in has}
        taken = [argument for value, one in in_it.items() for argument in (field_of(one), value)]
        outcome = _CHANGED
        while outcome == _CHANGED:
            value = value_of(self._redis, self._manifest_key)
            before = _readable(value)
            if before is not None and before.offset > manifest.offset:
                self._log.warning("Redis has a later checkpoint: this one is dropped")
                return "late"
            outcome = self._publish(keys=keys, args=[value, manifest.to_bytes(), *taken]).decode()
        if outcome == _PUBLISHED and before is not None:
            kept = set(chunks)
            self._chunks.remove(chunk for chunk in before.chunks() if chunk not in kept)
        if outcome == _PUBLISHED:
            for gone in in_it:
                del self._taken[gone]
        if outcome == _MISSING:
            self._log.warning("Redis lost parts of the checkpoint: it is written anew")
        return outcome

    def _state(self, manifest: Manifest) -> State:
        scopes = []
        for scope in manifest.scopes:
            segments = [self._segment(entry) for entry in scope.segments]
            with self._chunks.files_of(scope.rest) as parts:
                rest = unpack_rest(parts)
            scopes.append(ScopeState(scope.collection, scope.encoder, segments, rest, scope.compacted_at))
        return State(
            manifest.offset, scopes, [(entry.collection, self._absent(entry.blob)) for entry in manifest.absent]
        )

    def _segment(self, entry: SegmentEntry) -> Segment:
        with self._chunks.files_of(entry.blob) as parts:
            try:
                segment = unpack_segment(parts, entry.quality)
            except (RuntimeError, ValueError, EOFError) as error:
                raise UnusableError(f"a segment cannot be read: {error}") from error
        self._stored[segment] = entry.blob
        return segment

    def _absent(self, blob: Blob) -> WithoutVector:
        with self._chunks.files_of(blob) as parts:
            absent = unpack_absent(parts)
        self._stored[absent] = blob
        return absent


def _checked(value: bytes, log_end: int) -> Manifest:
    manifest = Manifest.from_bytes(value)
    manifest.check_age(TOMBSTONES_KEPT)
    if manifest.offset > log_end:
        raise UnusableError(f"it is of offset {manifest.offset} and the log ends at {log_end}: it is of another log")
    return manifest


def _readable(value: bytes) -> Manifest | None:
    try:
        return Manifest.from_bytes(value)
    except UnusableError:
        return None
