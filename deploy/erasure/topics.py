"""What the topics hold of people: all of them are looked for in one pass."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import NamedTuple

from deploy.erasure.needles import Needles
from runtime.servers.log import Span, TopicLog
from schemas.envelope import StoredRecord, UnreadableError, decode, kafka_time
from schemas.events.base import Event, individual_key
from schemas.events.encodings import EncodingComputed
from schemas.events.pairs import parse_check_key
from schemas.events.registrations import Registration
from schemas.settings import Settings
from schemas.topics import COMPACTED_WITHIN, Cleanup, Topic

_BETWEEN = b"\n"  # stands in no id
OnPlace = Callable[[str], None]


class Person(NamedTuple):
    """An individual of a collection."""

    collection: str
    individual_id: str

    def __str__(self) -> str:
        return individual_key(*self)


@dataclass(frozen=True, slots=True)
class PlaceContent:
    """What a place holds of an individual, as text; empty: nothing. `until`: when the last of it expires, as text."""

    name: str
    there: str
    until: str = ""


@dataclass(slots=True)
class _Seen:
    """What a topic holds of one person. `is_null`: by key, whether the last record is a null value."""

    records: int = 0
    photos: int = 0
    nulls: int = 0
    last: int = 0  # milliseconds since 1970
    vectors: list[bytes] = field(default_factory=list)
    is_null: dict[bytes, bool] = field(default_factory=dict)

    def add(self, record: StoredRecord, event: Event | None) -> None:
        """`event`: None where the record cannot be read."""
        self.last = max(self.last, record.timestamp)
        self.is_null[record.key or b""] = record.value is None
        if record.value is None:
            self.nulls += 1
            return
        self.records += 1
        if isinstance(event, Registration) and event.photo.inline is not None:
            self.photos += 1
        if isinstance(event, EncodingComputed):
            self.vectors.append(event.embedding.tobytes())

    def __str__(self) -> str:
        counts = (
            (self.records, "record"),
            (self.photos, "inline photo"),
            (len(self.vectors), "embedding"),
            (self.nulls, "null value"),
        )
        return ", ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)

    def until(self, topic: Topic[Event]) -> str:
        """When the last of it expires. A compacted topic drops nothing but what a null value stands behind."""
        if not self.last:
            return ""
        last = kafka_time(self.last)
        if topic.cleanup is not Cleanup.COMPACT:
            return f"{last + (topic.retention or timedelta()):%Y-%m-%d}" if topic.retention else "never"
        if staying := list(self.is_null.values()).count(False):
            return f"never: no null value stands behind {staying} key{'s' * (staying > 1)}"
        nulls = f"{last + COMPACTED_WITHIN + (topic.tombstones_kept or timedelta()):%Y-%m-%d}"
        return f"{last + COMPACTED_WITHIN:%Y-%m-%d}, null values {nulls}" if self.records else nulls


class TopicSearch:
    """One topic. The first search reads all of it, later ones what came since: Kafka changes no record."""

    def __init__(self, settings: Settings, topic: Topic[Event], people: Sequence[Person]) -> None:
        self._settings, self._topic = settings, topic
        self._by_key = {str(person).encode(): person for person in people}
        self._needles = _needles_of(people)
        self._of_pair: dict[bytes, set[Person]] = {}  # null values have nothing but the key of the pair
        self._seen: dict[Person, _Seen] = {}
        self._next: dict[int, int] = {}

    def search(self, report: OnPlace) -> None:
        """Read what has not been read. Raises KafkaException."""
        name = f"topic {self._topic.name}"
        with TopicLog(self._settings, self._topic, "survey") as log:
            spans = {
                partition: Span(max(span.begin, self._next.get(partition, 0)), span.end)
                for partition, span in log.spans().items()
            }
            total, done = sum(span.size for span in spans.values()), 0
            report(name)
            for batch in log.read(spans):
                for record, named in zip(batch, self._named_in(batch), strict=True):
                    self._note(record, named)
                done += len(batch)
                if done % 10_000 < len(batch):
                    report(f"{name}, {done / total:.0%}")
            self._next = {partition: span.end for partition, span in spans.items()}

    def content(self, person: Person) -> PlaceContent:
        """What was found of somebody."""
        seen = self._seen.get(person, _Seen())
        return PlaceContent(f"topic {self._topic.name}", str(seen), seen.until(self._topic))

    def vectors(self) -> Iterator[tuple[bytes, Person]]:
        """The embeddings that were found, with whose they are."""
        for person, seen in self._seen.items():
            yield from ((vector, person) for vector in seen.vectors)

    def _named_in(self, batch: Sequence[StoredRecord]) -> list[set[Person]]:
        """Whose ids stand in the value of each. All values are searched at once: one by one took ten times as long."""
        values = [record.value or b"" for record in batch]
        ends = list(accumulate(len(value) + len(_BETWEEN) for value in values))
        named: list[set[Person]] = [set() for _ in values]
        for end, people in self._needles.find(_BETWEEN.join(values)):
            named[bisect_left(ends, end)] |= people
        return named

    def _note(self, record: StoredRecord, named: set[Person]) -> None:
        key, event = record.key or b"", None
        about = self._owners(key)
        if record.value is None:
            about |= self._of_pair.get(key, set())
        if not about and not named:
            return
        if record.value is not None:
            try:
                event = decode(record).event
            except UnreadableError:
                about |= named
            else:
                subjects = {Person(event.collection, who) for who, _ in event.subjects()} & named
                if subjects:
                    self._of_pair.setdefault(key, set()).update(subjects)
                about |= subjects
        for person in about:
            self._seen.setdefault(person, _Seen()).add(record, event)

    def _owners(self, key: bytes) -> set[Person]:
        """Whose key it is: the individual's, or that of their check, by any shard."""
        if key.startswith(b"@"):
            check = parse_check_key(key.decode(errors="replace"))
            key = b"" if check is None else check[1].encode()
        person = self._by_key.get(key)
        return set() if person is None else {person}


def _needles_of(people: Sequence[Person]) -> Needles[set[Person]]:
    """Their ids as they stand in JSON, escaped or not. People of several collections may have the same one."""
    owners: dict[bytes, set[Person]] = {}
    for person in people:
        for text in (person.individual_id, json.dumps(person.individual_id)[1:-1]):
            owners.setdefault(text.encode(), set()).add(person)
    return Needles(owners)
