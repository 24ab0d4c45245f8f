"""A record that no worker gets past is skipped by hand: it becomes a dead letter, and whoever reads passes over it."""

from runtime.servers.log import Span, TopicLog
from runtime.servers.publisher import Publisher
from schemas.attempts import COMPACTION, Position, Skipped, skip_of
from schemas.envelope import StoredRecord
from schemas.faults import UserFault
from schemas.letters import dead_letter
from schemas.settings import Settings
from schemas.topics import CONSUMER_GROUPS, DUPLICATES, TOPICS, topic_named

_CLIENT = "letters"


class NothingToSkipError(UserFault):
    """No worker reads a record at that position. The text says what there is."""


def readers_of(topic: str) -> list[str]:
    """Who passes over what is skipped on a topic, by the topic's name in the table."""
    readers = [group.name for group in CONSUMER_GROUPS if topic_named(topic) in group.reads]
    return [*readers, COMPACTION] if topic == DUPLICATES.name else readers


def skip(settings: Settings, position: Position, note: str) -> list[str]:
    """Have every reader pass over a record, which becomes a dead letter. Returns the readers.

    A worker knows of it from its next start on, or once partitions are divided anew. Raises NothingToSkipError.
    """
    record = _record_at(settings, position)
    readers = readers_of(position.topic)
    why = f"skipped by hand{f': {note}' if note else ''}"
    letter = dead_letter(record, why, "facematch/skip")
    Publisher(settings, _CLIENT).publish_all(
        [letter, *(skip_of(position, Skipped(reader=reader, why=why)) for reader in readers)]
    )
    return readers


def _record_at(settings: Settings, position: Position) -> StoredRecord:
    read = [topic.name for topic in TOPICS if readers_of(topic.name)]
    if position.topic not in read:
        raise NothingToSkipError(f"no worker reads a topic {position.topic}; these are read: {', '.join(read)}")
    with TopicLog(settings, topic_named(position.topic), _CLIENT) as log:
        spans = log.spans()
        if position.partition not in spans:
            raise NothingToSkipError(f"topic {position.topic} has the partitions 0 to {max(spans)}")
        begin, end = spans[position.partition]
        where = f"partition {position.partition} of {position.topic}"
        if not begin <= position.offset < end:
            held = f"has the offsets {begin} to {end - 1}" if begin < end else "is empty"
            raise NothingToSkipError(f"{where} {held}: there is nothing to skip at {position.offset}")
        for batch in log.read({position.partition: Span(position.offset, position.offset + 1)}):
            return batch[0]
    raise NothingToSkipError(f"Kafka has compacted away what stood at {position}: nobody can die of it any more")
