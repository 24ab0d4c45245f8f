"""The topic `duplicates` → what it says of each pair at its end, as arrays: the last record of each counts. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import Record, UnreadableError, decode
from schemas.events import DuplicateFound, DuplicateRetracted
from streams.roster import hashes_of

_FIRST_LIMIT = 200_000
_TYPES = {event.__name__.encode() for event in (DuplicateFound, DuplicateRetracted)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Known(NamedTuple):
    """What is known of pairs, (n,) of each: whose, at which revisions, whether they hold, and where that is said.

    `a` and `b` are hashes of ids, (n, 2) uint64; `times` are ce_time in microseconds since 1970. Of a pair that does
    not hold the distance is NaN.
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    revisions_a: NDArray[np.int64]
    revisions_b: NDArray[np.int64]
    distances: NDArray[np.float64]
    times: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def holds(self) -> NDArray[np.bool_]:
        """Which of them are found and not retracted."""
        return ~np.isnan(self.distances)

    def chosen(self, which: NDArray[np.intp]) -> "Known":
        """Some of them, by their positions here, in that order."""
        return Known._make(column[which] for column in self)

    @classmethod
    def together(cls, parts: "Sequence[Known]") -> "Known":
        """All of several, one after the other."""
        return cls._make(np.concatenate(column) for column in zip(_NOTHING, *parts, strict=True))


_NO_HASH, _NO_NUMBER = np.empty((0, 2), np.uint64), np.empty(0, np.int64)
_NOTHING = Known(_NO_HASH, _NO_HASH, _NO_NUMBER, _NO_NUMBER, np.empty(0, np.float64), _NO_NUMBER, _NO_NUMBER)


class Findings:
    """Takes the records of one partition, of one collection or of all, in the order of the log.

    Memory: 120 bytes a pair, twice over at times.
    """

    def __init__(self, collection: str | None = None) -> None:
        self._collection = collection
        self._scopes: dict[tuple[str, str], int] = {}
        self._parts: list[tuple[NDArray[np.uint64], NDArray[np.int64], Known]] = []  # pair ids, scopes
        self._held = 0
        self._limit = _FIRST_LIMIT

    def add(self, records: Sequence[Record]) -> None:
        """Take records in; what cannot be read is a dead letter already."""
        ids: list[tuple[str, str]] = []
        numbers: list[tuple[int, int, int, int, int]] = []
        distances: list[float] = []
        keys: list[str] = []
        for record in records:
            if dict(record.headers).get("ce_type") not in _TYPES:
                continue
            try:
                message = decode(record)
            except UnreadableError:
                continue
            event = message.event
            assert isinstance(event, DuplicateFound | DuplicateRetracted)
            assert record.offset is not None
            if self._collection not in (None, event.collection):
                continue
            scope = self._scopes.setdefault((event.collection, event.encoder), len(self._scopes))
            ids.append((event.a.individual_id, event.b.individual_id))
            numbers.append((scope, event.a.revision, event.b.revision, in_microseconds(message.time), record.offset))
            distances.append(event.distance if isinstance(event, DuplicateFound) else float("nan"))
            keys.append(event.pair_id)
        if keys:
            scopes, revisions_a, revisions_b, times, offsets = np.array(numbers, dtype=np.int64).T
            a, b = (hashes_of(side) for side in zip(*ids, strict=True))
            known = Known(a, b, revisions_a, revisions_b, np.array(distances), times, offsets)
            self._parts.append((hashes_of(keys), scopes, known))
            self._held += len(keys)
        if self._held >= self._limit:
            self._limit = max(_FIRST_LIMIT, 2 * len(self._settled()[0]))

    def encoders(self, collection: str) -> list[str]:
        """Those of which anything is known in a collection."""
        return sorted(encoder for name, encoder in self._scopes if name == collection)

    def known(self, collection: str, encoder: str) -> Known:
        """The last word on each pair."""
        scopes, known = self._settled()
        here = np.flatnonzero(scopes == self._scopes.get((collection, encoder), -1))
        return known.chosen(here)

    def _settled(self) -> tuple[NDArray[np.int64], Known]:
        parts, self._parts = self._parts, []
        keys = np.concatenate([_NO_HASH, *(keys for keys, _, _ in parts)])
        scopes = np.concatenate([_NO_NUMBER, *(scopes for _, scopes, _ in parts)])
        known = Known.together([known for _, _, known in parts])
        order = np.lexsort((known.offsets, keys[:, 1], keys[:, 0]))
        is_last = np.ones(len(order), dtype=np.bool_)
        is_last[:-1] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
        kept = order[is_last]
        last = known.chosen(kept)
        self._parts, self._held = [(keys[kept], scopes[kept], last)], len(kept)
        return scopes[kept], last


def in_microseconds(time: datetime) -> int:
    """Since 1970."""
    return round((time - _EPOCH).total_seconds() * 1e6)
