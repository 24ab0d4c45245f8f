"""Revisions that stopped counting → what becomes of their pairs. Pure.

When a member of a pair is updated or erased, the pair is found again at the next revision if that is near enough, else
it is retracted. A batch has the same result as its records one by one: a revision that counted for only a part of this
batch may have been found in pairs before, if the batch was cut differently then.

Of two statements on a pair of revisions the later counts, by its time. The first is a finding; it has the time of the
registration that it follows from, so that it can be repeated to the byte. Every statement after it must be later,
whatever the times of registrations: it has the time at which its record is matched (`TimeAt`). These are retractions,
and findings of an embedding that took the place of another one of its revision (`keys_replaced`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import Message, Source
from schemas.events.base import Event, Member, individual_key
from schemas.events.encodings import EncodingComputed, EncodingEvent
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, RetractionReason, in_order
from schemas.thresholds import ThresholdFor
from streams.gallery.collection import Latest
from streams.gallery.delta import Delta
from streams.gallery.exact import exact_distances, half_norms, nearest_of_each, search_block
from streams.gallery.gallery import Gallery
from streams.gallery.scope import Scope
from streams.gallery.segment import Segment

# Times the limit of findings: how many pairs of a departed revision are considered. It had more only in a crowd, where
# few of them were published; compaction corrects those.
_FINDINGS_LIMITS = 10

EncodingAt = Callable[[int], EncodingComputed | None]
TimeAt = Callable[[int], datetime]  # the time at which the record at an offset of the log is matched, ascending with it


class Departed(NamedTuple):
    """A revision that stopped counting: its record, and the message at offset `end` that ended it.

    `living`: how many of the collection were living then.
    """

    before: Latest
    message: Message[EncodingEvent]
    end: int
    living: int


class _Past(NamedTuple):
    """A revision that counted from offset `begin` to `end`, with its vector, and the message that ended it.

    `threshold`: the one that was in force when it ended.
    """

    member: Member
    vector: NDArray[np.float32]
    begin: int
    message: Message[EncodingEvent]
    end: int
    threshold: float


class _Pair(NamedTuple):
    """A pair that `past` was in when it ended: the other member with its vector, its distance, its offset."""

    past: _Past
    other: Member
    vector: NDArray[np.float32]
    distance: float
    offset: int


def events_of_departed(
    gallery: Gallery,
    departed: Sequence[Departed],
    threshold_for: ThresholdFor,
    limit: int,
    encoding_at: EncodingAt,
    time_at: TimeAt,
) -> list[Message[Event]]:
    """For every pair of a revision that stopped counting: DuplicateFound at the next revision, or DuplicateRetracted.

    `departed` are the revisions that ended in a batch that the gallery has applied, in the order of the log. The vector
    of one that another shard keeps is read by `encoding_at`. Pairs beyond the threshold of now, which was wider when
    they were found, are compaction's.
    """
    events: list[Message[Event]] = []
    replaced = keys_replaced(departed, encoding_at)
    for (collection, encoder), pasts in _by_scope(departed, threshold_for, encoding_at).items():
        scope = gallery.collections[collection].scopes.get(encoder) or Scope.of_dimensions(len(pasts[0].vector))
        pairs = [
            pair
            for pair in (
                *_with_living(scope, pasts, limit * _FINDINGS_LIMITS),
                *_with_each_other(pasts, gallery.owns),
            )
            if pair.distance <= pair.past.threshold
        ]
        pairs.sort(key=lambda pair: (pair.past.end, pair.distance, pair.offset))
        distances = _distances_after(pairs, encoder)
        events += [
            dated(_event_of(pair, after, collection, encoder, time), time, replaced)
            for pair, after in zip(pairs, distances, strict=True)
            for time in [time_at(pair.past.end)]
        ]
    return events


def keys_replaced(departed: Iterable[Departed], encoding_at: EncodingAt) -> set[str]:
    """The keys of individuals whose embedding was replaced by another one, or another encoder's, of its revision.

    The same embedding again is no replacement: nothing was retracted. One that Kafka has compacted away may have been.
    """
    replaced = set()
    for one in departed:
        event = one.message.event
        if isinstance(event, EncodingComputed) and one.before.revision == event.revision:
            ((encoder, vector),) = _vectors_of([one], encoding_at)
            if vector is None or encoder != event.encoder or not np.array_equal(vector, event.embedding):
                replaced.add(event.key)
    return replaced


def dated(message: Message[Event], time: datetime, replaced: Set[str]) -> Message[Event]:
    """A finding of the record that is matched at `time`: later than what may have been retracted before it.

    Of one member the embedding may have been replaced earlier in the same batch, and that of the other come again.
    """
    event = message.event
    if isinstance(event, DuplicateFound) and not replaced.isdisjoint(
        individual_key(event.collection, member.individual_id) for member in (event.a, event.b)
    ):
        return replace(message, time=max(message.time, time))
    return message


def _by_scope(
    departed: Iterable[Departed], threshold_for: ThresholdFor, encoding_at: EncodingAt
) -> dict[tuple[str, str], list[_Past]]:
    """The departed revisions by collection and encoder, with their vectors; without those that no threshold is for."""
    by_place: dict[int, list[Departed]] = {}
    for one in departed:
        by_place.setdefault(id(one.before.place), []).append(one)
    pasts: dict[tuple[str, str], list[_Past]] = {}
    for some in by_place.values():
        for one, (encoder, vector) in zip(some, _vectors_of(some, encoding_at), strict=True):
            event = one.message.event
            threshold = threshold_for(event.collection, encoder, one.living)
            if vector is not None and threshold is not None:
                member = Member(individual_id=event.individual_id, revision=one.before.revision)
                past = _Past(member, vector, one.before.offset, one.message, one.end, threshold)
                pasts.setdefault((event.collection, encoder), []).append(past)
    return pasts


def _vectors_of(departed: Sequence[Departed], encoding_at: EncodingAt) -> list[tuple[str, NDArray[np.float32] | None]]:
    """The encoder and the vector of revisions from the same place; None where Kafka has compacted it away."""
    place = departed[0].before.place
    if place is not None:
        vectors = place.vectors_of(np.array([one.before.row for one in departed]))
        return [(one.before.encoder, vector) for one, vector in zip(departed, vectors, strict=True)]
    encodings = [encoding_at(one.before.offset) for one in departed]
    return [("", None) if one is None else (one.encoder, one.embedding) for one in encodings]


def _with_living(scope: Scope, pasts: Sequence[_Past], most: int) -> Iterator[_Pair]:
    """Pairs with individuals that were there before the revision ended, and still are."""
    probes = np.stack([past.vector for past in pasts])
    threshold = max(past.threshold for past in pasts)
    ends = np.array([past.end for past in pasts], dtype=np.int64)
    places: list[Delta | Segment] = [scope.delta, *scope.segments]
    for place in places:
        hits = place.search(probes, ends, threshold)
        kept = nearest_of_each(hits.probes, hits.distances, place.offsets_of(hits.rows), most)
        rows = hits.rows[kept]
        if len(rows):
            found = zip(
                hits.probes[kept].tolist(),
                place.members(rows),
                place.vectors_of(rows),
                hits.distances[kept].tolist(),
                place.offsets_of(rows).tolist(),
                strict=True,
            )
            for probe, member, vector, distance, offset in found:
                yield _Pair(pasts[probe], member, vector, distance, offset)


def _with_each_other(pasts: Sequence[_Past], owns: Callable[[str], bool]) -> Iterator[_Pair]:
    """Pairs of two departed revisions. Of several shards, the one that owns the second of them publishes."""
    vectors = np.stack([past.vector for past in pasts])
    hits = search_block(vectors, vectors, half_norms(vectors), max(past.threshold for past in pasts))
    for at, row, distance in zip(hits.probes.tolist(), hits.rows.tolist(), hits.distances.tolist(), strict=True):
        past, other = pasts[at], pasts[row]
        if other.begin < past.end < other.end and owns(other.member.individual_id):
            yield _Pair(past, other.member, other.vector, distance, other.begin)


def _distances_after(pairs: Sequence[_Pair], encoder: str) -> list[float]:
    """The distances at the next revision: infinite where an erasure or another encoder ended the pair."""
    distances = np.full(len(pairs), np.inf)
    later = [
        (place, event.embedding, pair.vector)
        for place, pair in enumerate(pairs)
        if isinstance(event := pair.past.message.event, EncodingComputed) and event.encoder == encoder
    ]
    if later:
        places, embeddings, others = zip(*later, strict=True)
        distances[list(places)] = exact_distances(np.stack(embeddings), np.stack(others))
    return distances.tolist()


def _event_of(pair: _Pair, after: float, collection: str, encoder: str, time: datetime) -> Message[Event]:
    past, message = pair.past, pair.past.message
    event, threshold = message.event, past.threshold
    if after <= threshold:
        a, b = in_order(Member(individual_id=event.individual_id, revision=event.revision), pair.other)
        found = DuplicateFound(collection=collection, encoder=encoder, a=a, b=b, distance=after, threshold=threshold)
        return message.derive(found, Source.MATCHER)
    a, b = in_order(past.member, pair.other)
    reason = RetractionReason.UPDATED if isinstance(event, EncodingComputed) else RetractionReason.ERASED
    retracted = DuplicateRetracted(
        collection=collection, encoder=encoder, a=a, b=b, reason=reason, distance=pair.distance, threshold=threshold
    )
    derived = message.derive(retracted, Source.MATCHER)
    return replace(derived, time=max(derived.time, time))


def without_repetitions(messages: Iterable[Message[Event]]) -> list[Message[Event]]:
    """The last message of each id: a newcomer may find individuals again that it was a pair with before.

    It stays behind what was stated in between: the last statement on a pair is the one that counts.
    """
    last: dict[str, Message[Event]] = {}
    for message in messages:
        last.pop(message.id, None)
        last[message.id] = message
    return list(last.values())
