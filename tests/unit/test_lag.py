"""Lag in messages and in seconds: 0 at the end, and no more than what is known of when the rest can have come."""

from runtime.servers.lag import Lag, Standing

PLACE = ("encodings", 3)
LABELS = ("matcher", "encodings", "3")


class Log:
    """A partition and a clock that are set by hand."""

    def __init__(self) -> None:
        self.now = 10_000.0
        self.standing, self.end = Standing(PLACE, position=0, timestamp=None), 0
        self.is_ours = True
        self.lag = Lag(
            "matcher", lambda: [self.standing] if self.is_ours else [], lambda _: {PLACE: self.end}, lambda: self.now
        )

    def at(self, position: int, end: int, timestamp_s: float | None, now: float) -> tuple[float, float]:
        """Lag in messages and in seconds."""
        self.now = now
        self.standing = Standing(PLACE, position, None if timestamp_s is None else int(timestamp_s * 1000))
        self.end = end
        return self.lag.messages()[LABELS], self.lag.seconds()[LABELS]


def test_at_the_end_there_is_none() -> None:
    assert Log().at(position=7, end=7, timestamp_s=1, now=10_000) == (0, 0)


def test_who_begins_with_a_backlog_is_as_far_behind_as_what_is_processed_is_old() -> None:
    log = Log()
    assert log.at(position=0, end=100, timestamp_s=None, now=10_000) == (100, 0)
    assert log.at(position=0, end=100, timestamp_s=None, now=10_020) == (100, 20)  # nothing is known of it but this
    assert log.at(position=1, end=100, timestamp_s=6_400, now=10_020) == (99, 3_620)
    assert log.at(position=90, end=100, timestamp_s=10_015, now=10_020) == (10, 5)


def test_what_comes_after_a_quiet_night_has_not_waited_all_night() -> None:
    log = Log()
    log.at(position=7, end=7, timestamp_s=10_000, now=40_000)
    assert log.at(position=7, end=8, timestamp_s=10_000, now=40_015) == (1, 15)


def test_one_that_hangs_is_ever_farther_behind() -> None:
    log = Log()
    log.at(position=7, end=7, timestamp_s=10_000, now=10_000)
    assert [log.at(7, 9, 10_000, now)[1] for now in (10_015, 10_030, 13_600)] == [15, 30, 3_600]


def test_of_a_partition_that_was_anothers_meanwhile_nothing_is_known() -> None:
    log = Log()
    log.at(position=7, end=7, timestamp_s=10_000, now=10_000)
    log.is_ours = False
    assert log.lag.seconds() == {}
    log.is_ours = True
    assert log.at(position=99, end=100, timestamp_s=None, now=90_000) == (1, 0)
