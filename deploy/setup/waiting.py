"""How a worker waits at its start for what others set up."""

import time
from collections.abc import Callable

import structlog
from redis.exceptions import ConnectionError, TimeoutError

from runtime.servers.refusals import ask_redis
from runtime.telemetry.health import HEALTH
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)


def wait_while(missing: Callable[[], str]) -> None:
    """Ask, with growing pauses, until nothing is missing; say what is, whenever that changes."""
    pause, said = 0.1, ""
    while what := missing():
        if what != said:
            log.warning("waiting", missing=what)
            said = what
            HEALTH.not_ready(what)
        HEALTH.beat()
        time.sleep(pause)
        pause = min(pause * 2, 10)


def wait_for_redis(settings: Settings) -> None:
    """Wait, with growing pauses, for Redis. Raises RefusedError."""

    def missing() -> str:
        try:
            ask_redis(settings)
        except (ConnectionError, TimeoutError) as error:
            return f"Redis does not answer ({type(error).__name__})"
        return ""

    wait_while(missing)
