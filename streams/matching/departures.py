"""Revisions that stopped counting → what becomes of the pairs that they were in. Pure.

Of a pair whose one member is updated or erased, either the next revision is as near, and the pair is found again at it,
or the pair is retracted. What comes of a batch of the log is what would come of its records one by one: a revision that
stood for no longer than a part of the batch had pairs too, if the batch was cut otherwise the time before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import Message, Source
from schemas.events.base import Event, Member
from schemas.events.encodings import EncodingComputed, EncodingEvent
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, RetractionReason, in_order
from streams.gallery.collection import Latest
from streams.gallery.delta import Delta
from streams.gallery.exact import exact_distances, half_norms, nearest_of_each, search_block
from streams.gallery.gallery import Gallery
from streams.gallery.scope import Scope
from streams.gallery.segment import Segment

# The nearest of one that left. More it had only in a crowd, of whom few pairs were published; compaction knows which.
_FINDINGS_LIMITS = 10

EncodingAt = Callable[[int], EncodingComputed | None]


class Departed(NamedTuple):
    """A revision that stopped counting: where it stood, and what ended it, at which offset of the log."""

    before: Latest
    message: Message[EncodingEvent]
    end: int


class _Past(NamedTuple):
    """A revision that stopped counting, with its vector."""

    member: Member
    vector: NDArray[np.float32]
    begin: int
    message: Message[EncodingEvent]
    end: int


class _Pair(NamedTuple):
    """A pair that `past` was in when it ended: with whom, who stood there at that moment, and since when."""

    past: _Past
    other: Member
    vector: NDArray[np.float32]
    distance: float
    offset: int


def events_of_departed(
    gallery: Gallery,
    departed: Sequence[Departed],
    threshold_for: Callable[[str], float],
    limit: int,
    encoding_at: EncodingAt,
    now: datetime,
) -> list[Message[Event]]:
    """What is to be said of the pairs of those who left in a batch that the gallery has applied, in the log's order.

    `encoding_at` reads a record of the log: that of someone whose vector another shard keeps. A retraction is of `now`,
    so that it counts as later than what was found, whenever those people were registered.
    """
    said = []
    for (collection, encoder), pasts in _by_scope(departed, encoding_at).items():
        threshold = threshold_for(collection)
        scope = gallery.collections[collection].scopes.get(encoder, Scope())
        pairs = [
            *_with_living(scope, pasts, threshold, limit * _FINDINGS_LIMITS),
            *_with_each_other(pasts, threshold, gallery.owns),
        ]
        pairs.sort(key=lambda pair: (pair.past.end, pair.distance, pair.offset))
        distances = _distances_after(pairs, encoder)
        said += [
            _said_of(pair, after, collection, encoder, threshold, now)
            for pair, after in zip(pairs, distances, strict=True)
        ]
    return said


def _by_scope(departed: Iterable[Departed], encoding_at: EncodingAt) -> dict[tuple[str, str], list[_Past]]:
    """Those who left, by collection and encoder."""
    by_place: dict[int, list[Departed]] = {}
    for one in departed:
        by_place.setdefault(id(one.before.place), []).append(one)
    pasts: dict[tuple[str, str], list[_Past]] = {}
    for some in by_place.values():
        for one, (encoder, vector) in zip(some, _vectors_of(some, encoding_at), strict=True):
            event = one.message.event
            if vector is not None:
                member = Member(individual_id=event.individual_id, revision=one.before.revision)
                past = _Past(member, vector, one.before.offset, one.message, one.end)
                pasts.setdefault((event.collection, encoder), []).append(past)
    return pasts


def _vectors_of(departed: Sequence[Departed], encoding_at: EncodingAt) -> list[tuple[str, NDArray[np.float32] | None]]:
    """Of those who left the same place the encoder and the vector, None where Kafka has compacted it away."""
    place = departed[0].before.place
    if place is not None:
        vectors = place.vectors_of(np.array([one.before.row for one in departed]))
        return [(one.before.encoder, vector) for one, vector in zip(departed, vectors, strict=True)]
    encodings = [encoding_at(one.before.offset) for one in departed]
    return [("", None) if one is None else (one.encoder, one.embedding) for one in encodings]


def _with_living(scope: Scope, pasts: Sequence[_Past], threshold: float, most: int) -> Iterator[_Pair]:
    """Pairs with those who stood there before it ended, and still do."""
    probes = np.stack([past.vector for past in pasts])
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


def _with_each_other(pasts: Sequence[_Past], threshold: float, owns: Callable[[str], bool]) -> Iterator[_Pair]:
    """Pairs of two who left one after the other; of several shards the one says so that has the second."""
    vectors = np.stack([past.vector for past in pasts])
    hits = search_block(vectors, vectors, half_norms(vectors), threshold)
    for at, row, distance in zip(hits.probes.tolist(), hits.rows.tolist(), hits.distances.tolist(), strict=True):
        past, other = pasts[at], pasts[row]
        if other.begin < past.end < other.end and owns(other.member.individual_id):
            yield _Pair(past, other.member, other.vector, distance, other.begin)


def _distances_after(pairs: Sequence[_Pair], encoder: str) -> list[float]:
    """How far apart they are from then on: infinitely where an erasure or another encoder ended it."""
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


def _said_of(
    pair: _Pair, after: float, collection: str, encoder: str, threshold: float, now: datetime
) -> Message[Event]:
    past, message = pair.past, pair.past.message
    event = message.event
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
    return replace(derived, time=max(derived.time, now))


def without_repetitions(messages: Iterable[Message[Event]]) -> list[Message[Event]]:
    """One message of each id: a newcomer may find individuals again that it was a pair with before."""
    return list({message.id: message for message in messages}.values())
