"""arroyo's Kafka consumer, stopping where the original would go on polling a consumer that gets nothing more."""

from collections.abc import Mapping
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.types import BrokerValue

from schemas.flow import Flow, is_behind

_LONGEST_WAIT_S = 0.05  # arroyo commits what is answered between two polls, and would wait for a second


class CheckedConsumer(KafkaConsumer):
    """`poll` raises StalledError if nothing is handed over for a while although there is something.

    Not while the consumer is paused, which arroyo does as long as the step behind it takes no more.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        super().__init__(configuration)
        consumer = self._KafkaConsumer__consumer  # type: ignore[attr-defined] # arroyo offers no way to ask it
        self._flow = Flow(lambda: is_behind(consumer))

    def poll(self, timeout: float | None = None) -> BrokerValue[KafkaPayload] | None:
        """See KafkaConsumer.poll."""
        message = super().poll(_LONGEST_WAIT_S if timeout is None else min(timeout, _LONGEST_WAIT_S))
        if message is not None or self.paused():
            self._flow.moved()
        else:
            self._flow.check()
        return message
