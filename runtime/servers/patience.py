"""How long to wait before something that is away is asked again."""

from collections.abc import Iterator

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


def growing_pauses(first_s: float = FIRST_PAUSE_S, longest_s: float = LONGEST_PAUSE_S) -> Iterator[float]:
    """Seconds to wait before the next attempt, without end: each twice the one before, up to `longest_s`."""
    pause = first_s
    while True:
        yield pause
        pause = min(2 * pause, longest_s)
