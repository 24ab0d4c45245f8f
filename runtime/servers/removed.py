"""Records that Kafka removed before a group had read them: each gap is logged, counted, and becomes a dead letter.

Kafka removes what is older than a topic's retention, read or not, and a consumer goes on behind it without a word.
"""

from collections.abc import Callable, Iterable, Mapping

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from runtime.servers.kafka import is_transient, retry_while_away
from runtime.servers.publisher import Publisher
from runtime.telemetry.metrics import REMOVED
from schemas.envelope import Record, full_name
from schemas.letters import letter_of_removed
from schemas.settings import Settings
from schemas.topics import Cleanup, ConsumerGroup, topic_named

log = structlog.stdlib.get_logger(__name__)

_TIMEOUT_S = 5.0


def report_removed(group: str, topic: str, partition: int, position: int, begin: int) -> Record | None:
    """Log and count what was removed if a partition begins above the position of a group. Returns the dead letter."""
    if begin <= position:
        return None
    REMOVED.labels(group, topic).inc(begin - position)
    log.error(
        "records were removed before they were read",
        group=group,
        topic=topic,
        partition=partition,
        records=begin - position,
        first_offset=position,
        last_offset=begin - 1,
    )
    return letter_of_removed(topic, partition, position, begin, group)


class RemovalWatch:
    """Watches the partitions of a group's consumer. A gap's letter is acknowledged before what follows is handed on.

    For the thread that polls the consumer. A `publish` of its own is made where none is handed in.
    """

    def __init__(
        self,
        settings: Settings,
        group: ConsumerGroup,
        consumer: Consumer,
        publish: Callable[[Iterable[Record]], None] | None = None,
    ) -> None:
        self._settings, self._group, self._consumer = settings, group.name, consumer
        self._topics = {full_name(topic.name, settings.namespace): topic.name for topic in group.reads}
        self._publish = publish or self._publish_alone
        self._next: dict[tuple[str, int], int] = {}
        for topic in group.reads:
            REMOVED.labels(group.name, topic.name)  # there before the first is counted

    def assigned(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Take partitions in, by the full names of topics, with the committed offsets; below 0: there is none.

        Where the broker does not answer, the first record of the partition tells.
        """
        for place, position in positions.items():
            if position < 0:
                self._next.pop(place, None)
                continue
            self._next[place] = position
            try:
                self._check(place, position, self._begin_of(place))
            except KafkaException as error:
                if not is_transient(error.args[0]):
                    raise

    def read(self, topic: str, partition: int, offset: int) -> None:
        """A record was handed over. Where offsets are missing before it, ask whether Kafka removed them.

        It may be a transaction's mark that is missing, or on a compacted topic what was compacted away: of those topics
        Kafka removes nothing else.
        """
        place = (topic, partition)
        expected = self._next.get(place, offset)
        self._next[place] = offset + 1
        if offset > expected and topic_named(self._topics[topic]).cleanup is Cleanup.DELETE:
            begin = retry_while_away(lambda: self._begin_of(place), "removed")
            self._check(place, expected, min(begin, offset))

    def _check(self, place: tuple[str, int], position: int, begin: int) -> None:
        topic, partition = place
        letter = report_removed(self._group, self._topics[topic], partition, position, begin)
        if letter is not None:
            self._publish([letter])
            self._next[place] = max(self._next[place], begin)

    def _begin_of(self, place: tuple[str, int]) -> int:
        return self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=_TIMEOUT_S)[0]

    def _publish_alone(self, records: Iterable[Record]) -> None:
        Publisher(self._settings, f"{self._group}-removed").publish_all(records)


def committed_offsets(consumer: Consumer, places: list[TopicPartition]) -> dict[tuple[str, int], int]:
    """Of partitions that a consumer has just been given; below 0 where there is none, or the broker does not answer."""
    try:
        found = consumer.committed(places, timeout=_TIMEOUT_S) if places else []
    except KafkaException as error:
        if not is_transient(error.args[0]):
            raise
        return {}
    return {(place.topic, place.partition): place.offset for place in found}
