"""Of thousands of collections `facematch status` shows the largest, and the sums of the others."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from deploy.status import report
from deploy.status.candidates import too_many_strangers
from deploy.status.workers import GalleryStatus
from streams.matcher.vitals import ScopeVitals


def printed(largest: int | None) -> list[str]:
    console = Console(width=200, record=True, quiet=False)
    counts = {f"c{number:04d}": {"checked": number, "erased": 1} for number in range(1, 1001)}
    with console.capture() as capture:
        report._print_individuals(console, counts, {"c0001": (7, 0)}, largest)
        report._print_galleries(console, [gallery(number) for number in range(1, 1001)], largest)
    return capture.get().splitlines()


def gallery(people: int) -> GalleryStatus:
    vitals = ScopeVitals(
        collection=f"g{people:04d}", encoder="e", people=people, delta=people, segments=(), compacted_at=None
    )
    return GalleryStatus(vitals, "1/1", 5, 0, datetime.now(UTC))


def test_the_largest_are_shown_and_the_others_together() -> None:
    lines = printed(report.LARGEST)
    assert len(lines) < 120
    assert [any(name in line for line in lines) for name in ("c1000", "c0981", "c0980")] == [True, True, False]
    assert [any(name in line for line in lines) for name in ("g1000", "g0981", "g0980")] == [True, True, False]
    (others,) = (line for line in lines if "980 others: --all" in line)
    assert [cell.strip() for cell in others.split("│")[2:-1]] == ["0", "0", str(sum(range(981))), "0", "980", "7", "0"]
    assert lines[-1] == "and 980 smaller galleries: facematch status --all"


def of_newcomers(had: float, shard: str = "1/1", **more: Any) -> GalleryStatus:
    known = {"newcomers": 100, "candidates": 100 * had, "expected": 100 * 0.5, "strangers": 20, **more}
    return replace(gallery(9), vitals=gallery(9).vitals.model_copy(update=known), shard=shard)


def test_three_times_the_candidates_that_were_expected_are_a_line() -> None:
    assert list(too_many_strangers([of_newcomers(1.5)], {})) == []
    (line,) = too_many_strangers([of_newcomers(1.6)], {})
    assert line.startswith("g0009: a newcomer has 1.6 candidates by e, and should have 0.5 at most")
    assert list(too_many_strangers([of_newcomers(9, newcomers=19)], {})) == [], "of too few newcomers"
    (line,) = too_many_strangers([of_newcomers(2, f"{n}/2") for n in (1, 2)], {})
    assert "4.0 candidates by e, and should have 1.0" in line, "shards add up"


def test_three_times_the_strangers_that_were_expected_are_a_line() -> None:
    shards = [of_newcomers(0, f"{n}/2") for n in (1, 2)]
    assert list(too_many_strangers(shards, {"g0009": 60})) == []
    (line,) = too_many_strangers(shards, {"g0009": 61, "unknown": 1000})
    assert line.startswith("g0009: reviewers called 61 pairs different, and 20 pairs of strangers were expected")
    assert list(too_many_strangers([of_newcomers(0, strangers=1)], {"g0009": 9})) == [], "of too few pairs"


def test_all_are_shown_where_that_is_asked_for() -> None:
    text = "\n".join(printed(None))
    assert all(f"{letter}{number:04d}" in text for letter in "cg" for number in range(1, 1001))
    assert "--all" not in text
