"""The individuals of one collection, with their latest records: by id while recent, by 16-byte hash once sealed."""

import functools
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from streams.gallery.delta import Delta, DeltaRows
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import IdHash, hash_of, hashes_of
from streams.gallery.scope import Scope
from streams.gallery.segment import Segment
from streams.gallery.without_vector import WithoutVector

_MOSTLY = 0.5  # of a segment's rows: a smaller rest is cheaper to search in the delta
_NOBODY_ABSENT = WithoutVector.of([], [], [], [])


@dataclass(slots=True)
class Latest:
    """An individual's latest record. `encoder`, `place` and `row` say where its vector is, if it is in this shard."""

    revision: int
    offset: int
    erased: bool = False
    encoder: str = ""
    place: Delta | Segment | None = None
    row: int = -1


@dataclass(slots=True)
class Collection:
    """The individuals of one collection.

    Invariant: every individual is in exactly one of `in_delta` (vector not sealed yet), `lately_absent` (no vector
    here), one of the scopes' segments, or `absent` (hashes of those without a vector).

    `living`: how many of them are not erased, those included whose vectors other shards keep.
    """

    in_delta: dict[str, Latest] = field(default_factory=dict)
    lately_absent: dict[str, Latest] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    absent: list[WithoutVector] = field(default_factory=list)
    living: int = 0

    def find(self, individual_id: str) -> Latest | None:
        """The latest record of an individual, None if it was never seen."""
        latest = self.in_delta.get(individual_id) or self.lately_absent.get(individual_id)
        if latest is None and (self.absent or any(scope.segments for scope in self.scopes.values())):
            wanted = hash_of(individual_id)
            latest = self._in_segments(wanted) or self._in_absent(wanted)
        return latest

    def append(self, encoder: str, vector: NDArray[np.float32], individual_id: str, revision: int, offset: int) -> None:
        """Add an individual's latest record, with its vector (d,), to the delta of its encoder."""
        self.lately_absent.pop(individual_id, None)
        delta = self.scope_of(encoder, len(vector)).delta
        row = delta.append(vector, individual_id, revision, offset)
        self.in_delta[individual_id] = Latest(revision, offset, encoder=encoder, place=delta, row=row)

    def scope_of(self, encoder: str, dimensions: int) -> Scope:
        """The scope of an encoder: as it is, or a new one of so many dimensions."""
        scope = self.scopes.get(encoder)
        if scope is None:
            scope = self.scopes[encoder] = Scope.of_dimensions(dimensions)
        return scope

    def note(self, individual_id: str, revision: int, offset: int, erased: bool) -> None:
        """Note an individual's latest record, which has no vector here."""
        self.in_delta.pop(individual_id, None)
        self.lately_absent[individual_id] = Latest(revision, offset, erased)

    def count_living(self) -> None:
        """Set `living` by what is here. `absent` has somebody living only where the vector is another shard's."""
        absent = functools.reduce(lambda earlier, later: later.with_earlier(earlier), self.absent, _NOBODY_ABSENT)
        absent = self.absent_lately().with_earlier(absent)
        here = sum(scope.living for scope in self.scopes.values())
        self.living = here + len(absent) - int(absent.erased.sum())

    def _in_segments(self, wanted: IdHash) -> Latest | None:
        for encoder, scope in self.scopes.items():
            for segment in scope.segments:
                row = segment.id_table.row_of(wanted)
                if row is not None and segment.is_living(row):  # masked ones have a later record elsewhere
                    revision, offset = segment.id_table.revisions[row], segment.id_table.offsets[row]
                    return Latest(int(revision), int(offset), encoder=encoder, place=segment, row=row)
        return None

    def _in_absent(self, wanted: IdHash) -> Latest | None:
        found: Latest | None = None
        for absent in self.absent:
            row = absent.id_table.row_of(wanted)
            if row is not None and (found is None or absent.id_table.offsets[row] > found.offset):
                revision, offset = absent.id_table.revisions[row], absent.id_table.offsets[row]
                found = Latest(int(revision), int(offset), erased=bool(absent.erased[row]))
        return found

    # how they are kept: nothing below changes what is found

    def adopt(self, encoder: str, sealed: DeltaRows, segment: Segment) -> None:
        """Replace the rows of the delta that a segment was built from by the segment."""
        scope = self.scopes[encoder]
        alive = scope.delta.is_living(sealed.numbers)
        scope.delta.drop_through(int(sealed.numbers[-1]))
        segment.remove_ids(sealed.rows.ids[position] for position in np.flatnonzero(~alive))
        for position in np.flatnonzero(alive):
            del self.in_delta[sealed.rows.ids[position]]
        scope.segments.append(segment)

    def adopt_compacted(self, encoder: str, compacted: Segment, made_at: datetime) -> None:
        """Replace the rows of an encoder by a compacted segment. Rows that it does not have stay.

        It may be of any age: a row of it is living if its record is still the individual's latest. A segment of which
        it lacks more than half stays; what it lacks of others goes to the delta. One of other dimensions than the
        encoder's rows is left.
        """
        scope = self.scope_of(encoder, compacted.dimensions)
        if scope.dimensions != compacted.dimensions:
            scope.compacted_at = made_at
            return
        delta = scope.delta.living_rows()
        is_living = np.zeros(len(compacted), dtype=np.bool_)

        def lacking(hashes: NDArray[np.uint64], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
            """Which of these living records `compacted` lacks: (n,) bool. Marks those that it has as living."""
            _, here, there = np.intersect1d(
                compacted.id_table.offsets, offsets, assume_unique=True, return_indices=True
            )
            same = (compacted.id_table.hashes[here] == hashes[there]).all(axis=1)
            is_living[here[same]] = True
            lacks = np.ones(len(offsets), dtype=np.bool_)
            lacks[there[same]] = False
            return lacks

        rest = [delta.chosen(np.flatnonzero(lacking(hashes_of(delta.ids), delta.offsets)))]
        kept = []
        for segment in scope.segments:
            rows = np.flatnonzero(segment.alive)
            lacks = lacking(segment.id_table.hashes[rows], segment.offsets_of(rows))
            if lacks.sum() > _MOSTLY * len(rows):
                segment.remove_rows(rows[~lacks])
                kept.append(segment)
            else:
                rest.append(segment.take(rows[lacks]))
        compacted.remove_rows(np.flatnonzero(~is_living))
        for individual_id in delta.ids:
            del self.in_delta[individual_id]
        scope.segments, scope.compacted_at = [compacted, *kept], made_at
        self.hold(encoder, VectorRows.together(rest))

    def hold(self, encoder: str, rows: VectorRows) -> None:
        """Replace the delta of an encoder by a new one with these rows alone."""
        dimensions = rows.vectors.shape[1]
        self.scope_of(encoder, dimensions).delta = Delta(dimensions)
        records = zip(rows.vectors, rows.ids, rows.revisions.tolist(), rows.offsets.tolist(), strict=True)
        for vector, individual_id, revision, offset in records:
            self.append(encoder, vector, individual_id, revision, offset)

    def put_away(self, limit: int) -> None:
        """Move individuals without a vector to `absent`, 33 bytes each, once there are `limit` of them."""
        if len(self.lately_absent) >= limit:
            self.add_absent(self.absent_lately())
            self.lately_absent.clear()

    def absent_lately(self) -> WithoutVector:
        """The individuals in `lately_absent`."""
        found = self.lately_absent.values()
        return WithoutVector.of(
            list(self.lately_absent),
            [latest.revision for latest in found],
            [latest.offset for latest in found],
            [latest.erased for latest in found],
        )

    def add_absent(self, absent: WithoutVector) -> None:
        """Add records later than those in `absent`, which stays a short list: each is larger than all after it."""
        while self.absent and len(self.absent[-1]) <= 2 * len(absent):
            absent = absent.with_earlier(self.absent.pop())
        self.absent.append(absent)
