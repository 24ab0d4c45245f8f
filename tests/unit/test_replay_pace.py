"""A replay goes as fast as those who process it, and makes nobody wait for a second: against a simulated queue."""

from collections.abc import Iterator

import pytest

from producers.replay.pace import TARGET_S, TICK_S, BacklogAge, Pace

STEP_S = 0.005
COMMIT_S = 0.2
ASK_S = 0.02  # what asking the broker takes
PLACE = ("encodings", 0)


class Group:
    """Processes so many events a second in the order of their arrival, and commits now and then."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.end = self.done = 0.0
        self.committed = 0
        self.delay = BacklogAge()

    def step(self, now: float) -> None:
        self.done = min(self.end, self.done + self.capacity * STEP_S)
        if now % COMMIT_S < STEP_S:
            self.committed = int(self.done + 1e-6)

    @property
    def wait_s(self) -> float:
        """How long who comes now waits for those before."""
        return (self.end - self.done) / self.capacity if self.capacity else 0.0


def run(group: Group, pace: Pace, clock: list[float], seconds: float) -> Iterator[float]:
    """The waiting times that somebody would have had who came meanwhile."""
    looked_at = free_at = clock[0]
    ends = group.end
    until = clock[0] + seconds
    while clock[0] < until:
        clock[0] += STEP_S
        if clock[0] - looked_at >= TICK_S:  # the ends of a moment ago, and what is committed by now
            looked_at = clock[0]
            pace.observe(group.delay.note(clock[0] - ASK_S, {PLACE: int(ends)}, {PLACE: group.committed}))
        ends = group.end
        while free_at <= clock[0]:
            pause = pace.take()
            if pause:
                free_at = clock[0] + pause
            else:
                group.end += 1
        group.step(clock[0])
        yield group.wait_s


@pytest.mark.parametrize("capacity", [10, 120, 1500, 20_000])
def test_it_keeps_up_with_them_and_nobody_waits_a_second(capacity: float) -> None:
    clock = [0.0]
    group, pace = Group(capacity), Pace(clock=lambda: clock[0])
    assert max(run(group, pace, clock, 30)) < 1.0
    before = group.done
    assert max(run(group, pace, clock, 40)) < 0.6
    assert (group.done - before) / 40 > 0.8 * capacity, "it waits more than it has to"


def test_of_those_who_take_half_a_second_for_each_nobody_waits_a_second_either() -> None:
    clock = [0.0]
    group, pace = Group(2), Pace(clock=lambda: clock[0])
    assert max(run(group, pace, clock, 60)) < 1.0
    assert group.done > 20


def test_it_sends_nothing_while_they_stand_still_and_goes_on_afterwards() -> None:
    clock = [0.0]
    group, pace = Group(500), Pace(clock=lambda: clock[0])
    list(run(group, pace, clock, 15))
    group.capacity = 0
    list(run(group, pace, clock, 1))
    before = group.end
    list(run(group, pace, clock, 60))
    assert group.end == before
    group.capacity = 500
    assert max(run(group, pace, clock, 20)) < 1.5 * TARGET_S + COMMIT_S
    assert group.end > before + 3000


def test_it_makes_room_where_they_get_slower() -> None:
    clock = [0.0]
    group, pace = Group(1000), Pace(clock=lambda: clock[0])
    list(run(group, pace, clock, 20))
    group.capacity = 100  # what is before is ten times as much work now
    list(run(group, pace, clock, 10))
    assert max(run(group, pace, clock, 20)) < 1.0


def test_a_limit_holds_whoever_keeps_up() -> None:
    clock = [0.0]
    group, pace = Group(10_000), Pace(most=50, clock=lambda: clock[0])
    list(run(group, pace, clock, 40))
    assert 0.7 * 50 * 40 < group.end <= 50 * 40 + 5


def test_at_once_there_is_no_limit_but_that_which_is_asked_for() -> None:
    clock = [0.0]
    unlimited, limited = Pace(watched=False, clock=lambda: clock[0]), Pace(20, watched=False, clock=lambda: clock[0])
    assert {unlimited.take() for _ in range(1000)} == {0.0}
    sent = 0
    while clock[0] < 10:
        pause = limited.take()
        clock[0] += pause
        sent += not pause
    assert sent == pytest.approx(200, abs=3)


def test_a_delay_is_the_age_of_what_is_not_processed_yet() -> None:
    delay = BacklogAge()
    assert delay.note(0.0, {PLACE: 10}, {PLACE: 10}) == 0
    assert delay.note(1.0, {PLACE: 20}, {PLACE: 10}) == 0
    assert delay.note(2.0, {PLACE: 30}, {PLACE: 19}) == 1.0
    assert delay.note(3.0, {PLACE: 30}, {PLACE: 20}) == 1.0
    assert delay.note(4.0, {PLACE: 30}, {PLACE: 30}) == 0


def test_a_group_that_never_committed_is_behind() -> None:
    delay = BacklogAge()
    assert delay.note(0.0, {PLACE: 1, ("encodings", 1): 0}, {}) == 0
    assert delay.note(9.0, {PLACE: 1, ("encodings", 1): 0}, {}) == 9.0
