"""The lag of the consumer groups, and the galleries of the matchers."""

import time
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Consumer, TopicPartition

from deploy.shards import shard_counts
from runtime.servers.kafka import consumer_config, retry_while_away
from runtime.servers.log import TopicLog
from runtime.servers.redis import connect_once
from schemas.envelope import full_name
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import CONSUMER_GROUPS, ENCODINGS, MATCHER, Topic, matcher_of
from streams.matcher.vitals import ScopeVitals, read_vitals


@dataclass(frozen=True, slots=True)
class GroupLag:
    """The lag of a consumer group: in records, and in seconds since the oldest record that it has not processed.

    `removed`: how many more records Kafka has removed before the group read them.
    """

    group: str
    records: int
    oldest_age_s: float | None
    removed: int = 0


def lags(settings: Settings) -> list[GroupLag]:
    """The lag of every consumer group. Raises KafkaException if the broker does not answer.

    Matchers: those of every number of shards that any has run with, so that a shard that never started shows its lag.
    """
    matchers = [matcher_of(Shard(number, count)) for count in shard_counts(settings) for number in range(1, count + 1)]
    groups = [one for group in CONSUMER_GROUPS for one in (matchers if group is MATCHER else [group])]
    return [_lag(settings, group.name, group.reads) for group in groups]


@dataclass(frozen=True, slots=True)
class GalleryStatus:
    """The gallery of one encoder in one collection, as a matcher holds it, and how far it is behind the log."""

    vitals: ScopeVitals
    shard: str
    matched: int
    lag: int
    at: datetime


def galleries(settings: Settings) -> list[GalleryStatus]:
    """The galleries of every collection, as their matchers last reported them, and how far those are behind now.

    A broker that is away is waited for. Raises redis.ConnectionError where Redis does not answer.
    """
    with TopicLog(settings, ENCODINGS, "status") as log:
        ends = {partition: span.end for partition, span in log.spans().items()}
    return sorted(
        (
            GalleryStatus(scope, vitals.shard, vitals.matched, max(0, end - vitals.matched), vitals.at)
            for vitals in read_vitals(connect_once(settings), settings)
            for end in [ends.get(vitals.partition, 0)]
            for scope in vitals.scopes
        ),
        key=lambda gallery: (gallery.vitals.collection, gallery.vitals.encoder, gallery.shard),
    )


def _lag(settings: Settings, group: str, topics: tuple[Topic[Event], ...]) -> GroupLag:
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
        records = removed = 0
        # A broker that answers may still be looking for who coordinates its first group.
        for place in retry_while_away(lambda: consumer.committed(places, timeout=5), "status"):
            begin, end = consumer.get_watermark_offsets(place, timeout=5)
            removed += max(0, begin - place.offset) if place.offset >= 0 else 0
            place.offset = max(place.offset, begin)
            if place.offset < end:
                records += end - place.offset
                behind.append(place)
        return GroupLag(group, records, _oldest_age_s(consumer, behind), removed)
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
