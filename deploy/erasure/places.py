"""Finds every place that holds something of an individual: topics, tables, Redis."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from redis import Redis
from sqlalchemy import Column, and_, func, or_, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.schema import Table

from deploy.compaction.schedule import Schedule
from runtime.servers.log import TopicLog
from runtime.servers.redis import connect_once, value_of
from schemas.envelope import StoredRecord, UnreadableError, decode, kafka_time
from schemas.events.base import Event, individual_key
from schemas.events.encodings import EncodingComputed
from schemas.events.pairs import parse_check_key
from schemas.events.registrations import Registration
from schemas.settings import Settings
from schemas.tables import checks, decisions, duplicates, individuals, retractions
from schemas.topics import COMPACTED_WITHIN, TOPICS, Cleanup, Topic

OnPlace = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlaceContent:
    """What a place holds of an individual, as text; empty: nothing. `until`: when the last of it expires, as text."""

    name: str
    there: str
    until: str = ""


@dataclass(slots=True)
class _Seen:
    records: int = 0
    photos: int = 0
    nulls: int = 0
    last: int = 0  # milliseconds since 1970
    vectors: list[bytes] = field(default_factory=list)

    def add(self, record: StoredRecord) -> None:
        self.last = max(self.last, record.timestamp)
        if record.value is None:
            self.nulls += 1
            return
        self.records += 1
        try:
            event = decode(record).event
        except UnreadableError:
            return
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


class Footprint:
    """Searches all places for one individual. Redis is searched for the embeddings that were found in Kafka."""

    def __init__(self, settings: Settings, collection: str, individual_id: str) -> None:
        self._settings, self._collection, self._individual_id = settings, collection, individual_id
        self._key = individual_key(collection, individual_id).encode()
        self._vectors: set[bytes] = set()
        self._pairs: set[bytes] = set()  # keys of pairs: null values have nothing else

    def places(self, connection: Connection, report: OnPlace) -> list[PlaceContent]:
        """The content of every place; `report` is called with the name of each before it is searched.

        Raises KafkaException, redis.ConnectionError, OperationalError.
        """
        found = [self._topic(topic, report) for topic in TOPICS]
        report("Postgres")
        found += [self._table(connection, table) for table in (individuals, checks, duplicates, retractions, decisions)]
        report("Redis")
        return [*found, self._redis()]

    def _topic(self, topic: Topic[Event], report: OnPlace) -> PlaceContent:
        seen = _Seen()
        with TopicLog(self._settings, topic, "survey") as log:
            report(f"topic {topic.name}")
            for batch in log.read(log.spans()):
                for record in batch:
                    if self._is_about(record):
                        seen.add(record)
        self._vectors |= set(seen.vectors)
        until = ""
        if seen.last:
            last = kafka_time(seen.last)
            kept = topic.retention or (COMPACTED_WITHIN + (topic.tombstones_kept or timedelta()))
            until = f"{last + kept:%Y-%m-%d}"
            if topic.cleanup is Cleanup.COMPACT and seen.records:
                until = f"{last + COMPACTED_WITHIN:%Y-%m-%d}, null values {until}"
        return PlaceContent(f"topic {topic.name}", str(seen), until)

    def _is_about(self, record: StoredRecord) -> bool:
        key = record.key or b""
        if self._is_own(key) or (record.value is None and key in self._pairs):
            return True
        text = json.dumps(self._individual_id)[1:-1].encode()
        if not any(one in (record.value or b"") for one in (text, self._individual_id.encode())):
            return False
        try:
            event = decode(record).event
        except UnreadableError:
            return True
        about = event.collection == self._collection and self._individual_id in {who for who, _ in event.subjects()}
        if about:
            self._pairs.add(key)
        return about

    def _is_own(self, key: bytes) -> bool:
        """Whether a key is the individual's, or that of their check, by any shard."""
        if not key.endswith(self._key):
            return False
        check = parse_check_key(key.decode(errors="replace"))
        return check is not None and check[1].encode() == self._key

    def _table(self, connection: Connection, table: Table) -> PlaceContent:
        columns: list[Column[str]] = [
            table.c[name] for name in ("individual_id", "individual_a", "individual_b") if name in table.c
        ]
        whose = or_(*(column == self._individual_id for column in columns))
        query = select(func.count()).select_from(table).where(and_(table.c.collection == self._collection, whose))
        count = connection.scalar(query) or 0
        return PlaceContent(f"table {table.name}", f"{count} row{'s' * (count > 1)}" if count else "")

    def _redis(self) -> PlaceContent:
        # Kafka may have compacted the embeddings away: then the id is searched for.
        needles = self._vectors or {self._individual_id.encode()}
        count, overlap = 0, max(map(len, needles)) - 1
        with closing(connect_once(self._settings)) as redis:
            for names in _files(redis, self._settings.namespace):
                before = b""
                for name in names:
                    text = before + value_of(redis, name)
                    count += sum(needle in text for needle in needles)
                    before = text[len(text) - overlap :]
        again = Schedule.parse(self._settings.compact_at, self._settings.time_zone).next_after(datetime.now(UTC))
        until = f"the compaction of {again:%Y-%m-%d %H:%M}, if facematch up runs it" if count else ""
        return PlaceContent("Redis", f"{count} embedding{'s' * (count > 1)}" if count else "", until)


def _files(redis: Redis, namespace: str) -> Iterator[list[bytes]]:
    """The keys of values; the chunks of one file together and in order."""
    files: dict[bytes, list[tuple[int, bytes]]] = {}
    for name in redis.scan_iter(match=f"{namespace}:*", count=1000, _type="string"):
        file, _, number = name.rpartition(b":")
        place = (file, int(number)) if number.isdigit() else (name, 0)
        files.setdefault(place[0], []).append((place[1], name))
    for chunks in files.values():
        yield [name for _, name in sorted(chunks)]
