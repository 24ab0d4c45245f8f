"""Ends a worker whose loop hangs: whatever supervises it, Compose too, starts it again where it only sees it die."""

import faulthandler
import os
import time
from collections.abc import Callable

import structlog

from runtime.process.background import Background
from runtime.telemetry.health import HEALTH, HUNG_AFTER_S, Health

log = structlog.stdlib.get_logger(__name__)
_LOOK_EVERY_S = 10.0
_GRACE_S = 30.0


class Watchdog:
    """Tells whether a loop hangs. `look` is called every few seconds, and may be called late.

    A process that did not run at all, as on a frozen machine, has had no time to move its loop: it gets some first.
    """

    def __init__(
        self, health: Health, hung_after_s: float = HUNG_AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._health = health
        self._hung_after_s = hung_after_s
        self._clock = clock
        self._last_look = self._runs_since = clock()

    def look(self) -> bool:
        """Whether the loop hangs."""
        now = self._clock()
        if now - self._last_look > _GRACE_S:
            self._runs_since = now
        self._last_look = now
        has_run_s = now - self._runs_since
        return self._health.silent_s >= self._hung_after_s and has_run_s >= min(_GRACE_S, self._hung_after_s)


def end_when_hung(
    health: Health = HEALTH, hung_after_s: float = HUNG_AFTER_S, look_every_s: float = _LOOK_EVERY_S
) -> Background:
    """Watch the loop in a thread of its own, and end the process with status 1 once it hangs.

    What every thread was at goes to stderr. Nothing is lost: what was not committed comes again. A loop that hangs in
    native code which holds the interpreter's lock stops this thread too.
    """
    watchdog = Watchdog(health, hung_after_s)

    def watch() -> None:
        while not watchdog.look():
            time.sleep(look_every_s)
        log.error("its loop hangs: the worker ends, and is to be started again", silent_s=round(health.silent_s))
        faulthandler.dump_traceback(all_threads=True)
        os._exit(1)

    return Background(watch, "watchdog").start()
