"""Waits at a worker's start for what is set up elsewhere: topics, tables, servers."""

import time
from collections.abc import Callable

import structlog
from redis.exceptions import ConnectionError, TimeoutError

from runtime.servers.patience import growing_pauses
from runtime.servers.refusals import ask_redis
from runtime.telemetry.health import HEALTH
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)


def wait_while(missing: Callable[[], str]) -> None:
    """Call `missing`, with growing pauses, until it returns an empty text. Logs the text whenever it changes."""
    pauses, logged = growing_pauses(), ""
    while what := missing():
        if what != logged:
            log.warning("waiting", missing=what)
            logged = what
            HEALTH.not_ready(what)
        HEALTH.beat()
        time.sleep(next(pauses))


def wait_for_redis(settings: Settings) -> None:
    """Wait, with growing pauses, for Redis. Raises AccessRefusedError."""

    def missing() -> str:
        try:
            ask_redis(settings)
        except (ConnectionError, TimeoutError) as error:
            return f"Redis does not answer ({type(error).__name__})"
        return ""

    wait_while(missing)
