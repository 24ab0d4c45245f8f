"""Who is in a collection, with their latest records, and how they are held: by id at first, in little memory later."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from streams.delta import Delta, Rows
from streams.roster import Absent, IdHash, hash_of
from streams.scope import Scope
from streams.segment import Segment


@dataclass(slots=True)
class Latest:
    """An individual's latest record, and where its vector is, if it is here at all."""

    revision: int
    offset: int
    erased: bool = False
    place: Delta | Segment | None = None
    row: int = -1


@dataclass(slots=True)
class Collection:
    """`latest` has, by id, those who are in a delta or came lately; all others are in segments or in `absent`."""

    latest: dict[str, Latest] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    absent: list[Absent] = field(default_factory=list)

    def find(self, individual_id: str) -> Latest | None:
        """The latest record of an individual, None of one never seen."""
        latest = self.latest.get(individual_id)
        if latest is None and (self.absent or any(scope.segments for scope in self.scopes.values())):
            wanted = hash_of(individual_id)
            latest = self._in_segments(wanted) or self._in_absent(wanted)
        return latest

    def _in_segments(self, wanted: IdHash) -> Latest | None:
        for scope in self.scopes.values():
            for segment in scope.segments:
                row = segment.roster.row_of(wanted)
                if row is not None and segment.is_living(row):  # masked ones have a later record elsewhere
                    revision, offset = segment.roster.revisions[row], segment.roster.offsets[row]
                    return Latest(int(revision), int(offset), place=segment, row=row)
        return None

    def _in_absent(self, wanted: IdHash) -> Latest | None:
        found: Latest | None = None
        for absent in self.absent:
            row = absent.roster.row_of(wanted)
            if row is not None and (found is None or absent.roster.offsets[row] > found.offset):
                revision, offset = absent.roster.revisions[row], absent.roster.offsets[row]
                found = Latest(int(revision), int(offset), erased=bool(absent.erased[row]))
        return found

    def adopt(self, encoder: str, sealed: Rows, segment: Segment) -> None:
        """Put a segment in the place of the rows of the delta that it was built from."""
        scope = self.scopes[encoder]
        alive = scope.delta.is_living(sealed.numbers)
        scope.delta.drop_through(int(sealed.numbers[-1]))
        segment.remove_ids(sealed.ids[position] for position in np.flatnonzero(~alive))
        for position in np.flatnonzero(alive):
            del self.latest[sealed.ids[position]]
        scope.segments.append(segment)

    def tidy(self, scope: Scope) -> None:
        """Begin a delta anew, without the rows that are masked."""
        rows, scope.delta = scope.delta.living_rows(), Delta()
        self.hold(scope.delta, rows)

    def hold(self, delta: Delta, rows: Rows) -> None:
        """Append rows to a delta, as the latest records of their individuals."""
        records = zip(rows.vectors, rows.ids, rows.revisions.tolist(), rows.offsets.tolist(), strict=True)
        for vector, individual_id, revision, offset in records:
            row = delta.append(vector, individual_id, revision, offset)
            self.latest[individual_id] = Latest(revision, offset, place=delta, row=row)

    def put_away(self, limit: int) -> None:
        """Move those without a vector to where they take 33 bytes each, once they are many."""
        names = list(self._without_vector())
        if len(names) >= limit:
            self.add_absent(self.lately_absent())
            for name in names:
                del self.latest[name]

    def lately_absent(self) -> Absent:
        """Those without a vector of whom `latest` knows."""
        found = {name: self.latest[name] for name in self._without_vector()}
        return Absent.of(
            list(found),
            [latest.revision for latest in found.values()],
            [latest.offset for latest in found.values()],
            [latest.erased for latest in found.values()],
        )

    def add_absent(self, absent: Absent) -> None:
        """Add records later than those in `absent`; it stays a short list of ever larger ones."""
        while self.absent and len(self.absent[-1]) <= 2 * len(absent):
            absent = absent.with_earlier(self.absent.pop())
        self.absent.append(absent)

    def _without_vector(self) -> Iterator[str]:
        return (name for name, latest in self.latest.items() if latest.place is None)
