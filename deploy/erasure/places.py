"""Finds every place that holds something of people: topics, tables, Redis. Many people take one pass."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

from redis import Redis
from sqlalchemy import func, select, tuple_
from sqlalchemy.engine import Connection
from sqlalchemy.sql.schema import Table

from deploy.compaction.schedule import Schedule
from deploy.erasure.needles import Needles
from deploy.erasure.topics import OnPlace, Person, PlaceContent, TopicSearch
from runtime.servers.redis import connect_once, value_of
from schemas.settings import Settings
from schemas.tables import checks, decisions, duplicates, individuals, retractions
from schemas.topics import TOPICS
from streams.checkpoint.retired import keys_of_counts, retired_keys

_TABLES = (individuals, checks, duplicates, retractions, decisions)
_AT_ONCE = 500  # people in a query
_ANY_TIME = timedelta(microseconds=1)
_OUT_OF_USE = "minutes after matchers of another number of shards began"


class Footprints:
    """Searches all places for some people. Redis is searched for the embeddings that were found in Kafka."""

    def __init__(self, settings: Settings, people: Sequence[Person]) -> None:
        self._settings, self._people = settings, list(people)
        self._topics = [TopicSearch(settings, topic, self._people) for topic in TOPICS]

    def places(self, connection: Connection, report: OnPlace) -> dict[Person, list[PlaceContent]]:
        """The content of every place, for each of the people; `report` is called with what is being searched.

        Called again, it reads of the topics what came since. Raises KafkaException, redis.ConnectionError,
        OperationalError.
        """
        for topic in self._topics:
            topic.search(report)
        report("Postgres")
        tables = [(table.name, self._rows(connection, table)) for table in _TABLES]
        report("Redis")
        in_use, out_of_use = self._in_redis()
        schedule = Schedule.parse(self._settings.compact_at, self._settings.time_zone)
        compaction = f"the compaction of {schedule.next_after(datetime.now(UTC)):%Y-%m-%d %H:%M}"
        return {
            person: [
                *(topic.content(person) for topic in self._topics),
                *(PlaceContent(f"table {name}", _counted(rows[person], "row")) for name, rows in tables),
                _in_place("Redis", in_use[person], f"{compaction}, if facematch up runs it"),
                _in_place("Redis, shards out of use", out_of_use[person], _OUT_OF_USE),
            ]
            for person in self._people
        }

    def _rows(self, connection: Connection, table: Table) -> Counter[Person]:
        """How many rows of a table are about each of the people."""
        found: Counter[Person] = Counter()
        columns = [table.c[name] for name in ("individual_id", "individual_a", "individual_b") if name in table.c]
        for begin in range(0, len(self._people), _AT_ONCE):
            some = self._people[begin : begin + _AT_ONCE]
            for column in columns:
                whose = tuple_(table.c.collection, column)
                query = select(table.c.collection, column, func.count()).where(whose.in_(some))
                for collection, who, count in connection.execute(query.group_by(table.c.collection, column)):
                    found[Person(collection, who)] += count
        return found

    def _in_redis(self) -> tuple[Counter[Person], Counter[Person]]:
        """How many embeddings of each there are: in checkpoints, and in those of numbers of shards out of use."""
        needles = self._needles()
        counts: tuple[Counter[Person], Counter[Person]] = (Counter(), Counter())
        with closing(connect_once(self._settings)) as redis:
            old = retired_keys(redis, keys_of_counts(redis, self._settings), _ANY_TIME).values()
            out_of_use = {name for names in old for name in names}
            for names in _files(redis, self._settings.namespace):
                found = _needles_in((value_of(redis, name) for name in names), needles)
                for people in found.values():
                    counts[names[0] in out_of_use].update(people)
        return counts

    def _needles(self) -> Needles[tuple[bytes, frozenset[Person]]]:
        """Embeddings and whose they are. Where Kafka has compacted somebody's away, the id."""
        owners: dict[bytes, set[Person]] = {}
        for topic in self._topics:
            for vector, person in topic.vectors():
                owners.setdefault(vector, set()).add(person)
        known = {person for people in owners.values() for person in people}
        for person in self._people:
            if person not in known:
                owners.setdefault(person.individual_id.encode(), set()).add(person)
        return Needles({needle: (needle, frozenset(people)) for needle, people in owners.items()})


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}" if count else ""


def _in_place(name: str, count: int, until: str) -> PlaceContent:
    return PlaceContent(name, _counted(count, "embedding"), until if count else "")


def _needles_in(
    texts: Iterable[bytes], needles: Needles[tuple[bytes, frozenset[Person]]]
) -> dict[bytes, frozenset[Person]]:
    """Those that are in a file, given in pieces, with whose they are."""
    found: dict[bytes, frozenset[Person]] = {}
    before, overlap = b"", max(needles.longest - 1, 0)
    for piece in texts:
        text = before + piece
        found |= {needle: people for _, (needle, people) in needles.find(text)}
        before = text[len(text) - overlap :]
    return found


def _files(redis: Redis, namespace: str) -> Iterator[list[bytes]]:
    """The keys of values; the chunks of one file together and in order."""
    files: dict[bytes, list[tuple[int, bytes]]] = {}
    for name in redis.scan_iter(match=f"{namespace}:*", count=1000, _type="string"):
        file, _, number = name.rpartition(b":")
        place = (file, int(number)) if number.isdigit() else (name, 0)
        files.setdefault(place[0], []).append((place[1], name))
    for chunks in files.values():
        yield [name for _, name in sorted(chunks)]
