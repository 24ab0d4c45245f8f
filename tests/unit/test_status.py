"""Of thousands of collections `facematch status` shows the largest, and the sums of the others."""

from datetime import UTC, datetime

from rich.console import Console

from deploy.status import report
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


def test_all_are_shown_where_that_is_asked_for() -> None:
    text = "\n".join(printed(None))
    assert all(f"{letter}{number:04d}" in text for letter in "cg" for number in range(1, 1001))
    assert "--all" not in text
