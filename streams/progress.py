"""Up to where newcomers have been matched, kept in Redis: it only grows, and only after findings are durable."""

import logging

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from schemas.settings import Settings

log = logging.getLogger(__name__)

_ONLY_GROW = """
local before = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > before then redis.call('SET', KEYS[1], ARGV[1]) end
"""
_FOREVER = -1
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError)


class _SaidBackoff(ExponentialBackoff):
    """Growing pauses, each said in the log."""

    def compute(self, failures: int) -> float:
        pause = super().compute(failures)
        log.warning("Redis does not answer, asking again in %.1f s", pause)
        return pause


def connect(settings: Settings) -> Redis:
    """A client that waits, with growing pauses, for a Redis that is away."""
    retry = Retry(_SaidBackoff(cap=5, base=0.1), _FOREVER, supported_errors=_AWAY)
    return Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5, retry=retry)


class Progress:
    """Matched offsets: all newcomers below one were compared, and their findings acknowledged by Kafka."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._namespace = settings.namespace
        self._redis = redis
        self._only_grow = redis.register_script(_ONLY_GROW)

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

    def _key(self, partition: int) -> str:
        return f"{self._namespace}:matched:{partition}"
