"""CloudEvents 1.0 in Kafka's binary mode: one encode, one decode.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
The attributes travel as headers (`ce_id`, `ce_type`, `ce_source`, `ce_time`, `ce_specversion`), the event
as JSON in the value, so that any language reads them with a plain Kafka client.
"""

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Generic, Protocol, TypeGuard, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from schemas.clocks import at_the_latest_on_arrival, not_before_arrival
from schemas.events.base import Event, individual_key
from schemas.events.encodings import EncodingAsSent, EncodingComputed, EncodingErased
from schemas.identity import uuid_of
from schemas.topics import DECISIONS, ENCODINGS, ESCALATIONS, EVENT_TYPES, INDIVIDUALS, Topic, topic_named, topic_of

SPEC_VERSION = "1.0"
_CONTENT_TYPE = b"application/json"
REPLAY_ID = "replay_id"
REDRIVE = b"redrive"  # the replay_id of a dead letter that is sent again, unless it had one
# Headers that whatever follows from a message carries on: the trace that it belongs to (https://www.w3.org/TR/trace-context)
# and the replay that sent it again.
_CARRIED_ON = ("traceparent", "tracestate", REPLAY_ID)
_CARRIED_LENGTH = 512  # of each: what follows from a message may be many, and no broker takes a header of a megabyte
LONGEST = {"ce_id": 255, "ce_source": 1024}  # characters: Postgres indexes ids, and letters carry headers on
# What a record may have, in bytes. Whoever hands it over as it came, or a letter about it, adds less than 64 KiB: see
# `schemas.topics`. Kafka itself bounds the compressed batch that it came in.
MOST_VALUE_BYTES, MOST_HEADER_BYTES = 4 * 2**20, 2**20
_QUOTED_LENGTH = 40  # of what the sender chose, which may be long, or a value in the place of a name
_PROBLEMS = 5  # of one event: an error becomes a header
_EARLIEST_MS, _LATEST_MS = 0, 253_402_214_400_000  # the years 1970 to 9999, but for the last day: time zones differ
# Topics on which clocks speak that are not ours. What is derived from their events carries the bounded time on.
_CLOCKS_OF_OTHERS = {topic.name for topic in (INDIVIDUALS, ESCALATIONS, ENCODINGS, DECISIONS)}
_EVENT_NAMESPACE = uuid.UUID("0b5f6d0a-49d4-5f0c-8d52-0b2c3c5f7e21")
_encoding_as_sent = TypeAdapter(EncodingAsSent).validator.validate_json

E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


Headers = tuple[tuple[str, bytes | None], ...]


class Source(StrEnum):
    """ce_source of the events that facematch itself publishes. Registration systems and review tools have their own."""

    SUBMIT = "facematch/submit"
    ENCODER = "facematch/encoder"
    MATCHER = "facematch/matcher"
    """Of the first answer to a newcomer: the sink and compaction publish some of them again, under their own names."""
    SINK = "facematch/sink"
    COMPACTION = "facematch/compaction"
    DECIDE = "facematch/decide"
    ERASE = "facematch/erase"


UNREADABLE = "facematch_unreadable"
"""A header that whoever reads a record puts before its own, where it is not to be decoded: which of these is why.

Of a record that Kafka's client could not take apart it is the only one.
"""
UNREADABLE_NAMES, UNREADABLE_BATCH = b"names", b"batch"  # the latter maybe with a colon and the size of the batch
SET_ASIDE = b"set_aside"


def is_set_aside(record: "StoredRecord") -> bool:
    """Whether a record is to be passed over: whoever read it died of it, or an operator skipped it. It has a letter."""
    return record.headers[:1] == ((UNREADABLE, SET_ASIDE),)


class UnreadableError(Exception):
    """A record that cannot be decoded. Its text is safe to log: it holds no value of the record."""


class Readable(Protocol):
    """What `decode` reads: a record that is to be written, that was read from Kafka, or that stands in a file.

    `topic` is the name in the topic table, without the namespace.
    """

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """A record to be written to Kafka.

    It goes to its `partition`, or to that of the collection `partition_by`, or to that of its key. Where the broker
    finds it too large, `smaller` is written in its place. Its repr leaves the value out: it may hold a photo or an
    embedding.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    partition_by: str | None = None
    smaller: "Record | None" = None

    def __repr__(self) -> str:
        return f"Record({self.topic}, key={self.key!r})"


@dataclass(frozen=True, slots=True, repr=False)
class StoredRecord:
    """A record that was read from Kafka, whichever client read it.

    `timestamp` is Kafka's, in milliseconds since 1970. Its repr leaves the value out: it may hold a photo or an
    embedding.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int
    offset: int
    timestamp: int

    @property
    def position(self) -> str:
        """Where it stands, in words: topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def __repr__(self) -> str:
        return f"StoredRecord({self.position}, key={self.key!r})"


@dataclass(frozen=True, slots=True)
class Message(Generic[E_co]):
    """An event in its envelope.

    `time` is when the individual was registered or the decision made, and never later than Kafka had that; whatever is
    derived from an event carries its time on, so that repeated work yields the same bytes. When a record was published
    is Kafka's timestamp. `context` are headers that it carries on as well: `traceparent`, `tracestate`, `replay_id`.
    """

    event: E_co
    id: str
    time: datetime
    source: str
    context: Headers = ()

    @property
    def is_replayed(self) -> bool:
        """Whether it follows from an event that was sent again: its time is that of the first time."""
        return any(name == REPLAY_ID for name, _ in self.context)

    def derive(self, event: E, source: str) -> "Message[E]":
        """What follows from this message: time and context are the same, the id is however often it follows."""
        name = f"{type(event).__name__}/{event.key}/{self.id}"
        return Message(event, uuid_of(_EVENT_NAMESPACE, name), self.time, source, self.context)


def has_event(message: Message[Event], kind: type[E]) -> TypeGuard[Message[E]]:
    """Whether the event of a message is one of that type."""
    return isinstance(message.event, kind)


def of_replay(headers: Headers, context: Headers) -> Headers:
    """Headers of what is sent once more because of a message with that context: they name its replay, or their own."""
    if any(name == REPLAY_ID for name, _ in headers):
        return headers
    return (*headers, *(one for one in context if one[0] == REPLAY_ID))


def as_erasure(message: Message[E], timestamp: int) -> Message[E]:
    """The message of somebody who leaves, with the time up to which decisions about them end.

    `timestamp` is that of its record. One that is replayed ends nothing that was decided since it came first; what was
    a dead letter comes for the first time when it is sent again.
    """
    if message.is_replayed and (REPLAY_ID, REDRIVE) not in message.context:
        return message
    return replace(message, time=not_before_arrival(message.time, timestamp))


def ages_of(messages: Iterable[Message[Event]], kind: type[Event]) -> list[float]:
    """Seconds since the time of each that carries such an event, and was not replayed: those have old times."""
    now = time.time()
    return [
        now - message.time.timestamp()
        for message in messages
        if type(message.event) is kind and not (message.context and message.is_replayed)
    ]


def announce(event: E, source: str, time: datetime | None = None) -> Message[E]:
    """A message about something that happened outside: a random id, and now unless a time is given."""
    return Message(event, id=str(uuid.uuid4()), time=time or datetime.now(UTC), source=source)


def encode(message: Message[Event]) -> Record:
    """The record of a message, on the topic that the topic table gives its type."""
    event = message.event
    topic = topic_of(type(event))
    headers: Headers = (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", type(event).__name__.encode()),
        ("ce_id", message.id.encode()),
        ("ce_source", message.source.encode()),
        ("ce_time", _written(message.time)),
        *message.context,
    )
    value: bytes | None
    if event.NULL_HEADERS:
        headers = (*headers, *((name, text.encode()) for name, text in event.null_headers().items()))
        value = None
    else:
        headers = (*headers, ("content-type", _CONTENT_TYPE))
        value = event.model_dump_json(exclude_none=True).encode()
    return Record(
        topic=topic.name,
        key=event.key.encode(),
        value=value,
        headers=headers,
        partition_by=event.collection if topic.partitioned_by_collection else None,
    )


@overload
def decode(record: Readable) -> Message[Event]: ...
@overload
def decode(record: Readable, topic: Topic[E]) -> Message[E]: ...
def decode(record: Readable, topic: Topic[Event] | None = None) -> Message[Event]:
    """The message in a record. With `topic`, its event has the type that the topic carries.

    Its time is ce_time, or when Kafka had the record where that is earlier: see `schemas.clocks`. Raises
    UnreadableError, with what is wrong and no value of the record, and ValueError where the record is not of that
    topic.
    """
    attributes = _attributes(record.headers)
    event = _event_in(record, attributes, topic or topic_named(record.topic))
    if record.key != event.key.encode():
        raise _wrong_key(event)
    return Message(
        event,
        id=attributes["ce_id"],
        time=_time_of(record, attributes),
        source=attributes["ce_source"],
        context=tuple(
            (name, attributes[name].encode())
            for name in _CARRIED_ON
            if 0 < len(attributes.get(name, "")) <= _CARRIED_LENGTH
        ),
    )


def key_of(record: Readable) -> bytes:
    """The key that follows from the event in a record, whatever its own is. Raises UnreadableError."""
    return _event_in(record, _attributes(record.headers), topic_named(record.topic)).key.encode()


def decode_as_sent(record: Readable) -> EncodingAsSent | EncodingErased:
    """The event in a record of `encodings`, refused where `decode` refuses it; of an EncodingComputed what was sent.

    Half the work of `decode`, to read millions; `embeddings_of` does the rest for many at once. Raises UnreadableError.
    """
    if record.topic != ENCODINGS.name:
        raise UnreadableError(f"{record.topic} does not carry encodings")
    attributes = _attributes(record.headers)
    _check_size(record)
    if attributes["ce_type"] == EncodingComputed.__name__ and record.value is not None:
        _time(attributes["ce_time"])
        try:
            encoding: EncodingAsSent = _encoding_as_sent(record.value)
        except ValidationError as error:
            raise UnreadableError(_explain(EncodingComputed, error)) from None
        if record.key == individual_key(encoding.collection, encoding.individual_id).encode():
            return encoding
    event = decode(record, ENCODINGS).event
    if isinstance(event, EncodingErased):
        return event
    raise _wrong_key(event)


def _event_in(record: Readable, attributes: Mapping[str, str], topic: Topic[E]) -> E:
    if record.topic != topic.name:
        raise ValueError(f"a record of {record.topic} is none of {topic.name}")
    _check_size(record)
    event_type = next((one for one in topic.carries if one.__name__ == attributes["ce_type"]), None)
    if event_type is None:
        if attributes["ce_type"] not in EVENT_TYPES:
            raise UnreadableError(f"ce_type {_quoted(attributes['ce_type'])} is not an event of facematch")
        raise UnreadableError(f"{record.topic} does not carry {attributes['ce_type']}")
    try:
        if event_type.NULL_HEADERS:
            return _decode_null(event_type, record, attributes)
        if record.value is None:
            raise UnreadableError(f"{event_type.__name__} has no value")
        return event_type.model_validate_json(record.value)
    except ValidationError as error:
        raise UnreadableError(_explain(event_type, error)) from None


def _attributes(headers: Headers) -> Mapping[str, str]:
    required = ("ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion")
    found: dict[str, str] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value or b"")
        try:
            found[name] = value.decode() if value is not None else ""
        except UnicodeDecodeError:
            if name in required:
                raise UnreadableError(f"header {name} is not UTF-8") from None
    if UNREADABLE in found:
        raise UnreadableError(_why_unreadable(found[UNREADABLE]))
    if size > MOST_HEADER_BYTES:
        raise UnreadableError(f"its headers have {size} bytes, more than {MOST_HEADER_BYTES}")
    missing = [name for name in required if not found.get(name)]
    if missing:
        raise UnreadableError(f"no CloudEvents envelope: header {', '.join(missing)} missing")
    for name, most in LONGEST.items():
        if len(found[name]) > most:
            raise UnreadableError(f"{name} has {len(found[name])} characters, more than {most}")
    if "\x00" in found["ce_id"]:
        raise UnreadableError("ce_id holds a NUL, which Postgres does not store")
    if found["ce_specversion"] != SPEC_VERSION:
        raise UnreadableError(f"ce_specversion is {_quoted(found['ce_specversion'])}, not {SPEC_VERSION!r}")
    return found


def _check_size(record: Readable) -> None:
    if record.value is not None and len(record.value) > MOST_VALUE_BYTES:
        raise UnreadableError(f"its value has {len(record.value)} bytes, more than {MOST_VALUE_BYTES}")


def _why_unreadable(why: str) -> str:
    """In words; a sender may have sent such a header too."""
    if why.encode() == UNREADABLE_NAMES:
        return "the name of a header is not UTF-8: no header can be read"
    if why.encode() == SET_ASIDE:
        return "it was set aside, and has a letter: whoever read it died of it, or an operator skipped it"
    size = re.fullmatch(rf"{UNREADABLE_BATCH.decode()}:([0-9]{{1,12}})", why)
    of = f" of {size[1]} bytes" if size else ""
    return f"the compressed batch{of} that it came in cannot be unpacked: nothing of it is known but its place"


def _decode_null(event_type: type[E], record: Readable, attributes: Mapping[str, str]) -> E:
    if record.value is not None:
        raise UnreadableError(f"{event_type.__name__} has a null value; this one has content")
    try:
        return event_type.from_null((record.key or b"").decode(), attributes)
    except ValidationError:
        raise
    except (KeyError, ValueError):
        raise UnreadableError(f"{event_type.__name__} needs {event_type.NULL_NEEDS}") from None


@lru_cache(maxsize=1024)  # all that follows from a message carries its time
def _written(time: datetime) -> bytes:
    return time.astimezone(UTC).isoformat().encode()


def _time_of(record: Readable, attributes: Mapping[str, str]) -> datetime:
    time = _time(attributes["ce_time"])
    if isinstance(record, StoredRecord) and record.topic in _CLOCKS_OF_OTHERS:
        return at_the_latest_on_arrival(time, record.timestamp)
    return time


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableError("ce_time is not an RFC 3339 time") from None
    if time.tzinfo is None:
        raise UnreadableError("ce_time has no time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise UnreadableError("ce_time is not within the years 1 to 9999 in UTC") from None


def _explain(event_type: type[Event], error: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part)[:_QUOTED_LENGTH] for part in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = [f"and {len(problems) - _PROBLEMS} more"] if len(problems) > _PROBLEMS else []
    return f"not a valid {event_type.__name__}: " + "; ".join(problems[:_PROBLEMS] + more)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _QUOTED_LENGTH else f"{text[:_QUOTED_LENGTH]}…")


def _wrong_key(event: Event) -> UnreadableError:
    return UnreadableError(f"the key of a {type(event).__name__} is {event.key_rule}; this one differs")


def kafka_time(milliseconds: int | None) -> datetime:
    """Kafka's timestamp of a record as a time in UTC.

    Brokers accept timestamps of years that no datetime has: those become the nearest within 1970 to 9999.
    """
    return datetime.fromtimestamp(readable_timestamp(milliseconds or 0) / 1000, UTC)


def readable_timestamp(milliseconds: int) -> int:
    """The nearest timestamp (milliseconds since 1970) that can be read as a time: see `kafka_time`."""
    return min(max(milliseconds, _EARLIEST_MS), _LATEST_MS)


def full_name(name: str, namespace: str) -> str:
    """A topic's name (or a consumer group's) on the broker: the namespace, a dot, its own name."""
    return f"{namespace}.{name}"
