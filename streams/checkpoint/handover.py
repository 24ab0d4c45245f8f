"""The handover of compacted segments to the matcher: they lie in Redis until the matcher's checkpoint has them."""

import structlog
from redis import Redis

from runtime.servers.redis import fields_of, key, value_of
from schemas.settings import Settings
from schemas.shard import Shard
from streams.checkpoint.chunks import Chunks, NamingScript
from streams.checkpoint.lease import Lease, LeaseLostError
from streams.checkpoint.manifest import CompactedSegment, Manifest, UnusableError

log = structlog.stdlib.get_logger(__name__)

_IF_LEASED = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end"
_PUT = "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) return 'put'"
_REMOVE = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end"
# Removes keys, unless the manifest was replaced since and may name them.
UNLINK = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
"""
_WRITER = "compaction-"


class LostChunksError(Exception):
    """Redis lost chunks before the segment that they belong to was complete."""


class Inbox:
    """The compacted segments of one shard's partition: at most one of each collection and encoder, the latest."""

    def __init__(self, settings: Settings, redis: Redis, shard: Shard, partition: int) -> None:
        self._redis = redis
        self.key = key(settings, "compacted", shard, partition)
        self._manifest_key = key(settings, "manifest", shard, partition)
        self.chunks = Chunks(redis, key(settings, "chunk", shard, partition), writer=_WRITER)
        self._put = NamingScript(redis, _IF_LEASED, _PUT)
        self._remove = redis.register_script(_REMOVE)
        self._unlink = redis.register_script(UNLINK)

    def entries(self) -> dict[bytes, CompactedSegment]:
        """All entries, by their value in Redis. Unreadable ones are removed."""
        found = {}
        for field, value in fields_of(self._redis, self.key).items():
            try:
                found[value] = CompactedSegment.from_bytes(value)
            except UnusableError as error:
                log.warning("a compacted segment is not used", of=field.decode(), because=str(error))
                self._remove(keys=[self.key], args=[field, value])
        return found

    def put(self, compacted: CompactedSegment, lease: Lease) -> None:
        """Add a segment whose chunks are in Redis; it replaces an earlier one.

        Raises LeaseLostError if another process has the lease, LostChunksError if Redis lost a chunk. Then nothing is
        changed.
        """
        outcome = self._put(
            (lease.key, self.key),
            map(self.chunks.key, compacted.segment.blob.chunks()),
            [lease.token, field_of(compacted), compacted.to_bytes()],
        )
        if outcome == "lost":
            raise LeaseLostError("the lease ran out, or Redis lost it: what is in service stays")
        if outcome == "missing":
            raise LostChunksError("Redis lost a part of the segment before it was complete")

    def remove(self, value: bytes, compacted: CompactedSegment) -> None:
        """Remove an entry, unless it was replaced."""
        self._remove(keys=[self.key], args=[field_of(compacted), value])

    def remove_litter(self) -> int:
        """Remove the chunks that neither an entry nor the manifest names. Returns how many.

        They are of compactions that were cut off or replaced. Only for the holder of the lease.
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
        """The manifest of the matcher's checkpoint, None where there is none that can be read."""
        return self._manifest()[1]

    def _manifest(self) -> tuple[bytes, Manifest | None]:
        value = value_of(self._redis, self._manifest_key)
        try:
            return value, Manifest.from_bytes(value)
        except UnusableError:
            return value, None  # the matcher will find out, and remove the chunks that belong to it


def field_of(compacted: CompactedSegment) -> bytes:
    """The field of an entry in the inbox's hash."""
    return f"{compacted.collection}/{compacted.encoder}".encode()
