"""How far work is, and how long each part of it took."""

import time
from collections import defaultdict
from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Told what is under way, how far it is, and to where it goes."""


class Stopwatch:
    """Passes progress on, and keeps how many seconds each part took: the first word of what is under way."""

    def __init__(self, progress: OnProgress) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._progress = progress
        self._part, self._since = "", time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """What is under way from now on."""
        if what.partition(" ")[0].rstrip(",") != self._part:
            self.pause()
            self._part = what.partition(" ")[0].rstrip(",")
        self._progress(what, done, total)

    def pause(self) -> None:
        """Nothing is under way from now on."""
        now = time.monotonic()
        if self._part:
            self.seconds[self._part] += now - self._since
        self._part, self._since = "", now
