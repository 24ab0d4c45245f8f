"""How far a group is behind in this process's partitions. The broker is asked where they end when this is scraped.

By a client of its own: librdkafka's consumers serve one thread at a time, and their loops hardly ever let another in.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import OFFSET_INVALID, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime.servers.kafka import client_config, offsets
from runtime.telemetry.metrics import LAG_MESSAGES, LAG_S, Series
from schemas.envelope import full_name
from schemas.settings import Settings

Place = tuple[str, int]  # of a topic, without the namespace, and a partition

_FRESH_S = 1.0
_TIMEOUT_S = 2.0


class Standing(NamedTuple):
    """All below offset `position` is processed, the last of it with Kafka's `timestamp` in milliseconds, if any."""

    place: Place
    position: int
    timestamp: int | None


class Ends:
    """The offsets that the next records of partitions will get, as old as a second. Thread-safe.

    While the broker is away they are those of before.
    """

    def __init__(self, settings: Settings, client: str) -> None:
        self._settings, self._client = settings, client
        self._admin: AdminClient | None = None
        self._known: dict[Place, int] = {}
        self._asked_at, self._asked_for = 0.0, set[Place]()
        self._lock = threading.Lock()

    def of(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """Of those partitions at least, as far as they are known."""
        with self._lock:
            wanted = set(places)
            if wanted and (time.monotonic() - self._asked_at > _FRESH_S or wanted - self._asked_for):
                self._ask(wanted)
                self._asked_at, self._asked_for = time.monotonic(), wanted
            return self._known

    def _ask(self, places: set[Place]) -> None:
        self._admin = self._admin or AdminClient(client_config(self._settings, f"{self._client}-lag"))
        wanted = {
            TopicPartition(full_name(topic, self._settings.namespace), partition): (topic, partition)
            for topic, partition in places
        }
        for where, future in offsets(self._admin, wanted, "latest", _TIMEOUT_S).items():
            with contextlib.suppress(KafkaException):  # whatever it is: all else is to be scraped
                self._known[wanted[where]] = future.result().offset


class Lag:
    """The lag of a group's partitions in this process.

    What waits has come behind the last that is processed, and since all was: the later of the two shows how long it
    waits at most. Where neither is known it has waited since it was first asked for, at least.
    """

    def __init__(
        self,
        group: str,
        standings: Callable[[], Iterable[Standing]],
        ends: Callable[[Iterable[Place]], Mapping[Place, int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._group, self._standings, self._ends, self._clock = group, standings, ends, clock
        self._first_asked: dict[Place, float] = {}
        self._all_processed: dict[Place, float] = {}

    def show(self) -> None:
        """Have it scraped."""
        LAG_MESSAGES.source, LAG_S.source = self.messages, self.seconds

    def messages(self) -> Series:
        """By group, topic and partition."""
        return {self._labels(one.place): max(0, end - one.position) for one, end in self._known()}

    def seconds(self) -> Series:
        """By group, topic and partition."""
        return {self._labels(one.place): self._seconds(one, end) for one, end in self._known()}

    def _known(self) -> list[tuple[Standing, int]]:
        standings = list(self._standings())
        here = {one.place for one in standings}
        for known in (self._first_asked, self._all_processed):  # what another process did meanwhile is not known
            for place in known.keys() - here:
                known.pop(place, None)
        ends = self._ends([one.place for one in standings])
        return [(one, ends[one.place]) for one in standings if one.place in ends]

    def _seconds(self, standing: Standing, end: int) -> float:
        now = self._clock()
        first_asked = self._first_asked.setdefault(standing.place, now)
        if standing.position >= end:
            self._all_processed[standing.place] = now
            return 0.0
        known = [standing.timestamp / 1000] if standing.timestamp else []
        if standing.place in self._all_processed:
            known.append(self._all_processed[standing.place])
        return max(0.0, now - max(known, default=first_asked))

    def _labels(self, place: Place) -> tuple[str, str, str]:
        return self._group, place[0], str(place[1])


class Positions:
    """Positions of a consumer in its partitions: its loop sets them, scrapes read them. Thread-safe."""

    def __init__(self, settings: Settings, group: str) -> None:
        self._prefix = full_name("", settings.namespace)
        self._at: dict[Place, tuple[int, int | None]] = {}
        self._lock = threading.Lock()
        Lag(group, self.standings, Ends(settings, group).of).show()

    def __bool__(self) -> bool:
        """Whether there are partitions."""
        return bool(self._at)

    def assigned(self, begin: Mapping[tuple[str, int], int]) -> None:
        """Take partitions in, by the full names of topics, and the offsets at which each begins; below 0: not known."""
        with self._lock:
            self._at |= {self._place(*place): (offset, None) for place, offset in begin.items()}

    def revoked(self, places: Iterable[tuple[str, int]]) -> None:
        """Forget partitions that went to another process."""
        with self._lock:
            for place in places:
                self._at.pop(self._place(*place), None)

    def processed(self, last: Mapping[tuple[str, int], tuple[int, int | None]]) -> None:
        """Note that all up to these offsets, with Kafka's timestamps in milliseconds, is processed."""
        processed = {self._place(*place): (offset + 1, at) for place, (offset, at) in last.items()}
        with self._lock:
            self._at |= {place: at for place, at in processed.items() if place in self._at}

    def standings(self) -> list[Standing]:
        """Of each partition of which it is known."""
        with self._lock:
            return [Standing(place, position, at) for place, (position, at) in self._at.items() if position >= 0]

    def _place(self, topic: str, partition: int) -> Place:
        return topic.removeprefix(self._prefix), partition


def begins(places: Iterable[TopicPartition], committed: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """Where a group goes on in partitions, by its committed offsets: 0 where it has not been yet; -1: not known."""
    found = {(place.topic, place.partition): committed.get((place.topic, place.partition), -1) for place in places}
    return {place: 0 if offset == OFFSET_INVALID else offset for place, offset in found.items()}
