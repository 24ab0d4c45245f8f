"""What a consumer of librdkafka hands over, as records: those too that the client cannot take apart."""

import re
from operator import methodcaller

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ConsumedMessage

from runtime.servers.kafka import is_transient
from schemas.envelope import UNREADABLE, UNREADABLE_BATCH, UNREADABLE_NAMES, Headers, StoredRecord

_headers = methodcaller("headers")
_SIZE = re.compile(r" of (\d+) bytes ")  # librdkafka: "Decompression (codec 0x4) of message at 1 of 9194 bytes failed"


def headers_of(message: ConsumedMessage) -> Headers:
    """The headers of a message, or UNREADABLE where a name among them is not UTF-8. To be called once.

    The client then returns null pointers with an exception set (confluent-kafka 2.16): they must not be touched, nor
    asked for again. Python turns that into a SystemError at once only where a call is not specialized: by methodcaller.
    """
    try:
        return tuple(_headers(message) or ())
    except (SystemError, UnicodeDecodeError):
        return ((UNREADABLE, UNREADABLE_NAMES),)


def record_of(message: ConsumedMessage, topic: str) -> StoredRecord:
    """The record in a message without error, as a consumer without deserializers hands it over."""
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None:
        raise ValueError("a message without error says where it stands")
    return StoredRecord(
        topic=topic,
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
        partition=partition,
        offset=offset,
        timestamp=message.timestamp()[1],
    )


class BrokenBatches:
    """Goes past batches that the client cannot unpack: it would hand over the same error for ever.

    How many records such a batch has is not known: it is left one offset at a time, until the client goes on.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._next: dict[tuple[str, int], int] = {}

    def forget(self) -> None:
        """The consumer begins anew, maybe before such a batch."""
        self._next.clear()

    def passed(self, message: ConsumedMessage, topic: str) -> StoredRecord | None:
        """The record that is given up with a message's error; the consumer goes on behind it.

        None of an error that passes by itself. Raises KafkaException of any other error.
        """
        error, name, partition, offset = message.error(), message.topic(), message.partition(), message.offset()
        assert error is not None
        if error.code() != KafkaError._BAD_COMPRESSION or name is None or partition is None or offset is None:
            if is_transient(error):
                return None
            raise KafkaException(error)
        offset = max(offset, self._next.get((name, partition), offset))
        try:
            self._consumer.seek(TopicPartition(name, partition, offset + 1))
        except KafkaException:  # the partition has gone to another consumer
            return None
        self._next[name, partition] = offset + 1
        size = _SIZE.search(error.str())
        why = UNREADABLE_BATCH + (b":" + size[1].encode() if size else b"")
        return StoredRecord(topic, None, None, ((UNREADABLE, why),), partition, offset, 0)
