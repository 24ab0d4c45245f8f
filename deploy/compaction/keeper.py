"""The worker that compacts by a schedule."""

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from redis import Redis

from deploy.compaction.schedule import Schedule
from runtime.process.stopping import on_stop_signal
from runtime.servers.redis import connect_patiently
from runtime.telemetry.health import HEALTH
from runtime.telemetry.metrics import COMPACTION_NEXT, COMPACTIONS
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)

_LOOKED_AT_EVERY_S = 10.0  # the clock: it may be set, and a machine may sleep
_LATE = timedelta(minutes=1)
_AGAIN_AFTER, _MOST_ATTEMPTS = timedelta(seconds=10), 3


@dataclass(slots=True)
class Keeper:
    """Does what is due. `done` is up to when everything due has been done, kept by `keep_done`."""

    schedule: Schedule
    work: Callable[[], bool]
    now: Callable[[], datetime]
    done: datetime
    keep_done: Callable[[datetime], None]
    attempts: int = 0

    def step(self) -> timedelta:
        """Work if it is due, once for all that was missed; returns how long there is nothing to do.

        Work that was cut off (`work` returns False) is done again soon, a few times.
        """
        begun = self.now()
        self.done = min(self.done, begun)  # the clock may have been ahead
        due = self.schedule.next_after(self.done)
        if due > begun:
            return due - begun
        if begun - due > _LATE:
            log.warning("a compaction was missed: it is made up for now", due=due.isoformat(" ", "minutes"))
        self.attempts += 1
        if not self.work() and self.attempts < _MOST_ATTEMPTS:
            return _AGAIN_AFTER
        self.done, self.attempts = begun, 0
        self.keep_done(begun)
        return timedelta()


def keep(settings: Settings, schedule: Schedule, threads: int) -> None:
    """Compact whenever it is due, until SIGTERM or SIGINT; then what is under way is given up, and nothing is lost."""
    stopped = threading.Event()
    on_stop_signal(stopped.set)
    for outcome in ("done", "failed", "killed"):
        COMPACTIONS.labels(outcome)
    redis, name = connect_patiently(settings), f"{settings.namespace}:compaction-done"
    redis.set(name, datetime.now(UTC).isoformat(), nx=True)
    kept = redis.get(name)
    assert isinstance(kept, bytes)
    keeper = Keeper(
        schedule,
        lambda: _compact(threads, stopped),
        lambda: datetime.now(UTC),
        datetime.fromisoformat(kept.decode()),
        lambda time: None if stopped.is_set() else _put(redis, name, time),
    )
    log.info(
        "compaction is scheduled",
        schedule=schedule.expression,
        time_zone=schedule.zone.key,
        next=schedule.next_after(keeper.done).isoformat(" ", "minutes"),
    )
    HEALTH.ready()
    while not stopped.is_set():
        HEALTH.beat()
        COMPACTION_NEXT.set(schedule.next_after(keeper.done).timestamp())
        stopped.wait(min(keeper.step().total_seconds(), _LOOKED_AT_EVERY_S))


def _compact(threads: int, stopped: threading.Event) -> bool:
    """In a process of its own, so that the memory that it takes is given back. False where that was killed."""
    command = [sys.executable, "-m", "deploy.cli", "compact", "--as-worker", "--threads", str(threads)]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            HEALTH.beat()
            if stopped.wait(0.2):
                process.terminate()
    if process.returncode:
        log.error("the compaction went wrong: its lines say why", status=process.returncode)
    outcome = "done" if not process.returncode else "failed" if process.returncode > 0 else "killed"
    COMPACTIONS.labels(outcome).inc()
    return process.returncode >= 0


def _put(redis: Redis, name: str, time: datetime) -> None:
    redis.set(name, time.isoformat())
