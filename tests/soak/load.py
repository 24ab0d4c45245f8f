"""What happens to people, always the same for a seed: newcomers, near duplicates, updates, moves, erasures, returns."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import Record, announce
from schemas.envelope import encode as record_of
from schemas.events.base import Event
from schemas.events.encodings import EncodingErased
from schemas.events.registrations import IndividualDeleted
from tests.encodings import computed

COLLECTIONS = ("camp-a", "camp-b", "camp-c")
_FEW = 50  # a collection that has fewer people than this gets newcomers only
_DIRECTIONS, _NORM, _THRESHOLD = 40, 0.6, 0.45


@dataclass(frozen=True, slots=True)
class Person:
    """An individual at one revision. `face` is the embedding, (128,) float32."""

    collection: str
    individual_id: str
    revision: int
    face: NDArray[np.float32]


class Load:
    """Makes records, one happening after the other. Counts them: `happenings`."""

    def __init__(self, seed: int) -> None:
        self.happenings = 0
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._axes = np.random.default_rng(99).normal(size=(_DIRECTIONS, 128)) / np.sqrt(128)
        self._living: dict[str, list[Person]] = {collection: [] for collection in COLLECTIONS}
        self._erased: list[Person] = []
        self._newcomers = 0

    def newcomers(self, count: int) -> list[Record]:
        """Records of that many newcomers."""
        return [record for _ in range(count) for record in self._count(self._newcomer(self._collection()))]

    def next(self) -> list[Record]:
        """The records of the next happening."""
        return list(self._count(self._happening()))

    def _count(self, events: Iterator[Event]) -> Iterator[Record]:
        self.happenings += 1
        for event in events:
            yield record_of(announce(event, "soak"))

    def _happening(self) -> Iterator[Event]:
        collection, kind = self._collection(), self._random.random()
        people = self._living[collection]
        if kind < 0.62 or len(people) < _FEW:
            return self._newcomer(collection)
        at = self._random.randrange(len(people))
        if kind < 0.84:
            return self._update(collection, at)
        if kind < 0.90:
            return self._late(people[at], is_stale=kind < 0.87 and people[at].revision > 1)
        if kind < 0.92:
            return self._move(people.pop(at))
        if kind < 0.975:
            return self._erasure(people.pop(at), by_event=kind < 0.96)
        return self._return() if self._erased else self._newcomer(collection)

    def _newcomer(self, collection: str) -> Iterator[Event]:
        self._newcomers += 1
        looks_like_another = self._living[collection] and self._random.random() < 0.2
        face = self._near(self._somebody(collection).face) if looks_like_another else self._fresh()
        yield self._live(Person(collection, f"P-{self._newcomers:06d}", 1, face))

    def _update(self, collection: str, at: int) -> Iterator[Event]:
        one = self._living[collection].pop(at)
        like = one if self._random.random() < 0.5 else self._somebody(collection)
        face = self._fresh() if self._random.random() < 0.5 else self._near(like.face)
        yield self._live(Person(collection, one.individual_id, one.revision + 1, face))

    def _late(self, one: Person, is_stale: bool) -> Iterator[Event]:
        """What is known comes once more; or an older revision, with another face."""
        if is_stale:
            face = self._near(self._somebody(one.collection).face)
            yield computed(one.individual_id, face, one.revision - 1, one.collection)
        else:
            yield computed(one.individual_id, one.face, one.revision, one.collection)

    def _move(self, one: Person) -> Iterator[Event]:
        to = self._random.choice([other for other in COLLECTIONS if other != one.collection])
        yield IndividualDeleted(collection=one.collection, individual_id=one.individual_id, revision=one.revision + 1)
        yield self._live(Person(to, one.individual_id, one.revision + 1, one.face))

    def _erasure(self, one: Person, by_event: bool) -> Iterator[Event]:
        """By the registration system's event, or as a null value straight on `encodings`."""
        gone = Person(one.collection, one.individual_id, one.revision + 1, one.face)
        self._erased.append(gone)
        kind = IndividualDeleted if by_event else EncodingErased
        yield kind(collection=gone.collection, individual_id=gone.individual_id, revision=gone.revision)

    def _return(self) -> Iterator[Event]:
        """Somebody erased comes again: under an old revision, which does not count, or anew under a higher one."""
        at = self._random.randrange(len(self._erased))
        gone, face = self._erased[at], self._near(self._somebody(self._collection()).face)
        if self._random.random() < 0.6:
            yield computed(gone.individual_id, face, gone.revision - 1, gone.collection)
        else:
            del self._erased[at]
            yield self._live(Person(gone.collection, gone.individual_id, gone.revision + 5, face))

    def _live(self, one: Person) -> Event:
        self._living[one.collection].append(one)
        return computed(one.individual_id, one.face, one.revision, one.collection)

    def _collection(self) -> str:
        return self._random.choice(COLLECTIONS)

    def _somebody(self, collection: str) -> Person:
        return self._random.choice(self._living[collection])

    def _fresh(self) -> NDArray[np.float32]:
        """A face of its own: in the mean 0.85 away from any other."""
        face: NDArray[np.float64] = self._numbers.normal(size=_DIRECTIONS) @ self._axes
        return (_NORM * face / np.linalg.norm(face)).astype(np.float32)

    def _near(self, face: NDArray[np.float32]) -> NDArray[np.float32]:
        """A face close to another: at the threshold as float32 has it, anywhere within, or a hair's breadth beside."""
        kind = self._random.random()
        if kind < 0.1:
            near = face.copy()
            near[self._random.randrange(128)] += np.float32(_THRESHOLD)
            return near
        distance = self._random.uniform(0.02, 0.40) if kind < 0.45 else self._random.uniform(0.44, 0.46)
        direction = self._numbers.normal(size=128)
        return (face + distance * direction / np.linalg.norm(direction)).astype(np.float32)
