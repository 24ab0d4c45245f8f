"""arroyo's Kafka consumer, waiting where the original gives up."""

from collections.abc import Mapping

from arroyo.backends.kafka import KafkaConsumer
from arroyo.types import Partition

from schemas.kafka import commit_patiently


class PatientConsumer(KafkaConsumer):
    """A commit waits for a broker that is away; arroyo's raises, which ends the process."""

    def commit_offsets(self) -> Mapping[Partition, int] | None:
        """See KafkaConsumer.commit_offsets."""
        return commit_patiently(super().commit_offsets)
