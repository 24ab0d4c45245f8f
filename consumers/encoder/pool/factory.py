"""The step of a pool for arroyo's loop: made anew whenever partitions come and go."""

from collections.abc import Mapping
from datetime import UTC
from typing import Generic, TypeVar

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Partition

from consumers.encoder.pool.step import AnswerInPool, Work
from runtime.servers.publisher import Publisher
from schemas.envelope import StoredRecord

T = TypeVar("T")
R = TypeVar("R")


class StepFactory(ProcessingStrategyFactory[KafkaPayload], Generic[T, R]):
    """Makes the step anew for each set of partitions. `topic` is the name in the topic table of what is consumed."""

    def __init__(self, work: Work[T, R], publisher: Publisher, topic: str, limit: int, longest_s: float) -> None:
        self._work = work
        self._publisher = publisher
        self._topic = topic
        self._limit = limit
        self._longest_s = longest_s

    def create_with_partitions(
        self,
        commit: Commit,
        partitions: Mapping[Partition, int],  # noqa: ARG002
    ) -> ProcessingStrategy[KafkaPayload]:
        """See ProcessingStrategyFactory."""
        return AnswerInPool(
            self._work, self._publisher, self._record, CommitOffsets(commit), self._limit, self._longest_s
        )

    def shutdown(self) -> None:
        """End the threads and the processes."""
        self._work.threads.shutdown(wait=False, cancel_futures=True)
        self._work.pool.close()

    def _record(self, value: BrokerValue[KafkaPayload]) -> StoredRecord:
        payload = value.payload
        return StoredRecord(
            topic=self._topic,
            key=payload.key,
            value=payload.value,
            headers=tuple(payload.headers),
            partition=value.partition.index,
            offset=value.offset,
            timestamp=int(value.timestamp.replace(tzinfo=UTC).timestamp() * 1000),  # arroyo's is naive UTC
        )
