"""Up to where newcomers have been matched, kept in Redis: it only grows, and only after findings are durable."""

from runtime.servers.redis import connect_patiently, key
from schemas.settings import Settings
from schemas.shard import Shard

_ONLY_GROW = """
local before = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > before then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class Progress:
    """Matched offsets: all newcomers below one were compared, and their findings acknowledged by Kafka."""

    def __init__(self, settings: Settings, shard: Shard = Shard()) -> None:
        self._settings = settings
        self._shard = shard
        self._redis = connect_patiently(settings)
        self._only_grow = self._redis.register_script(_ONLY_GROW)

    def matched(self, partition: int) -> int | None:
        """The matched offset of a partition of `encodings`, None where Redis knows none."""
        value = self._redis.get(self._key(partition))
        return None if value is None else int(value)

    def advance(self, partition: int, offset: int) -> None:
        """Say that all below an offset is matched. Never goes back."""
        self._only_grow(keys=[self._key(partition)], args=[offset])

    def forget(self, partition: int) -> None:
        """Drop an offset that does not belong to this log."""
        self._redis.delete(self._key(partition))

    def close(self) -> None:
        """Let go of Redis."""
        self._redis.close()

    def _key(self, partition: int) -> str:
        return key(self._settings, "matched", self._shard, partition)
