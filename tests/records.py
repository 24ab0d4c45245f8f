"""Records as Kafka would hand them over."""

from schemas.envelope import Readable, Record, StoredRecord


def stored(record: Readable, offset: int = 0, partition: int = 0, timestamp: int = 0) -> StoredRecord:
    """The record as it is read at that place; `timestamp` in milliseconds since 1970."""
    return StoredRecord(record.topic, record.key, record.value, record.headers, partition, offset, timestamp)


def again(record: StoredRecord, partition: int | None = None) -> Record:
    """The same record, to be published once more."""
    return Record(record.topic, record.key, record.value, record.headers, partition)
