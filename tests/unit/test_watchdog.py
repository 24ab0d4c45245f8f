"""A worker whose loop hangs ends itself; one that waits for a server, or was frozen for a while, does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.commands import app
from runtime.process.watchdog import Watchdog
from runtime.telemetry.health import HUNG_AFTER_S, Health
from schemas.settings import Settings
from tests.conftest import Clock

_HANGS = """
import sys, threading
from runtime.process.watchdog import end_when_hung
from runtime.telemetry.health import HEALTH
HEALTH.beat()
end_when_hung(hung_after_s=0.3, look_every_s=0.05)
def the_loop():
    threading.Event().wait()
the_loop()
"""


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def looks(watchdog: Watchdog, clock: Clock, seconds: float) -> list[bool]:
    """What it finds in that time, looking every ten seconds."""
    found = []
    for _ in range(round(seconds / 10)):
        clock.now += 10
        found.append(watchdog.look())
    return found


def test_a_loop_hangs_when_it_has_not_moved_for_as_long_as_healthz_allows(health: Health, clock: Clock) -> None:
    watchdog = Watchdog(health, clock=clock)
    health.beat()
    found = looks(watchdog, clock, HUNG_AFTER_S)
    assert found == [False] * (len(found) - 1) + [True]
    assert not health.is_alive


def test_a_loop_that_moves_or_waits_for_a_server_does_not_hang(health: Health, clock: Clock) -> None:
    watchdog = Watchdog(health, clock=clock)
    for wait in (health.beat, health.still_waiting) * 5:
        wait()
        assert not any(looks(watchdog, clock, HUNG_AFTER_S - 10))


def test_a_process_that_was_frozen_has_time_to_move_its_loop(health: Health, clock: Clock) -> None:
    watchdog = Watchdog(health, clock=clock)
    health.beat()
    clock.now += 10 * HUNG_AFTER_S
    assert not watchdog.look()
    assert not any(looks(watchdog, clock, 20))
    health.beat()
    assert not any(looks(watchdog, clock, 100))
    clock.now += 10 * HUNG_AFTER_S
    assert looks(watchdog, clock, 40)[-1], "it runs again, and its loop does not"


def test_a_process_whose_loop_hangs_ends_and_shows_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HANGS], cwd=Path.cwd(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "in the_loop" in done.stderr


def test_every_worker_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[None] = []
    monkeypatch.setattr(app, "settings_with_key", lambda: Settings(_env_file=None))
    monkeypatch.setattr("runtime.telemetry.logs.become_worker", lambda *_: None)
    monkeypatch.setattr("deploy.setup.topics.wait_for_topics", lambda _: None)
    monkeypatch.setattr("runtime.process.watchdog.end_when_hung", lambda: started.append(None))
    app.ready("test")
    assert started == [None]
