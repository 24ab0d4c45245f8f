"""The seconds of a certificate belong to the stages of a compaction, whatever is being done in them."""

from streams.compaction.stopwatch import Stopwatch
from tests.conftest import Clock


def test_seconds_are_added_up_by_stage_and_details_are_passed_on(clock: Clock) -> None:
    seen: list[tuple[str, int, int, str]] = []
    watch = Stopwatch(lambda stage, done, total, detail="": seen.append((stage, done, total, detail)), clock)
    for stage, detail, seconds in [("building", "M 16", 1), ("measuring", "", 2), ("building", "M 24", 4)]:
        watch(stage, 0, 9, detail)
        clock.now += seconds
    watch.pause()
    clock.now += 100
    watch("storing", 1, 1)
    watch.pause()
    assert dict(watch.seconds) == {"building": 5, "measuring": 2, "storing": 0}
    assert seen == [
        ("building", 0, 9, "M 16"),
        ("measuring", 0, 9, ""),
        ("building", 0, 9, "M 24"),
        ("storing", 1, 1, ""),
    ]
