"""The matched offset of each partition, in Redis. It only grows, and only after the findings are durable."""

from redis import Redis

from runtime.servers.redis import connect_patiently, key
from schemas.settings import Settings
from schemas.shard import Shard

_ONLY_GROW = """
local before = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > before then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class Progress:
    """Matched offsets: everyone below was compared, and the findings are acknowledged by Kafka."""

    def __init__(self, settings: Settings, shard: Shard = Shard(), redis: Redis | None = None) -> None:
        """`redis` is a client that waits for a Redis that is away; one of its own where none is handed in."""
        self._settings = settings
        self._shard = shard
        self._redis = redis or connect_patiently(settings)
        self._only_grow = self._redis.register_script(_ONLY_GROW)

    def matched(self, partition: int) -> int | None:
        """The matched offset of a partition of `encodings`, None where Redis has none."""
        value = self._redis.get(self._key(partition))
        return None if value is None else int(value)

    def advance(self, partition: int, offset: int) -> None:
        """Set the matched offset. Never goes back: a lower one is ignored."""
        self._only_grow(keys=[self._key(partition)], args=[offset])

    def forget(self, partition: int) -> None:
        """Remove an offset that belongs to another log."""
        self._redis.delete(self._key(partition))

    def close(self) -> None:
        """Let go of Redis."""
        self._redis.close()

    def _key(self, partition: int) -> str:
        return key(self._settings, "matched", self._shard, partition)
