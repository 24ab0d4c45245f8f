"""A consumer that gets nothing more although there is something stops its process; one that is idle goes on."""

import pytest

from runtime.servers.flow import Flow, StalledError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_consumer_that_gets_nothing_although_there_is_something_is_stopped() -> None:
    clock = Clock()
    flow = Flow(lambda: True, clock)
    clock.now = 29
    flow.check()
    flow.moved()
    clock.now = 58
    flow.check()
    clock.now = 60
    flow.check()
    clock.now = 64
    flow.check()
    clock.now = 65
    with pytest.raises(StalledError, match="36 s"):
        flow.check()


def test_what_has_come_this_moment_is_not_behind() -> None:
    clock = Clock()
    looks = iter((True, False, True, False))
    flow = Flow(lambda: next(looks), clock)
    for clock.now in range(30, 100):
        flow.check()
    assert list(looks) == []


def test_a_consumer_with_nothing_to_read_goes_on_and_is_asked_about_only_now_and_then() -> None:
    clock = Clock()
    asked: list[float] = []

    def is_behind() -> bool:
        asked.append(clock.now)
        return False

    flow = Flow(is_behind, clock)
    for clock.now in range(100):
        flow.check()
    assert asked == [30, 60, 90]
