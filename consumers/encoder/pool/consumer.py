"""arroyo's Kafka consumer, which ends where the original would go on polling a consumer that gets nothing more."""

from collections.abc import Callable, Mapping, Sequence

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.types import BrokerValue, Partition, Topic

from runtime.servers.flow import Flow, is_behind
from runtime.servers.kafka import consumer_config
from runtime.servers.lag import Positions
from runtime.telemetry.health import HEALTH, NO_PARTITIONS
from schemas.envelope import StoredRecord
from schemas.settings import Settings
from schemas.topics import ConsumerGroup

_LONGEST_WAIT_S = 0.05  # arroyo commits what is answered between two polls, and would wait for a second


class CheckedConsumer(KafkaConsumer):
    """`poll` raises StalledError if nothing is handed over for a while although there is something.

    Not while the consumer is paused, which arroyo does as long as the step behind it takes no more.

    It keeps `positions`, from which the lag is measured. The worker is ready while the group has given it partitions.
    """

    def __init__(self, settings: Settings, group: ConsumerGroup, positions: Positions) -> None:
        own = {"arroyo.enable.auto.commit": True, "arroyo.strict.offset.reset": False}
        super().__init__(consumer_config(settings, group.name) | own)
        consumer = self._KafkaConsumer__consumer  # type: ignore[attr-defined] # arroyo offers no way to ask it
        self._flow = Flow(lambda: is_behind(consumer))
        self._positions = positions

    def subscribe(
        self,
        topics: Sequence[Topic],
        on_assign: Callable[[Mapping[Partition, int]], None] | None = None,
        on_revoke: Callable[[Sequence[Partition]], None] | None = None,
    ) -> None:
        """See KafkaConsumer.subscribe."""

        def assigned(offsets: Mapping[Partition, int]) -> None:
            self._positions.assigned({(place.topic.name, place.index): at for place, at in offsets.items()})
            if on_assign is not None:
                on_assign(offsets)
            HEALTH.ready()

        def revoked(places: Sequence[Partition]) -> None:
            HEALTH.not_ready(NO_PARTITIONS)
            self._positions.revoked((place.topic.name, place.index) for place in places)
            if on_revoke is not None:
                on_revoke(places)

        super().subscribe(topics, assigned, revoked)
        HEALTH.not_ready(NO_PARTITIONS)

    def poll(self, timeout: float | None = None) -> BrokerValue[KafkaPayload] | None:
        """See KafkaConsumer.poll."""
        if not self._positions:
            HEALTH.beat()  # there is no step yet that does
        message = super().poll(_LONGEST_WAIT_S if timeout is None else min(timeout, _LONGEST_WAIT_S))
        if message is not None or self.paused():
            self._flow.moved()
        else:
            self._flow.check()
        return message

    def processed(self, record: StoredRecord) -> None:
        """Note that a record is processed, and all before it."""
        self._positions.processed({(record.topic, record.partition): (record.offset, record.timestamp)})
