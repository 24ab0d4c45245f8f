"""The state of one partition of `encodings`: the latest revision of each individual. A fold over the log.

Pure: its content follows from the records applied, in the order of their offsets, and from nothing else. Whether a
vector is in the delta, searched exactly, or sealed does not change what is found.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingEvent, Rank
from schemas.shard import Shard
from streams.gallery.collection import Collection, Latest
from streams.gallery.delta import DeltaRows
from streams.gallery.id_table import hash_of
from streams.gallery.scope import CandidateList, Scope

_MOSTLY = 0.5  # of a delta's rows


class Applied(Enum):
    """What applying a record did."""

    NEW = auto()
    """It is now the individual's latest record."""
    AGAIN = auto()
    """It already was the latest: the same record was handed over again."""
    SUPERSEDED = auto()
    """It was the latest once; a later record has replaced it."""
    STALE = auto()
    """It came after a record of a higher revision, which stays the latest."""
    REFUSED = auto()
    """It is of a collection more than the gallery takes."""
    OF_OTHER_DIMENSIONS = auto()
    """Its embedding has another number of dimensions than the others of its encoder and collection."""


class AppliedRecord(NamedTuple):
    """What applying a record did, and the individual's latest record before it, None if it was never seen."""

    applied: Applied
    before: Latest | None


class Newcomer(NamedTuple):
    """An encoding to be compared with everyone before it, and its offset in the log."""

    encoding: EncodingComputed
    offset: int


class Gallery:
    """The individuals of one partition, with the vectors of one shard. Not thread-safe.

    It takes `most_collections` collections, the first ones; those that it has stay.
    """

    def __init__(self, shard: Shard = Shard(), most_collections: int = sys.maxsize) -> None:
        self.shard = shard
        self.collections: dict[str, Collection] = {}
        self._most_collections = most_collections

    @property
    def living(self) -> int:
        """How many individuals have an embedding here."""
        return sum(scope.living for _, _, scope in self.scopes())

    def scopes(self) -> Iterator[tuple[str, str, Scope]]:
        """Every scope, with its collection and encoder."""
        for name, collection in self.collections.items():
            for encoder, scope in collection.scopes.items():
                yield name, encoder, scope

    def owns(self, individual_id: str) -> bool:
        """Whether the individual's vector is kept in this shard."""
        return self.shard.count == 1 or hash_of(individual_id).falls_to(self.shard)

    def takes(self, collection: str) -> bool:
        """Whether it has a collection, or takes one more."""
        return collection in self.collections or len(self.collections) < self._most_collections

    def apply(self, event: EncodingEvent, offset: int) -> AppliedRecord:
        """Apply the record at an offset of the log."""
        if not self.takes(event.collection):
            return AppliedRecord(Applied.REFUSED, None)
        collection = self.collections.setdefault(event.collection, Collection())
        latest = collection.find(event.individual_id)
        if latest is not None:
            if offset <= latest.offset:
                return AppliedRecord(Applied.AGAIN if offset == latest.offset else Applied.SUPERSEDED, latest)
            if Rank(latest.revision, latest.erased) > event.rank:
                return AppliedRecord(Applied.STALE, latest)
        if isinstance(event, EncodingComputed):
            # A shard without any of its vectors has the scope, too: all refuse the same records.
            scope = collection.scope_of(event.encoder, len(event.embedding))
            if scope.dimensions != len(event.embedding):
                return AppliedRecord(Applied.OF_OTHER_DIMENSIONS, latest)
        if latest is not None and latest.place is not None:
            latest.place.remove(latest.row)
        was_living = latest is not None and not latest.erased
        collection.living += isinstance(event, EncodingComputed) - was_living
        if isinstance(event, EncodingComputed) and self.owns(event.individual_id):
            collection.append(event.encoder, event.embedding, event.individual_id, event.revision, offset)
        else:
            collection.note(event.individual_id, event.revision, offset, erased=isinstance(event, EncodingErased))
        return AppliedRecord(Applied.NEW, latest)

    def candidates(self, newcomers: Sequence[Newcomer], threshold: float, limit: int) -> list[CandidateList]:
        """For each newcomer, the living individuals before it in the log within the threshold.

        Newcomers have been applied, are their individuals' latest records, and share one collection and encoder. At
        most `limit` candidates for each, the nearest first.
        """
        first = newcomers[0].encoding
        scope = self.collections[first.collection].scopes.get(first.encoder)
        if scope is None:  # all vectors are in other shards
            return [CandidateList(0, [])] * len(newcomers)
        probes = np.stack([newcomer.encoding.embedding for newcomer in newcomers])
        offsets = np.array([newcomer.offset for newcomer in newcomers], dtype=np.int64)
        return scope.search(probes, offsets, threshold, limit)

    def note_begin(self, event: EncodingEvent, time: datetime) -> None:
        """Kafka had the record of an event at that time: of the first one of a scope it is noted."""
        collection = self.collections.get(event.collection)
        if collection is not None and isinstance(event, EncodingComputed):
            scope = collection.scopes.get(event.encoder)
            if scope is not None and scope.begun_at is None:
                scope.begun_at = time

    # how it is kept: nothing below changes what is found

    def full(self, limit: int) -> tuple[str, str, DeltaRows] | None:
        """A scope whose delta has `limit` rows: collection, encoder, and the rows to seal. None if there is none.

        A delta of which most rows are masked is made smaller instead.
        """
        for name, encoder, scope in self.scopes():
            if len(scope.delta) >= limit:
                if scope.delta.living >= _MOSTLY * limit:
                    return name, encoder, scope.delta.numbered_rows()
                # A few individuals were updated again and again.
                self.collections[name].hold(encoder, scope.delta.living_rows())
        return None

    def compacted_at(self, collection: str, encoder: str) -> datetime | None:
        """When a scope was last compacted, None where it never was."""
        scope = self.collections[collection].scopes.get(encoder) if collection in self.collections else None
        return None if scope is None else scope.compacted_at

    def drop_empty(self) -> bool:
        """Remove segments whose rows are all masked (a retired encoder's, say). Returns whether there was one."""
        before = sum(len(scope.segments) for _, _, scope in self.scopes())
        for _, _, scope in self.scopes():
            scope.segments = [segment for segment in scope.segments if segment.living]
        return sum(len(scope.segments) for _, _, scope in self.scopes()) < before

    def use_threads(self, threads: int) -> None:
        """See `Segment.use_threads`: of all segments that are here now."""
        for _, _, scope in self.scopes():
            for segment in scope.segments:
                segment.use_threads(threads)

    def put_away(self, limit: int) -> None:
        """See `Collection.put_away`."""
        for collection in self.collections.values():
            collection.put_away(limit)
