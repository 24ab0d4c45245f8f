"""CloudEvents 1.0 in Kafka's binary mode: one encode, one decode.

https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
The attributes travel as headers (`ce_id`, `ce_type`, `ce_source`, `ce_time`, `ce_specversion`), the event
as JSON in the value, so that any language reads them with a plain Kafka client.
"""

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from schemas.events.base import Event, IndividualEvent, individual_key
from schemas.events.certificates import CompactionCertified
from schemas.events.encodings import EncodingAsSent, EncodingComputed, EncodingErased
from schemas.events.pairs import DecisionErased, FindingErased, IndividualChecked, KeyErased
from schemas.events.registrations import IndividualErased
from schemas.identity import uuid_of
from schemas.topics import EVENT_TYPES, topic_named, topic_of

SPEC_VERSION = "1.0"
_NULL_NEEDS: dict[type[Event], str] = {
    EncodingErased: "a key collection/individual and a header revision, a whole number",
    FindingErased: "a key and a header collection",
    DecisionErased: "a key and a header collection",
}
NULL_VALUED = frozenset(_NULL_NEEDS)
_CONTENT_TYPE = b"application/json"
MATCHER_SOURCE = "facematch/matcher"  # of what is said of a newcomer the first time; others say it again
REPLAY_ID = "replay_id"
# Headers that whatever follows from a message carries on: the trace that it belongs to (https://www.w3.org/TR/trace-context)
# and the replay that sent it again.
_CARRIED_ON = ("traceparent", "tracestate", REPLAY_ID)
_CARRIED_LENGTH = 512  # of each: what follows from a message may be many, and no broker takes a header of a megabyte
_NAME_LENGTH = 40  # attributes have names that the sender chose, and may have put the value into
_EVENT_NAMESPACE = uuid.UUID("0b5f6d0a-49d4-5f0c-8d52-0b2c3c5f7e21")
_encoding_as_sent = TypeAdapter(EncodingAsSent).validator.validate_json

E_co = TypeVar("E_co", bound=Event, covariant=True)


Headers = tuple[tuple[str, bytes | None], ...]


class UnreadableError(Exception):
    """A record that cannot be decoded. Its text is safe to log: it holds no value of the record."""


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """A Kafka record, whichever client read it or will write it.

    `topic` is the name in the topic table, without the namespace. `offset` and `timestamp` (milliseconds since
    1970) are known of records that were read. One to be written goes to its `partition`, or to that of the
    collection `partition_by`, or to that of its key. Its repr leaves the value out: it may hold a photo or an
    embedding.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    partition_by: str | None = None

    def __repr__(self) -> str:
        return f"Record({self.topic}[{self.partition}]@{self.offset}, key={self.key!r})"


@dataclass(frozen=True, slots=True)
class Message(Generic[E_co]):
    """An event in its envelope.

    `time` is when the individual was registered or the decision made; whatever is derived from an event
    carries its time on, so that repeated work yields the same bytes. When a record was published is
    Kafka's timestamp. `context` are headers that it carries on as well: `traceparent`, `tracestate`, `replay_id`.
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

    def derive(self, event: Event, source: str) -> "Message[Event]":
        """What follows from this message: time and context are the same, the id is however often it follows."""
        name = f"{type(event).__name__}/{event.key}/{self.id}"
        return Message(event, uuid_of(_EVENT_NAMESPACE, name), self.time, source, self.context)


def of_replay(headers: Headers, context: Headers) -> Headers:
    """Headers of what is sent once more because of a message with that context: they name its replay, or their own."""
    if any(name == REPLAY_ID for name, _ in headers):
        return headers
    return (*headers, *(one for one in context if one[0] == REPLAY_ID))


def ages_of(messages: Iterable[Message[Event]], kind: type[Event]) -> list[float]:
    """Seconds since the time of each that carries such an event, and was not replayed: those have old times."""
    now = time.time()
    return [
        now - message.time.timestamp()
        for message in messages
        if type(message.event) is kind and not (message.context and message.is_replayed)
    ]


def announce(event: Event, source: str, time: datetime | None = None) -> Message[Event]:
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
    if isinstance(event, EncodingErased):
        headers = (*headers, ("revision", str(event.revision).encode()))
        value = None
    elif isinstance(event, KeyErased):
        headers = (*headers, ("collection", event.collection.encode()))
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


def decode(record: Record) -> Message[Event]:
    """The message in a record. Raises UnreadableError, with what is wrong and no value of the record."""
    attributes = _attributes(record.headers)
    event = _event_in(record, attributes)
    if record.key != event.key.encode():
        raise UnreadableError(f"the key of a {type(event).__name__} is {_key_rule(event)}; this one differs")
    return Message(
        event,
        id=attributes["ce_id"],
        time=_time(attributes["ce_time"]),
        source=attributes["ce_source"],
        context=tuple(
            (name, attributes[name].encode())
            for name in _CARRIED_ON
            if 0 < len(attributes.get(name, "")) <= _CARRIED_LENGTH
        ),
    )


def key_of(record: Record) -> bytes:
    """The key that follows from the event in a record, whatever its own is. Raises UnreadableError."""
    return _event_in(record, _attributes(record.headers)).key.encode()


def decode_as_sent(record: Record) -> EncodingAsSent | Event:
    """The event in a record, refused where `decode` refuses it, but of an EncodingComputed what was sent.

    Half the work, for whoever reads millions; `embeddings_of` does the rest for many at once.
    """
    attributes = _attributes(record.headers)
    is_encoding = attributes["ce_type"] == EncodingComputed.__name__
    if is_encoding and record.value is not None and EncodingComputed in topic_named(record.topic).carries:
        _time(attributes["ce_time"])
        try:
            encoding: EncodingAsSent = _encoding_as_sent(record.value)
        except ValidationError as error:
            raise UnreadableError(_explain(EncodingComputed, error)) from None
        if record.key == individual_key(encoding.collection, encoding.individual_id).encode():
            return encoding
    return decode(record).event


def _event_in(record: Record, attributes: Mapping[str, str]) -> Event:
    event_type = EVENT_TYPES.get(attributes["ce_type"])
    if event_type is None:
        raise UnreadableError(f"ce_type {attributes['ce_type']!r} is not an event of facematch")
    if event_type not in topic_named(record.topic).carries:
        raise UnreadableError(f"{record.topic} does not carry {event_type.__name__}")
    try:
        if event_type in NULL_VALUED:
            return _decode_null(event_type, record, attributes)
        if record.value is None:
            raise UnreadableError(f"{event_type.__name__} has no value")
        return event_type.model_validate_json(record.value)
    except ValidationError as error:
        raise UnreadableError(_explain(event_type, error)) from None


def _attributes(headers: Headers) -> Mapping[str, str]:
    required = ("ce_id", "ce_type", "ce_source", "ce_time", "ce_specversion")
    found: dict[str, str] = {}
    for name, value in headers:
        try:
            found[name] = value.decode() if value is not None else ""
        except UnicodeDecodeError:
            if name in required:
                raise UnreadableError(f"header {name} is not UTF-8") from None
    missing = [name for name in required if not found.get(name)]
    if missing:
        raise UnreadableError(f"no CloudEvents envelope: header {', '.join(missing)} missing")
    if "\x00" in found["ce_id"]:
        raise UnreadableError("ce_id holds a NUL, which Postgres does not store")
    if found["ce_specversion"] != SPEC_VERSION:
        raise UnreadableError(f"ce_specversion is {found['ce_specversion']!r}, not {SPEC_VERSION!r}")
    return found


def _decode_null(event_type: type[Event], record: Record, attributes: Mapping[str, str]) -> Event:
    if record.value is not None:
        raise UnreadableError(f"{event_type.__name__} has a null value; this one has content")
    try:
        key = (record.key or b"").decode()
        if issubclass(event_type, KeyErased):
            return event_type(collection=attributes["collection"], erased_key=key)
        collection, _, individual_id = key.partition("/")
        revision = int(attributes["revision"])
    except (UnicodeDecodeError, KeyError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise
        raise UnreadableError(f"{event_type.__name__} needs {_NULL_NEEDS[event_type]}") from None
    return EncodingErased(collection=collection, individual_id=individual_id, revision=revision)


@lru_cache(maxsize=1024)  # all that follows from a message carries its time
def _written(time: datetime) -> bytes:
    return time.astimezone(UTC).isoformat().encode()


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
    problems = (
        f"{'.'.join(str(part)[:_NAME_LENGTH] for part in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
    return f"not a valid {event_type.__name__}: " + "; ".join(problems)


def _key_rule(event: Event) -> str:
    if isinstance(event, IndividualChecked) and event.shards > 1:
        return "@shard/shards/collection/individual_id"
    if isinstance(event, CompactionCertified):
        return "the certificate's id"
    if isinstance(event, IndividualErased):
        return "its digest"
    return "collection/individual_id" if isinstance(event, IndividualEvent) else "the pair id"


def full_name(name: str, namespace: str) -> str:
    """A topic's name (or a consumer group's) on the broker: the namespace, a dot, its own name."""
    return f"{namespace}.{name}"
