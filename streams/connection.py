"""Redis, waited for."""

import structlog
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, TimeoutError
from redis.retry import Retry

from schemas.settings import Settings
from schemas.shard import Shard

log = structlog.stdlib.get_logger(__name__)

_FOREVER = -1
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError)


class _SaidBackoff(ExponentialBackoff):
    """Growing pauses, each said in the log."""

    def __init__(self, complaint: str) -> None:
        super().__init__(cap=5, base=0.1)
        self._complaint = complaint

    def compute(self, failures: int) -> float:
        pause = super().compute(failures)
        log.warning(self._complaint, again_in_s=round(pause, 1))
        return pause


def connect(settings: Settings) -> Redis:
    """A client that waits, with growing pauses, for a Redis that is away; one that is full raises OutOfMemoryError."""
    return _connect(settings, _SaidBackoff("Redis does not answer"), _AWAY)


def connect_patiently(settings: Settings) -> Redis:
    """A client that waits, with growing pauses, for a Redis that is away or has no memory left."""
    return _connect(settings, _SaidBackoff("Redis does not answer or is full"), (*_AWAY, OutOfMemoryError))


def _connect(settings: Settings, backoff: _SaidBackoff, errors: tuple[type[Exception], ...]) -> Redis:
    retry = Retry(backoff, _FOREVER, supported_errors=errors)
    return Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5, retry=retry)


def key(settings: Settings, name: str, shard: Shard | str, partition: int | str) -> str:
    """A key of a shard's partition. All of them are in one slot of a Redis Cluster."""
    return f"{settings.namespace}:{{{shard}:{partition}}}:{name}"
