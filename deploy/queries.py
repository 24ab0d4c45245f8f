"""What the command line reads: individuals and pairs from Postgres, lag from Kafka."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection

from schemas.envelope import full_name
from schemas.kafka import client_config, consumer_config, groups_on, patiently
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.tables import duplicates, erased, individual_duplicates, individuals, pair_verdicts
from schemas.topics import CONSUMER_GROUPS, ENCODINGS, MATCHER, Topic, matcher_of, shard_of
from streams.connection import connect_once
from streams.vitals import ScopeVitals, read_vitals


@dataclass(frozen=True, slots=True)
class Pair:
    """A current duplicate, with the photos of both individuals."""

    pair_id: str
    collection: str
    individual_a: str
    individual_b: str
    distance: float
    photo_a: str | None
    photo_b: str | None
    recorded_at: datetime
    verdict: str | None = None
    decided_by: str | None = None


_SAME_PAIR = and_(
    *(duplicates.c[name] == pair_verdicts.c[name] for name in ("collection", "individual_a", "individual_b"))
)


def current_pairs(
    connection: Connection, collection: str | None = None, since: datetime | None = None, decided: bool = False
) -> list[Pair]:
    """Pairs that hold, in the order of their recording; of one collection, or recorded at `since` or later.

    Those on which a reviewer has decided are left out unless they are asked for.
    """
    a, b = individuals.alias("a"), individuals.alias("b")
    query = (
        select(
            duplicates.c.pair_id,
            duplicates.c.collection,
            duplicates.c.individual_a,
            duplicates.c.individual_b,
            duplicates.c.distance,
            a.c.photo.label("photo_a"),
            b.c.photo.label("photo_b"),
            duplicates.c.recorded_at,
            pair_verdicts.c.verdict,
            pair_verdicts.c.decided_by,
        )
        .outerjoin(pair_verdicts, _SAME_PAIR)
        .outerjoin(a, and_(a.c.collection == duplicates.c.collection, a.c.individual_id == duplicates.c.individual_a))
        .outerjoin(b, and_(b.c.collection == duplicates.c.collection, b.c.individual_id == duplicates.c.individual_b))
        .where(duplicates.c.retracted.is_(None))
        .order_by(duplicates.c.recorded_at, duplicates.c.pair_id)
    )
    if not decided:
        query = query.where(pair_verdicts.c.verdict.is_(None))
    if collection is not None:
        query = query.where(duplicates.c.collection == collection)
    if since is not None:
        query = query.where(duplicates.c.recorded_at >= since)
    return [Pair(**row._mapping) for row in connection.execute(query)]


_OVERLAP = timedelta(seconds=10)  # of two transactions the one that began first may be seen last


def follow_pairs(connection: Connection, collection: str | None) -> Iterator[Pair | None]:
    """Pairs as they are recorded, without end; None whenever there is no further one at the moment."""
    since: datetime | None = None
    seen: set[str] = set()
    while True:
        for pair in current_pairs(connection, collection, since):
            if pair.pair_id not in seen:
                seen.add(pair.pair_id)
                yield pair
            since = pair.recorded_at - _OVERLAP
        connection.rollback()
        yield None
        time.sleep(0.2)


def count_states(connection: Connection) -> dict[str, dict[str, int]]:
    """How many individuals are in each state, by collection; of the erased, how many ever were."""
    view = individual_duplicates.c
    query = select(view.collection, view.state, func.count()).group_by(view.collection, view.state)
    counts: dict[str, dict[str, int]] = {}
    for collection, state, count in connection.execute(query.order_by(view.collection)):
        counts.setdefault(collection, {})[state] = count
    for collection, count in connection.execute(
        select(erased.c.collection, func.count()).group_by(erased.c.collection)
    ):
        counts.setdefault(collection, {})["erased"] = count
    return counts


def count_pairs(connection: Connection) -> dict[str, tuple[int, int]]:
    """Current pairs by collection: on how many nobody has decided yet, and on how many somebody has."""
    query = (
        select(
            duplicates.c.collection,
            func.count() - func.count(pair_verdicts.c.verdict),
            func.count(pair_verdicts.c.verdict),
        )
        .outerjoin(pair_verdicts, _SAME_PAIR)
        .where(duplicates.c.retracted.is_(None))
        .group_by(duplicates.c.collection)
    )
    return {collection: (undecided, decided) for collection, undecided, decided in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer group is behind: in records, and in seconds since the oldest it has not processed."""

    group: str
    records: int
    oldest_age_s: float | None


def lags(settings: Settings) -> list[Lag]:
    """The lag of every consumer group. Raises KafkaException if the broker does not answer.

    Of matchers: those of every number of shards that any has run with, so that one that never came shows its lag too.
    """
    matchers = [matcher_of(Shard(number, count)) for count in shard_counts(settings) for number in range(1, count + 1)]
    groups = [one for group in CONSUMER_GROUPS for one in (matchers if group is MATCHER else [group])]
    return [_lag(settings, group.name, group.reads) for group in groups]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What a matcher holds of one encoder's embeddings in one collection, and how far it is behind the log."""

    vitals: ScopeVitals
    shard: str
    matched: int
    lag: int
    at: datetime


def galleries(settings: Settings) -> list[Gallery]:
    """Of every collection what its matchers last said, and how far they are behind now.

    Raises KafkaException if the broker does not answer, redis.ConnectionError if Redis does not.
    """
    consumer = Consumer(consumer_config(settings, "status"))
    topic = full_name(ENCODINGS.name, settings.namespace)
    try:
        return sorted(
            (
                Gallery(scope, vitals.shard, vitals.matched, max(0, end - vitals.matched), vitals.at)
                for vitals in read_vitals(connect_once(settings), settings)
                for end in [consumer.get_watermark_offsets(TopicPartition(topic, vitals.partition), timeout=5)[1]]
                for scope in vitals.scopes
            ),
            key=lambda gallery: (gallery.vitals.collection, gallery.vitals.encoder, gallery.shard),
        )
    finally:
        consumer.close()


def shard_counts(settings: Settings) -> list[int]:
    """Numbers of shards, rising, of the matchers whose groups the broker knows; 1 if it knows none."""
    names = groups_on(AdminClient(client_config(settings, "status")), settings.namespace)
    shards = {shard_of(name) for name in names}
    return sorted({shard.count for shard in shards if shard}) or [1]


def _lag(settings: Settings, group: str, topics: tuple[Topic, ...]) -> Lag:
    consumer = Consumer(consumer_config(settings, group))
    try:
        places = [
            TopicPartition(full_name(topic.name, settings.namespace), partition)
            for topic in topics
            for partition in consumer.list_topics(full_name(topic.name, settings.namespace), timeout=5)
            .topics[full_name(topic.name, settings.namespace)]
            .partitions
        ]
        behind: list[TopicPartition] = []
        records = 0
        # A broker that answers may still be looking for who coordinates its first group.
        for place in patiently(lambda: consumer.committed(places, timeout=5), "status"):
            begin, end = consumer.get_watermark_offsets(place, timeout=5)
            place.offset = max(place.offset, begin)
            if place.offset < end:
                records += end - place.offset
                behind.append(place)
        return Lag(group, records, _oldest_age_s(consumer, behind))
    finally:
        consumer.close()


def _oldest_age_s(consumer: Consumer, places: list[TopicPartition]) -> float | None:
    oldest: int | None = None
    for place in places:
        consumer.assign([place])
        message = consumer.poll(2.0)
        if message is not None and message.error() is None:
            timestamp = message.timestamp()[1]
            oldest = timestamp if oldest is None else min(oldest, timestamp)
    return None if oldest is None else max(0.0, time.time() - oldest / 1000)
