"""The consumer groups that a replay makes work for: who serves them, and how far they are behind."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Literal, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from producers.replay.pace import TICK_S, BacklogAge, Place
from runtime.process.background import Background
from runtime.servers.kafka import client_config, consumer_config, groups_on, is_transient, offsets
from schemas.envelope import full_name
from schemas.events.base import Event
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import CPU_POOL, GPU_POOL, INDIVIDUALS, SINK, ConsumerGroup, Topic, matcher_of, shard_of

CLIENT = "replay"  # as the broker logs it
_TIMEOUT_S = 5
_SERVE = {"encoder-cpu": "encode --pool cpu", "encoder-gpu": "encode --pool gpu", "sink": "sink"}


class UnservedError(UserFault):
    """Nobody serves some of the groups: what is replayed would wait, and live events behind it."""

    def __init__(self, groups: Iterable[ConsumerGroup]) -> None:
        names = [group.name for group in groups]
        start = ", ".join(f"`facematch {_SERVE.get(name) or _match(name)}`" for name in names)
        super().__init__(
            f"nobody is at work for {', '.join(names)}: what is replayed would wait, and live events behind it. Start "
            f"{start}; or send all --at-once, to wait until somebody is"
        )


class Groups:
    """Looks at the groups that process what is sent to topics, and what follows from it.

    Raises UnservedError where one of them has no consumer. The GPU pool need not have one: where it is started once
    there is work for it, a replay that makes some waits until it is.
    """

    def __init__(self, settings: Settings, topics: Iterable[Topic[Event]]) -> None:
        self._namespace = settings.namespace
        self._admin = AdminClient(client_config(settings, CLIENT))
        encoded = INDIVIDUALS in topics
        watched, missing = self._served([CPU_POOL] if encoded else [])
        if missing:
            raise UnservedError(missing)
        if encoded and _escalates(settings):
            watched.append(GPU_POOL)
        # Each is asked for its offsets as its consumers ask: the admin client's question crashes the process where a
        # coordinator has moved (librdkafka #5040).
        self._groups = [(group, BacklogAge(), Consumer(consumer_config(settings, group.name))) for group in watched]
        self._places = self._places_of({topic.name for group in watched for topic in group.reads})
        self._begins = self._offsets("earliest")

    def delays(self) -> dict[str, float]:
        """By how many seconds each group is behind. Raises KafkaException."""
        now = time.monotonic()
        ends = self._offsets("latest")
        found = {}
        for group, delay, consumer in self._groups:
            topics = {self._full(topic.name) for topic in group.reads}
            places = [place for place in self._places if place.topic in topics]
            committed = {
                (str(place.topic), place.partition): place.offset
                for place in consumer.committed(places, timeout=_TIMEOUT_S)
                if place.offset >= 0
            }
            own = {place: end for place, end in ends.items() if place[0] in topics}
            found[group.name] = delay.note(now, own, self._begins | committed)
        return found

    def close(self) -> None:
        """Let go of the broker."""
        for _, _, consumer in self._groups:
            consumer.close()

    def _served(self, wanted: list[ConsumerGroup]) -> tuple[list[ConsumerGroup], list[ConsumerGroup]]:
        """Groups with consumers, and those without: of matchers all shards of every number that is at work."""
        shards = {shard for name in groups_on(self._admin, self._namespace) if (shard := shard_of(name)) is not None}
        matchers = [matcher_of(shard) for shard in shards] or [matcher_of(Shard())]
        groups = [*wanted, *matchers, SINK]
        descriptions = self._admin.describe_consumer_groups(
            [self._full(group.name) for group in groups], request_timeout=_TIMEOUT_S
        )
        served = [group for group in groups if descriptions[self._full(group.name)].result().members]
        counts = {shard.count for shard in shards if matcher_of(shard) in served} or {1}
        needed = [matcher_of(Shard(number, count)) for count in sorted(counts) for number in range(1, count + 1)]
        return served, [group for group in (*wanted, *needed, SINK) if group not in served]

    def _places_of(self, topics: set[str]) -> list[TopicPartition]:
        known = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        return [
            TopicPartition(name, partition) for name in map(self._full, topics) for partition in known[name].partitions
        ]

    def _offsets(self, which: Literal["earliest", "latest"]) -> dict[Place, int]:
        found = offsets(self._admin, self._places, which, _TIMEOUT_S)
        return {(str(place.topic), place.partition): future.result().offset for place, future in found.items()}

    def _full(self, name: str) -> str:
        return full_name(name, self._namespace)


class Watch:
    """Looks at groups ten times a second, within `with`, in a thread of its own.

    `report` is called with the delay of each, in seconds.
    """

    def __init__(self, groups: Groups, report: Callable[[dict[str, float]], None]) -> None:
        self._groups = groups
        self._report = report
        self._stopping = threading.Event()
        self._background = Background(self._run, "groups")

    def __enter__(self) -> Self:
        self._background.start()
        return self

    def check(self) -> None:
        """Raise what the thread failed of, in the one that sends."""
        self._background.check()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._background.join()
        self._groups.close()

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            self._look()

    def _look(self) -> None:
        try:
            delays = self._groups.delays()
        except KafkaException as error:
            if not is_transient(error.args[0]):
                raise
            delays = {"Kafka": float("inf")}  # it does not answer: nobody knows how far anybody is behind
        self._report(delays)


def _escalates(settings: Settings) -> bool:
    """Whether photos go to the GPU pool by the settings: an event may ask for it all the same."""
    own = {one.routing or settings.routing for one in settings.collections.values()}
    return own | {settings.routing} != {"cpu"}


def _match(group: str) -> str:
    number, _, count = group.removeprefix("matcher").strip("-").partition("-of-")
    return f"match --shard {number}/{count}" if count else "match"
