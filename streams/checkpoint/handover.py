"""Where compaction leaves segments for the matcher of a partition, until the matcher's own checkpoint has them."""

import structlog
from redis import Redis

from runtime.servers.redis import key, value_of
from schemas.settings import Settings
from schemas.shard import Shard
from streams.checkpoint.chunks import KEEP_CHUNKS, Chunks
from streams.checkpoint.lease import Lease, LeaseLostError
from streams.checkpoint.manifest import CompactedSegment, Manifest, UnusableError

log = structlog.stdlib.get_logger(__name__)

# In one step: only under the lease, only if every chunk is there.
_PUT = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
{KEEP_CHUNKS}
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 'put'
"""
_REMOVE = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end"
# Only if the manifest names no more than it did.
_UNLINK = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
"""
_WRITER = "compaction-"


class LostChunksError(Exception):
    """Redis lost a part of what was written to it before it was complete."""


class Inbox:
    """Of one shard's partition: of each encoder of a collection at most one segment, the latest."""

    def __init__(self, settings: Settings, redis: Redis, shard: Shard, partition: int) -> None:
        self._redis = redis
        self.key = key(settings, "compacted", shard, partition)
        self._manifest_key = key(settings, "manifest", shard, partition)
        self.chunks = Chunks(redis, key(settings, "chunk", shard, partition), writer=_WRITER)
        self._put = redis.register_script(_PUT)
        self._remove = redis.register_script(_REMOVE)
        self._unlink = redis.register_script(_UNLINK)

    def entries(self) -> dict[bytes, CompactedSegment]:
        """What lies in it, by its value there. What cannot be read is removed."""
        found = {}
        for field, value in self._redis.hgetall(self.key).items():
            assert isinstance(field, bytes)
            assert isinstance(value, bytes)
            try:
                found[value] = CompactedSegment.from_bytes(value)
            except UnusableError as error:
                log.warning("a compacted segment is not used", of=field.decode(), because=str(error))
                self._remove(keys=[self.key], args=[field, value])
        return found

    def put(self, compacted: CompactedSegment, lease: Lease) -> None:
        """Leave a segment whose chunks are there, in the place of an earlier one.

        Raises LeaseLostError if the lease is another's by now, LostChunksError if Redis lost a chunk; then nothing is
        changed.
        """
        chunks = [self.chunks.key(chunk) for chunk in compacted.segment.blob.chunks()]
        field = field_of(compacted)
        outcome = self._put(
            keys=[lease.key, self.key, *chunks], args=[lease.token, field, compacted.to_bytes()]
        ).decode()
        if outcome == "lost":
            raise LeaseLostError("the lease ran out, or Redis lost it: what is in service stays")
        if outcome == "missing":
            raise LostChunksError("Redis lost a part of the segment before it was complete")

    def remove(self, value: bytes, compacted: CompactedSegment) -> None:
        """Remove an entry, unless it was replaced."""
        self._remove(keys=[self.key], args=[field_of(compacted), value])

    def remove_litter(self) -> int:
        """Remove chunks of compactions that did not come to their end, or were replaced; returns how many.

        Only for who has the lease.
        """
        while True:
            there = self.chunks.names()
            # In this order: a segment moves from the inbox to the manifest.
            named = {chunk for compacted in self.entries().values() for chunk in compacted.segment.blob.chunks()}
            value, manifest = self._manifest()
            named |= set() if manifest is None else set(manifest.chunks())
            litter = [self.chunks.key(chunk) for chunk in there if chunk not in named]
            if self._unlink(keys=[self._manifest_key, *litter], args=[value]):
                return len(litter)

    def manifest(self) -> Manifest | None:
        """That of the matcher's checkpoint, None where there is none that can be read."""
        return self._manifest()[1]

    def _manifest(self) -> tuple[bytes, Manifest | None]:
        value = value_of(self._redis, self._manifest_key)
        try:
            return value, Manifest.from_bytes(value)
        except UnusableError:
            return value, None  # the matcher finds out, and removes whatever belongs to it


def field_of(compacted: CompactedSegment) -> bytes:
    """Where in the inbox it lies."""
    return f"{compacted.collection}/{compacted.encoder}".encode()
