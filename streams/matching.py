"""Records of `encodings` → the records that follow: findings, checks, corrections, dead letters. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from schemas.envelope import Message, Record, UnreadableError, dead_letter, decode, encode
from schemas.events import DuplicateFound, EncodingComputed, EncodingErased, Event, IndividualChecked, Member
from streams.gallery import Applied, Candidate, Gallery

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
        _apply(gallery, message.event, record)


def match(gallery: Gallery, records: Sequence[Record], threshold_for: ThresholdFor) -> Consequences:
    """Apply a batch of one partition, in the order of the log, and compare its newcomers.

    Everyone is compared with all that came before, the earlier ones of the batch included. A newcomer that the
    batch itself updates or erases is not compared: what takes its place is.
    """
    consequences = Consequences()
    newcomers: dict[str, Message[Event]] = {}
    for record in records:
        try:
            message = decode(record)
        except UnreadableError as error:
            consequences.publish.append(dead_letter(record, error, SOURCE))
            continue
        applied = _apply(gallery, message.event, record)
        if applied is Applied.STALE:
            consequences.renew.append(gallery.latest_offset(message.event.key))
        elif applied is not Applied.PAST:
            newcomers[message.event.key] = message
    living = [message for message in newcomers.values() if isinstance(message.event, EncodingComputed)]
    living.sort(key=lambda message: message.event.collection)
    for collection, group in groupby(living, key=lambda message: message.event.collection):
        messages = list(group)
        threshold = threshold_for(collection)
        encodings = [message.event for message in messages if isinstance(message.event, EncodingComputed)]
        for message, candidates in zip(messages, gallery.candidates(encodings, threshold), strict=True):
            consequences.publish += _findings(message, candidates, threshold)
    return consequences


def _apply(gallery: Gallery, event: Event, record: Record) -> Applied:
    assert isinstance(event, EncodingComputed | EncodingErased)
    assert record.offset is not None
    return gallery.apply(event, record.offset)


def _findings(message: Message[Event], candidates: list[Candidate], threshold: float) -> list[Record]:
    event = message.event
    assert isinstance(event, EncodingComputed)
    newcomer = Member(individual_id=event.individual_id, revision=event.revision)
    found: list[Event] = []
    for candidate in candidates:
        a, b = sorted((newcomer, candidate.member), key=lambda member: member.individual_id)
        found.append(
            DuplicateFound(
                collection=event.collection,
                encoder=event.encoder,
                a=a,
                b=b,
                distance=candidate.distance,
                threshold=threshold,
            )
        )
    found.append(
        IndividualChecked(
            collection=event.collection,
            individual_id=event.individual_id,
            revision=event.revision,
            encoder=event.encoder,
            duplicates=len(candidates),
        )
    )
    return [encode(message.derive(event, SOURCE)) for event in found]
