"""How fast a replay goes: as fast as others are not delayed by it. Pure.

Congestion control as in TCP (Chiu and Jain 1989: additive increase, multiplicative decrease), with delay as the signal
(Brakmo and Peterson 1995, "TCP Vegas"): nothing is ever lost, but what a consumer has not come to yet makes a live
event wait that comes behind it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

TARGET_S = 0.4  # how long a group may seem to be behind: then a live event waits less than a second
TICK_S = 0.1
_FIRST_RATE = 2.0  # events/s
_LEAST_RATE = 0.5
_GROW_BELOW_S = 0.35  # what a group that keeps up may seem to be behind: it commits, and is looked at, now and then
_DOUBLES_IN_S = 1.5  # until a group is behind for the first time
_INCREASE = 0.05  # of the rate at which one was, each second
_DECREASE, _LEAST_SHARE = 0.8, 0.1
_BURST_S, _SHORTEST_S = 0.05, 0.005
_REMEMBERED = 600  # ticks
Place = tuple[str, int]  # a topic, and one of its partitions


class BacklogAge:
    """How long ago what a consumer group has not processed yet was there already: 0 where it keeps up."""

    def __init__(self) -> None:
        self._open: deque[tuple[float, Mapping[Place, int]]] = deque(maxlen=_REMEMBERED)

    def note(self, now: float, ends: Mapping[Place, int], committed: Mapping[Place, int]) -> float:
        """Take in that partitions ended at `ends` at that time, and what the group has committed since. In seconds."""
        self._open.append((now, ends))
        while self._open and all(committed.get(place, 0) >= end for place, end in self._open[0][1].items()):
            self._open.popleft()
        return now - self._open[0][0] if self._open else 0.0


class Pace:
    """Says when the next event may be sent. The rate grows while it is used and no group is behind.

    While one is behind by more than TARGET_S nothing is sent. `most` limits the rate in any case, in events/s.
    Where no groups are looked at, it is the only limit.
    """

    def __init__(
        self, most: float | None = None, watched: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most if most is not None else float("inf")
        self._clock = clock
        self.rate = min(_FIRST_RATE, self._most) if watched else self._most
        self._increase: float | None = None  # None: it was never too fast
        self._is_open, self._was_behind = True, False
        self._was_waited_for = False
        self._too_fast = self.rate
        self._observed_at = self._filled_at = clock()
        self._tokens = 1.0
        self._lock = threading.Lock()  # it is observed in another thread than events are sent in

    def observe(self, delay_s: float) -> None:
        """Take in how far the group is behind that is behind most."""
        with self._lock:
            self._observe(self._clock(), delay_s)

    def take(self) -> float:
        """0 if an event may be sent now: then it counts as sent. Otherwise in how many seconds to ask again."""
        if self.rate == float("inf"):
            return 0.0
        with self._lock:
            return self._take(self._clock())

    def _observe(self, now: float, delay_s: float) -> None:
        elapsed, self._observed_at = now - self._observed_at, now
        self._fill(now)
        if delay_s > _GROW_BELOW_S and not self._was_behind:
            self._increase = _INCREASE * self.rate
        if delay_s > TARGET_S:
            if self._is_open:
                self._too_fast = self.rate
            # Sent within TARGET_S, it takes them so long: they do so much less than was sent.
            share = max(_LEAST_SHARE, min(_DECREASE, TARGET_S / delay_s))
            self.rate = min(self.rate, max(_LEAST_RATE, share * self._too_fast))
        self._was_behind, self._is_open = delay_s > _GROW_BELOW_S, delay_s <= TARGET_S
        if not self._was_behind and self._was_waited_for:
            doubled = self.rate * 2 ** (elapsed / _DOUBLES_IN_S)
            grown = doubled if self._increase is None else self.rate + self._increase * elapsed
            self.rate = min(self._most, grown)
        self._was_waited_for = False

    def _take(self, now: float) -> float:
        self._fill(now)
        if self._is_open and self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        self._was_waited_for = True
        return min(TICK_S, max(_SHORTEST_S, (1 - self._tokens) / self.rate)) if self._is_open else TICK_S

    def _fill(self, now: float) -> None:
        """Tokens as in a bucket: what was not sent for a moment may be made up for."""
        most = 1 + _BURST_S * self.rate
        gained = (now - self._filled_at) * self.rate if self._is_open else 0.0
        self._tokens, self._filled_at = min(most, self._tokens + gained), now
