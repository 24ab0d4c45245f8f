"""Checkpoints of a partition in Redis: a matcher that starts need not read the whole log.

A checkpoint is a cache. Whatever is wrong with it is found when it is read; then the state comes from the log instead.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from weakref import WeakKeyDictionary

import structlog
from redis import Redis
from redis.exceptions import OutOfMemoryError

from runtime.servers.redis import key, value_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import TOMBSTONES_KEPT
from streams.checkpoint.chunks import Chunks, NamingScript
from streams.checkpoint.files import (
    Rest,
    pack_absent,
    pack_rest,
    pack_segment,
    unpack_absent,
    unpack_rest,
    unpack_segment,
)
from streams.checkpoint.handover import UNLINK, Inbox, field_of
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

_IF_UNCHANGED = "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 'changed' end"
# Entries of the inbox that the checkpoint has are removed in the same step: their chunks are named at any time.
_REPLACE = """
redis.call('SET', KEYS[1], ARGV[2])
for i = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 'replaced'
"""


class _Outcome(Enum):
    """What became of an attempt to replace the manifest."""

    REPLACED = "replaced"
    CHANGED = "changed"
    """Another process replaced it between reading and replacing."""
    MISSING = "missing"
    """Redis lost a chunk."""
    LATE = "late"
    """The manifest in Redis has a higher offset."""


class CheckpointStore:
    """The checkpoint of one shard's partition. `save` and `load` are called from one thread at a time."""

    def __init__(
        self, settings: Settings, redis: Redis, shard: Shard, partition: int, threads: Executor | None = None
    ) -> None:
        """`threads` read and write chunks; of its own where none are handed in."""
        self._log = log.bind(partition=partition, **({"shard": str(shard)} if shard.count > 1 else {}))
        self._redis = redis
        self._manifest_key = key(settings, "manifest", shard, partition)
        self._chunks = Chunks(redis, key(settings, "chunk", shard, partition), threads=threads)
        self._inbox = Inbox(settings, redis, shard, partition)
        self._taken: dict[bytes, CompactedSegment] = {}
        self._unlink = redis.register_script(UNLINK)
        self._replace_manifest = NamingScript(redis, _IF_UNCHANGED, _REPLACE)
        self._stored: WeakKeyDictionary[Segment | WithoutVector, Blob] = WeakKeyDictionary()

    def load(self, log_end: Callable[[], int]) -> State | None:
        """The state of the checkpoint, None where there is none or it cannot be used; a line is logged that says why.

        `log_end` asks for the offset that the next record of the log will get. It is asked once the checkpoint has been
        read: while a process was stopped between the two, another may have saved one that is ahead of an earlier end.
        """
        while True:
            value = self._redis.get(self._manifest_key)
            if not isinstance(value, bytes):
                if log_end():
                    self._log.info("Redis has no checkpoint: the state comes from the log")
                return None
            try:
                return self._state(_checked(value, log_end()))
            except UnusableError as error:
                if not self._drop(value):
                    continue  # replaced while it was read
                self._log.warning("the checkpoint is not used: the state comes from the log", because=str(error))
                return None

    def compacted(self) -> dict[bytes, CompactedSegment]:
        """The segments that compaction has made for this partition, by their value in Redis."""
        return self._inbox.entries()

    def take(self, value: bytes, compacted: CompactedSegment) -> Segment | None:
        """Load a compacted segment, None where it cannot be used; a line is logged that says why.

        It leaves the inbox once a state that has it is saved.
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
        """Write the chunks that Redis does not have yet, replace the manifest in one step, remove what it replaced.

        Returns False, with the checkpoint before unchanged, where `is_ours` says that the partition belongs to another
        process, where a later checkpoint is there, or where Redis is full.
        """
        manifest: Manifest | None = None
        written: list[Blob] = []
        while is_ours():
            try:
                if manifest is None:
                    manifest = self._write(state, written)
                    continue  # that took a while: is the partition still ours?
                outcome = self._replace(manifest)
            except OutOfMemoryError:
                self._log.error("Redis has no memory left for a checkpoint: a start reads more of the log")
                break
            if outcome is _Outcome.REPLACED:
                return True
            if outcome is _Outcome.LATE:
                self._log.warning("Redis has a later checkpoint: this one is dropped")
                break
            if outcome is _Outcome.MISSING:
                self._log.warning("Redis lost parts of the checkpoint: it is written anew")
                self._remove(written)
                self._stored.clear()
                manifest, written = None, []
        self._remove(written)
        return False

    def _drop(self, value: bytes) -> bool:
        """Remove a manifest, and every chunk that the inbox does not name. False where the manifest was replaced."""
        there = self._chunks.names()
        named = {chunk for one in self._inbox.entries().values() for chunk in one.segment.blob.chunks()}
        unnamed = [self._chunks.key(chunk) for chunk in there if chunk not in named]
        return bool(self._unlink(keys=[self._manifest_key, self._manifest_key, *unnamed], args=[value]))

    def _remove(self, blobs: Sequence[Blob]) -> None:
        self._chunks.remove(chunk for blob in blobs for chunk in blob.chunks())
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
                    begun_at=scope.begun_at,
                )
            )
        absent = tuple(AbsentEntry(collection=name, blob=stored(one)) for name, one in state.absent)
        return Manifest(offset=state.offset, made_at=datetime.now(UTC), scopes=tuple(scopes), absent=absent)

    def _replace(self, manifest: Manifest) -> _Outcome:
        """Replace the manifest in Redis, once, and remove the chunks that only the one before named."""
        value = value_of(self._redis, self._manifest_key)
        before = _readable(value)
        if before is not None and before.offset > manifest.offset:
            return _Outcome.LATE
        has = {(scope.collection, scope.encoder, scope.compacted_at) for scope in manifest.scopes}
        taken = {entry: one for entry, one in self._taken.items() if (one.collection, one.encoder, one.made_at) in has}
        entries = [argument for entry, one in taken.items() for argument in (field_of(one), entry)]
        chunks = manifest.chunks()
        outcome = _Outcome(
            self._replace_manifest(
                (self._manifest_key, self._inbox.key),
                map(self._chunks.key, chunks),
                [value, manifest.to_bytes(), *entries],
            )
        )
        if outcome is _Outcome.REPLACED:
            kept = set(chunks)
            self._chunks.remove(chunk for chunk in (before.chunks() if before else ()) if chunk not in kept)
            for entry in taken:
                del self._taken[entry]
        return outcome

    def _state(self, manifest: Manifest) -> State:
        scopes = []
        for scope in manifest.scopes:
            segments = [self._segment(entry) for entry in scope.segments]
            rest = self._rest(scope.rest, segments)
            scopes.append(
                ScopeState(scope.collection, scope.encoder, segments, rest, scope.compacted_at, scope.begun_at)
            )
        return State(
            manifest.offset, scopes, [(entry.collection, self._absent(entry.blob)) for entry in manifest.absent]
        )

    def _segment(self, entry: SegmentEntry) -> Segment:
        with self._chunks.files_of(entry.blob) as parts, _usable("a segment"):
            segment = unpack_segment(parts, entry.quality)
        self._stored[segment] = entry.blob
        return segment

    def _rest(self, blob: Blob, segments: Sequence[Segment]) -> Rest:
        with self._chunks.files_of(blob) as parts, _usable("what is not sealed"):
            rest = unpack_rest(parts)
            if [len(alive) for alive in rest.alive] != [len(segment) for segment in segments]:
                raise ValueError("it is of other segments")
            if any(segment.dimensions != rest.rows.vectors.shape[1] for segment in segments):
                raise ValueError("its segments are of other dimensions")
        return rest

    def _absent(self, blob: Blob) -> WithoutVector:
        with self._chunks.files_of(blob) as parts, _usable("who has no vector"):
            absent = unpack_absent(parts)
        self._stored[absent] = blob
        return absent


@contextmanager
def _usable(what: str) -> Iterator[None]:
    """Turn whatever a file is refused with into UnusableError.

    A chunk may have the right checksum and be damaged all the same, or of another version. A checkpoint is a cache:
    whatever is wrong with it, the log is read.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise UnusableError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


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
