"""How far a compaction is, and how many seconds each of its stages took."""

import time
from collections import defaultdict
from collections.abc import Callable

from streams.gallery.build import OnProgress


class Stopwatch:
    """Passes progress on, and adds up the seconds of each stage."""

    def __init__(self, progress: OnProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._progress = progress
        self._clock = clock
        self._stage, self._since = "", clock()

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """A stage is under way from now on; `done` of `total` steps of it are done."""
        if stage != self._stage:
            self.pause()
            self._stage = stage
        self._progress(stage, done, total, detail)

    def pause(self) -> None:
        """No stage is under way from now on."""
        now = self._clock()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = "", now
