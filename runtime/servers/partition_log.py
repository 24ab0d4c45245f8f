"""Reading a stretch of a partition, beside any consumer group: how state is restored and gaps are filled."""

from collections.abc import Generator

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from runtime.servers.kafka import consumer_config, is_transient, record_of, retry_while_away
from schemas.envelope import StoredRecord, full_name
from schemas.events.base import Event
from schemas.settings import Settings
from schemas.topics import Topic

_BATCH = 100  # of 2000, whose objects live at the same time, Python's garbage collector took a third of all time
_WAIT_S = 0.1
_FULL_QUEUE_WAIT_MS = 50  # after that long librdkafka fetches again; its second is longer than a queue takes to read


class PartitionLog:
    """One topic, read by partition and offset. A broker that is away is waited for."""

    def __init__(self, settings: Settings, topic: Topic[Event], group: str) -> None:
        self._topic = topic.name
        self._full_name = full_name(topic.name, settings.namespace)
        # The group is named so that its committed offsets can be asked for; nothing subscribes or commits here.
        reading = {"enable.partition.eof": True, "fetch.queue.backoff.ms": _FULL_QUEUE_WAIT_MS}
        self._consumer = Consumer(consumer_config(settings, group) | reading)

    def bounds(self, partition: int) -> tuple[int, int]:
        """The offset of the first record that the partition may have, and that which its next record will get."""
        place = TopicPartition(self._full_name, partition)
        begin, end = retry_while_away(lambda: self._consumer.get_watermark_offsets(place, timeout=5), "restore")
        return int(begin), int(end)

    def end(self, partition: int) -> int:
        """The offset that the next record of the partition will get."""
        return self.bounds(partition)[1]

    def committed(self, partition: int) -> int | None:
        """The group's committed offset, None where it has none."""
        place = TopicPartition(self._full_name, partition)
        offset = retry_while_away(lambda: self._consumer.committed([place], timeout=5), "restore")[0].offset
        return None if offset == OFFSET_INVALID or offset < 0 else int(offset)

    def read(self, partition: int, begin: int, end: int) -> Generator[list[StoredRecord], None, None]:
        """The records with offsets in [begin, end), in batches. Compaction may have left gaps.

        Who stops before the end closes it, before the log.
        """
        if begin >= end:
            return
        self._consumer.assign([TopicPartition(self._full_name, partition, begin)])
        try:
            position = begin
            while position < end:
                batch: list[StoredRecord] = []
                for message in self._consumer.consume(min(_BATCH, end - position), _WAIT_S):
                    error = message.error()
                    offset = message.offset()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF and offset is not None:
                            position = max(position, offset)
                        elif not is_transient(error):
                            raise KafkaException(error)
                        continue
                    record = record_of(message, self._topic)
                    position = record.offset + 1
                    if record.offset < end:
                        batch.append(record)
                if batch:
                    yield batch
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()
