"""Scheduled work is done once, however long the worker was away."""

from datetime import UTC, datetime, timedelta

import pytest

from deploy.compaction.schedule import Schedule, ScheduleError
from deploy.compaction.worker import ScheduledWork

NIGHTLY = Schedule.parse("0 2 * * *", "UTC")


class Night:
    """A clock that is set by hand, and what was done when."""

    def __init__(self, now: str, done: str) -> None:
        self.now = datetime.fromisoformat(now).replace(tzinfo=UTC)
        self.worked: list[str] = []
        self.kept: list[str] = []
        begin = datetime.fromisoformat(done).replace(tzinfo=UTC)
        self.scheduled = ScheduledWork(
            NIGHTLY, self._work, lambda: self.now, begin, lambda time: self.kept.append(f"{time:%d %H:%M}")
        )

    def _work(self) -> bool:
        self.worked.append(f"{self.now:%d %H:%M}")
        self.now += timedelta(hours=3)  # it takes long
        return True

    def _keep(self, done: datetime) -> None:
        self.kept.append(f"{done:%d %H:%M}")

    def run_until(self, end: str) -> None:
        while (pause := self.scheduled.step()) + self.now < datetime.fromisoformat(end).replace(tzinfo=UTC):
            self.now += pause


def test_it_works_when_it_is_due_and_not_before() -> None:
    night = Night("2026-01-01 15:00", done="2026-01-01 15:00")
    night.run_until("2026-01-04 01:00")
    assert night.worked == ["02 02:00", "03 02:00"] == night.kept


def test_what_was_missed_is_made_up_for_once_and_at_once() -> None:
    night = Night("2026-01-09 15:00", done="2026-01-01 15:00")
    night.run_until("2026-01-10 03:00")
    assert night.worked == ["09 15:00", "10 02:00"] == night.kept


def test_one_that_runs_into_the_next_does_not_skip_it() -> None:
    night = Night("2026-01-09 01:30", done="2026-01-08 01:00")
    night.run_until("2026-01-09 05:00")
    assert night.worked == ["09 01:30", "09 04:30"]


def test_what_does_not_come_to_its_end_is_not_done() -> None:
    night = Night("2026-01-09 15:00", done="2026-01-01 15:00")

    def fail() -> bool:
        raise KeyboardInterrupt

    night.scheduled.work = fail
    with pytest.raises(KeyboardInterrupt):
        night.scheduled.step()
    assert night.kept == []


def test_what_was_killed_is_done_again_soon_and_not_for_ever() -> None:
    night = Night("2026-01-09 15:00", done="2026-01-01 15:00")
    night.scheduled.work = lambda: night._work() and False
    assert [night.scheduled.step() for _ in range(3)] == [timedelta(seconds=10), timedelta(seconds=10), timedelta()]
    assert night.worked == ["09 15:00", "09 18:00", "09 21:00"]
    assert night.kept == ["09 21:00"]
    assert night.scheduled.step() == timedelta(hours=2)


def test_a_clock_that_was_ahead_does_not_silence_it() -> None:
    night = Night("2026-01-09 01:00", done="2030-01-01 15:00")
    night.run_until("2026-01-09 06:00")
    assert night.worked == ["09 02:00"] == night.kept


def test_in_the_hour_that_comes_twice_it_does_not_work_twice() -> None:
    zurich = Schedule.parse("30 2 * * *", "Europe/Zurich")
    for hour in range(0, 3):
        for minute in range(0, 60, 5):
            time = datetime(2026, 10, 25, hour, minute, tzinfo=UTC)
            assert zurich.next_after(time) > time
    assert zurich.next_after(datetime(2026, 10, 25, 1, 10, tzinfo=UTC)).date().day == 26


def test_a_schedule_is_read_in_its_time_zone_and_keeps_to_the_clock_on_the_wall() -> None:
    zurich = Schedule.parse("30 3 * * *", "Europe/Zurich")
    winter, summer = datetime(2026, 3, 27, 12, tzinfo=UTC), datetime(2026, 3, 29, 12, tzinfo=UTC)
    assert zurich.next_after(winter) == datetime(2026, 3, 28, 2, 30, tzinfo=UTC)
    assert zurich.next_after(summer) == datetime(2026, 3, 30, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize("expression", ["", "0 2 * *", "0 24 * * *", "a * * * *", "0 0 31 2 *", "0 2 * * * *"])
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(ScheduleError, match="Five fields are expected"):
        Schedule.parse(expression, "UTC")


@pytest.mark.parametrize("zone", ["", "Zurich", "../etc/passwd", "Europe"])
def test_a_time_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(ScheduleError, match="not in the tz database"):
        Schedule.parse("0 2 * * *", zone)
