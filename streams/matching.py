"""Records of `encodings` → the records that follow: findings, checks, corrections, dead letters. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from schemas.envelope import Message, Record, UnreadableError, dead_letter, decode, encode
from schemas.events import DuplicateFound, EncodingComputed, EncodingErased, Event, IndividualChecked, Member
from schemas.shard import Shard
from streams.gallery import Applied, Gallery, Newcomer
from streams.scope import Found

SOURCE = "facematch/matcher"
ThresholdFor = Callable[[str], float]


@dataclass(slots=True)
class Consequences:
    """What follows from a batch: `publish`, and the offsets whose records must be published again (`renew`)."""

    publish: list[Record] = field(default_factory=list)
    renew: list[int] = field(default_factory=list)


def restore(gallery: Gallery, records: Sequence[Record]) -> None:
    """Apply records that were matched before."""
    for record in records:
        try:
            message = decode(record)
        except UnreadableError:
            continue  # a dead letter already
        assert isinstance(message.event, EncodingComputed | EncodingErased)
        assert record.offset is not None
        gallery.apply(message.event, record.offset)


def match(gallery: Gallery, records: Sequence[Record], threshold_for: ThresholdFor, limit: int) -> Consequences:
    """Apply a batch of one partition, in the order of the log, and compare its newcomers.

    Of each the nearest `limit` findings are published, and how many there are.

    Everyone is compared with all that came before, the earlier ones of the batch included. A newcomer that the
    batch itself updates or erases is not compared: what takes its place is.
    """
    consequences = Consequences()
    newcomers: dict[str, tuple[Message[Event], Newcomer]] = {}
    for record in records:
        try:
            message = decode(record)
        except UnreadableError as error:
            if gallery.shard.number == 1:  # all shards read it, one says so
                consequences.publish.append(dead_letter(record, error, SOURCE))
            continue
        event, offset = message.event, record.offset
        assert isinstance(event, EncodingComputed | EncodingErased)
        assert offset is not None
        applied = gallery.apply(event, offset)
        if applied is Applied.STALE:
            if gallery.owns(event.individual_id):
                consequences.renew.append(gallery.latest_offset(event))
        elif applied is not Applied.PAST:
            newcomers.pop(event.key, None)
            if isinstance(event, EncodingComputed):
                newcomers[event.key] = message, Newcomer(event, offset)
    living = sorted(newcomers.values(), key=_collection_of)
    for collection, group in groupby(living, key=_collection_of):
        messages, encodings = zip(*group, strict=True)
        threshold = threshold_for(collection)
        for message, found in zip(messages, gallery.candidates(encodings, threshold, limit), strict=True):
            consequences.publish += _findings(message, found, threshold, gallery.shard)
    return consequences


def _collection_of(newcomer: tuple[Message[Event], Newcomer]) -> str:
    return newcomer[1].encoding.collection


def _findings(message: Message[Event], found: Found, threshold: float, shard: Shard) -> list[Record]:
    event = message.event
    assert isinstance(event, EncodingComputed)
    newcomer = Member(individual_id=event.individual_id, revision=event.revision)
    events: list[Event] = []
    for candidate in found.nearest:
        a, b = sorted((newcomer, candidate.member), key=lambda member: member.individual_id)
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
    return [encode(message.derive(event, SOURCE)) for event in events]
