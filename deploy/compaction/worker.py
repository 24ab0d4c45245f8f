"""The worker that runs a compaction at the times of a schedule."""

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
from runtime.servers.redis import connect_patiently, value_of
from runtime.telemetry.health import HEALTH
from runtime.telemetry.metrics import COMPACTION_NEXT, COMPACTIONS
from schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)

_CLOCK_READ_EVERY_S = 10.0  # it may be set, and a machine may sleep
_LATE = timedelta(minutes=1)
_RETRY_AFTER, _MAX_ATTEMPTS = timedelta(seconds=10), 3


@dataclass(slots=True)
class ScheduledWork:
    """Calls `work` at the times of a schedule, once for all times that were missed.

    Every time up to `done` has been worked off; `save_done` stores it. `work` returns whether it ran to its end.
    """

    schedule: Schedule
    work: Callable[[], bool]
    now: Callable[[], datetime]
    done: datetime
    save_done: Callable[[datetime], None]
    attempts: int = 0

    def step(self) -> timedelta:
        """Work if a time has come; returns the time until the next one.

        Work that was cut off is repeated soon, a few times.
        """
        begun = self.now()
        self.done = min(self.done, begun)  # the clock may have been ahead
        planned = self.schedule.next_after(self.done)
        if planned > begun:
            return planned - begun
        if begun - planned > _LATE:
            log.warning("a compaction was missed: it begins now", due=planned.isoformat(" ", "minutes"))
        self.attempts += 1
        if not self.work() and self.attempts < _MAX_ATTEMPTS:
            return _RETRY_AFTER
        self.done, self.attempts = begun, 0
        self.save_done(begun)
        return timedelta()


def run_scheduled(settings: Settings, schedule: Schedule) -> None:
    """Run compactions until SIGTERM or SIGINT, which end the one that is running: what it had not stored is dropped."""
    stopped = threading.Event()
    on_stop_signal(stopped.set)
    for outcome in ("done", "failed", "killed"):
        COMPACTIONS.labels(outcome)
    redis, name = connect_patiently(settings), f"{settings.namespace}:compaction-done"
    redis.set(name, datetime.now(UTC).isoformat(), nx=True)
    saved = value_of(redis, name)
    work = ScheduledWork(
        schedule,
        lambda: _compact(stopped),
        lambda: datetime.now(UTC),
        datetime.fromisoformat(saved.decode()),
        lambda time: None if stopped.is_set() else _save(redis, name, time),
    )
    log.info(
        "compaction is scheduled",
        schedule=schedule.expression,
        time_zone=schedule.zone.key,
        next=schedule.next_after(work.done).isoformat(" ", "minutes"),
    )
    HEALTH.ready()
    while not stopped.is_set():
        HEALTH.beat()
        COMPACTION_NEXT.set(schedule.next_after(work.done).timestamp())
        stopped.wait(min(work.step().total_seconds(), _CLOCK_READ_EVERY_S))


def _compact(stopped: threading.Event) -> bool:
    """Compact in a process of its own, whose memory goes back to the machine. Returns False where it was killed."""
    command = [sys.executable, "-m", "deploy.cli", "compactor", "--once"]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            HEALTH.beat()
            if stopped.wait(0.2):
                process.terminate()
                process.wait()
    if process.returncode:
        log.error("the compaction failed: its own log lines have the reason", status=process.returncode)
    outcome = "done" if not process.returncode else "failed" if process.returncode > 0 else "killed"
    COMPACTIONS.labels(outcome).inc()
    return process.returncode >= 0


def _save(redis: Redis, name: str, time: datetime) -> None:
    redis.set(name, time.isoformat())
