"""Records of `encodings` → the records that follow: findings, retractions, checks, tombstones, dead letters. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from schemas.envelope import (
    Headers,
    Message,
    Record,
    Source,
    StoredRecord,
    UnreadableError,
    decode,
    encode,
    is_set_aside,
    kafka_time,
)
from schemas.erased import NOBODY, Erased, Erasure
from schemas.events.base import Event, Member, individual_of
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingEvent
from schemas.events.pairs import DuplicateFound, IndividualChecked, in_order
from schemas.letters import dead_letter
from schemas.shard import Shard
from schemas.thresholds import ThresholdFor, no_threshold
from schemas.topics import ENCODINGS
from streams.gallery.gallery import Applied, Gallery, Newcomer
from streams.gallery.scope import CandidateList
from streams.matching.departures import (
    Departed,
    EncodingAt,
    dated,
    events_of_departed,
    keys_replaced,
    without_repetitions,
)

_WHY_NOT_TAKEN = {
    Applied.REFUSED: UnreadableError(
        "it is of a collection more than a matcher takes in a partition: raise FACEMATCH_MAX_COLLECTIONS, start the "
        "matchers again, and send it again"
    ),
    Applied.OF_OTHER_DIMENSIONS: UnreadableError(
        "its embedding has another number of dimensions than those before it of its encoder and collection: see that "
        "no two encoders have one id, and encode the photo again"
    ),
}


def _nothing_at(_offset: int) -> None:
    return None


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of matching.

    Nobody is compared by an encoder that `threshold_for` has no threshold of: its encodings are dead letters, too. A
    newcomer's nearest `limit` findings are published. Records that `erased` forbids are not applied. `encoding_at`
    reads an encoding of the log by its offset: one shard lacks the vectors of the others. `now` is the time of
    retractions.
    """

    threshold_for: ThresholdFor
    limit: int
    erased: Erased = NOBODY
    encoding_at: EncodingAt = _nothing_at
    now: Callable[[], datetime] = _now


@dataclass(slots=True)
class Consequences:
    """What follows from a batch.

    `publish` are the records to publish, which carry the `messages` about pairs and people, the `tombstones` and the
    dead `letters`. `renew` are the offsets whose records must be published again, behind stale or unreadable ones;
    `replays` has, by these offsets, the headers of the stale records that a replay sent: the renewed records carry them
    on. `read` are the messages of the batch itself.
    """

    publish: list[Record] = field(default_factory=list)
    messages: list[Message[Event]] = field(default_factory=list)
    tombstones: list[Message[Event]] = field(default_factory=list)
    letters: list[Record] = field(default_factory=list)
    renew: list[int] = field(default_factory=list)
    replays: dict[int, Headers] = field(default_factory=dict)
    read: list[Message[Event]] = field(default_factory=list)


class _Comparison(NamedTuple):
    """A newcomer, its record and message, and the threshold that was in force when it came, None if there was none."""

    record: StoredRecord
    message: Message[EncodingEvent]
    newcomer: Newcomer
    threshold: float | None


def restore(gallery: Gallery, records: Sequence[StoredRecord], erased: Erased = NOBODY) -> None:
    """Apply records that were matched before."""
    for record in records:
        try:
            message = decode(record, ENCODINGS)
        except UnreadableError:
            continue  # a dead letter already
        if _erasure_of(message, erased) is None:
            gallery.apply(message.event, record.offset)
            gallery.note_begin(message.event, kafka_time(record.timestamp))


def match(gallery: Gallery, records: Sequence[StoredRecord], rules: Rules) -> Consequences:
    """Apply a batch of one partition, in the order of the log, and compare its newcomers.

    Every newcomer is compared with everyone before it, the earlier ones of the batch included. A newcomer that the
    batch itself updates or erases is not compared: the record that replaces it is. The pairs of individuals that are
    updated or erased are found again or retracted: see `events_of_departed`.
    """
    consequences = Consequences()
    newcomers: dict[str, _Comparison] = {}
    departed: list[Departed] = []
    for record in records:
        try:
            message = decode(record, ENCODINGS)
        except UnreadableError as error:
            consequences.letters += _letter(gallery, record, error)
            consequences.renew += _hidden_by(gallery, record)
            continue
        consequences.read.append(message)
        event, offset = message.event, record.offset
        if (erasure := _erasure_of(message, rules.erased)) is not None:
            if gallery.owns(event.individual_id):
                consequences.tombstones.append(_tombstone(message, erasure))
            continue
        applied, before = gallery.apply(event, offset)
        if applied in _WHY_NOT_TAKEN:
            if isinstance(event, EncodingComputed):
                consequences.letters += _letter(gallery, record, _WHY_NOT_TAKEN[applied])
                consequences.renew += _hidden_by(gallery, record)
            continue
        gallery.note_begin(event, kafka_time(record.timestamp))
        if applied is Applied.STALE:
            if before is not None and gallery.owns(event.individual_id):
                consequences.renew.append(before.offset)
                if message.is_replayed:
                    consequences.replays[before.offset] = message.context
        elif applied is not Applied.SUPERSEDED:
            newcomers.pop(event.key, None)
            living = gallery.collections[event.collection].living
            if isinstance(event, EncodingComputed):
                threshold = rules.threshold_for(event.collection, event.encoder, living)
                newcomers[event.key] = _Comparison(record, message, Newcomer(event, offset), threshold)
            if applied is Applied.NEW and before is not None and not before.erased:
                departed.append(Departed(before, message, offset, living))
    now, first = rules.now(), records[0].offset if records else 0

    def time_at(offset: int) -> datetime:
        return now + timedelta(microseconds=offset - first)

    events = events_of_departed(gallery, departed, rules.threshold_for, rules.limit, rules.encoding_at, time_at)
    replaced = keys_replaced(departed, rules.encoding_at)
    consequences.letters += _letters_without_threshold(gallery, newcomers.values())
    compared = _compared(gallery, newcomers.values(), rules)
    findings = [dated(message, time_at(offset), replaced) for message, offset in compared]
    consequences.messages = without_repetitions(events + findings)
    consequences.publish = [
        *consequences.letters,
        *map(encode, consequences.tombstones),
        *map(encode, consequences.messages),
    ]
    return consequences


def _letter(gallery: Gallery, record: StoredRecord, error: UnreadableError) -> list[Record]:
    """The dead letter of a record, unless it has one. All shards read it, one publishes the letter."""
    if gallery.shard.number != 1 or is_set_aside(record):
        return []
    return [dead_letter(record, error, Source.MATCHER)]


def _letters_without_threshold(gallery: Gallery, newcomers: Iterable[_Comparison]) -> list[Record]:
    """The dead letters of those who cannot be compared."""
    what_then = "start the matchers again, and the next compaction compares whom they could not"
    return [
        letter
        for one in newcomers
        if one.threshold is None
        for error in [UnreadableError(f"{no_threshold(one.newcomer.encoding.encoder)}; {what_then}")]
        for letter in _letter(gallery, one.record, error)
    ]


def _hidden_by(gallery: Gallery, record: StoredRecord) -> list[int]:
    """The offset of the individual's record that an unreadable one under their key follows; none where there is none.

    Kafka's compaction would keep the unreadable one in its place.
    """
    try:
        collection, individual_id = individual_of((record.key or b"").decode())
    except UnicodeDecodeError:
        return []
    known = gallery.collections.get(collection)
    latest = None if known is None or not gallery.owns(individual_id) else known.find(individual_id)
    return [latest.offset] if latest is not None and latest.offset < record.offset else []


def _compared(
    gallery: Gallery,
    newcomers: Iterable[_Comparison],
    rules: Rules,
) -> list[tuple[Message[Event], int]]:
    """The findings and checks of newcomers, with the newcomers' offsets."""
    compared: list[tuple[Message[Event], int]] = []
    with_threshold = (one for one in newcomers if one.threshold is not None)
    for (_, _, threshold), group in groupby(sorted(with_threshold, key=_alike), key=_alike):
        _, messages, encodings, _ = zip(*group, strict=True)
        candidates = gallery.candidates(encodings, threshold, rules.limit)
        for message, one, found in zip(messages, encodings, candidates, strict=True):
            events = _findings(message, one.encoding, found, threshold, gallery.shard)
            compared += [(event, one.offset) for event in events]
    return compared


def _erasure_of(message: Message[EncodingEvent], erased: Erased) -> Erasure | None:
    """The erasure that an encoding comes after, maybe so long ago that the log has no tombstone any more; else None."""
    event = message.event
    if isinstance(event, EncodingErased):
        return None
    erasure = erased.find(event.collection, event.individual_id)
    return erasure if erasure is not None and erasure.covers(message, event.revision) else None


def _tombstone(message: Message[EncodingEvent], erasure: Erasure) -> Message[Event]:
    """The null value that is published behind an encoding of an erased person, so that Kafka's compaction keeps it."""
    event = message.event
    tombstone = EncodingErased(
        collection=event.collection, individual_id=event.individual_id, revision=erasure.revision
    )
    return message.derive(tombstone, Source.MATCHER)


def _alike(one: _Comparison) -> tuple[str, str, float]:
    """What those share that are compared at once."""
    return one.newcomer.encoding.collection, one.newcomer.encoding.encoder, one.threshold or 0.0


def _findings(
    message: Message[EncodingEvent], event: EncodingComputed, found: CandidateList, threshold: float, shard: Shard
) -> list[Message[Event]]:
    newcomer = Member(individual_id=event.individual_id, revision=event.revision)
    events: list[Event] = []
    for candidate in found.nearest:
        a, b = in_order(newcomer, candidate.member)
        events.append(
            DuplicateFound(
                collection=event.collection,
                encoder=event.encoder,
                a=a,
                b=b,
                distance=candidate.distance,
                threshold=threshold,
            )
        )
    events.append(
        IndividualChecked(
            collection=event.collection,
            individual_id=event.individual_id,
            revision=event.revision,
            encoder=event.encoder,
            duplicates=found.total,
            truncated=found.total > len(found.nearest),
            shard=shard.number,
            shards=shard.count,
        )
    )
    return [message.derive(event, Source.MATCHER) for event in events]
