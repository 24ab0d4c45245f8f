"""Redis, waited for."""

from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ResponseError, TimeoutError
from redis.retry import Retry

from runtime.servers.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S
from runtime.telemetry.health import server_is_away
from runtime.telemetry.metrics import REDIS_S
from schemas.settings import Settings
from schemas.shard import Shard

log = structlog.stdlib.get_logger(__name__)

_FOREVER = -1
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError)


class _LoggedBackoff(ExponentialBackoff):
    """Growing pauses, each logged."""

    def __init__(self, message: str) -> None:
        super().__init__(cap=LONGEST_PAUSE_S, base=FIRST_PAUSE_S / 2)  # the first failure is number 1
        self._message = message

    def compute(self, failures: int) -> float:
        pause = super().compute(failures)
        log.warning(self._message, again_in_s=round(pause, 1))
        server_is_away("redis")
        return pause


T = TypeVar("T")


class _Retry(Retry):
    """Takes a Redis that cannot write to its disk for one that is full: the client has no exception for it."""

    def call_with_retry(self, do: Callable[[], T], *arguments: Any, **more: Any) -> T:
        def attempt() -> T:
            try:
                return do()
            except ResponseError as error:
                if str(error).startswith("MISCONF"):
                    raise OutOfMemoryError(str(error)) from None
                raise

        return super().call_with_retry(attempt, *arguments, **more)


class _TimedRedis(Redis):
    """Measures how long its commands take."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See Redis.execute_command."""
        with REDIS_S.labels(args[0].lower()).time():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call] # redis has no types for it


def connect_once(settings: Settings, **options: Any) -> Redis:
    """A client that raises ConnectionError where Redis does not answer. `options` are Redis'."""
    if settings.redis_ca is not None:
        options["ssl_ca_certs"] = str(settings.redis_ca)
    client = _TimedRedis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5, **options)
    login = client.connection_pool.connection_kwargs  # what the URL says would go before what is given beside it
    if settings.redis_user is not None:
        login["username"] = settings.redis_user
    if settings.redis_password is not None:
        login["password"] = settings.redis_password.get_secret_value()
    return client


def connect(settings: Settings) -> Redis:
    """A client that waits, with growing pauses, for a Redis that is away; one that is full raises OutOfMemoryError.

    Full is one without memory, and one that cannot write to its disk.
    """
    return _connect(settings, _LoggedBackoff("Redis does not answer"), _AWAY)


def connect_patiently(settings: Settings) -> Redis:
    """A client that waits, with growing pauses, for a Redis that is away or full."""
    return _connect(settings, _LoggedBackoff("Redis does not answer or is full"), (*_AWAY, OutOfMemoryError))


def _connect(settings: Settings, backoff: _LoggedBackoff, errors: tuple[type[Exception], ...]) -> Redis:
    return connect_once(settings, retry=_Retry(backoff, _FOREVER, supported_errors=errors))


def value_of(redis: Redis, name: str | bytes) -> bytes:
    """The value of a key; empty where there is none."""
    value = redis.get(name)
    return value if isinstance(value, bytes) else b""


def fields_of(redis: Redis, name: str | bytes) -> dict[bytes, bytes]:
    """The fields of a hash and their values; none where there is no such key."""
    fields = redis.hgetall(name).items()
    return {field: value for field, value in fields if isinstance(field, bytes) and isinstance(value, bytes)}


def key(settings: Settings, name: str, shard: Shard | str, partition: int | str) -> str:
    """A key of a shard's partition. All of them are in one slot of a Redis Cluster."""
    return f"{settings.namespace}:{{{shard}:{partition}}}:{name}"
