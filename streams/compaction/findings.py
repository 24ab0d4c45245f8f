"""The topic `duplicates` as arrays: per pair the statements that matter, per individual the last check. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import StoredRecord, UnreadableError, decode
from schemas.erased import NOBODY, Erased
from schemas.events.base import Member
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairEvent, version_keys
from schemas.shard import Shard
from schemas.topics import DUPLICATES
from streams.gallery.id_table import IdTable, hashes_of, last_of_each

_FIRST_LIMIT = 200_000  # records, 24 MB: reduced to what matters whenever there are more, or twice what mattered
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Known(NamedTuple):
    """Statements about pairs, (n,) of each: members, revisions, distance, time and offset of the record.

    `a` and `b` are hashes of ids, (n, 2) uint64; `times` are ce_time in microseconds since 1970. The distance of a
    retracted pair is NaN. `erased`: whether a member is erased, at that revision, as the registry of the erased has it.
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    revisions_a: NDArray[np.int64]
    revisions_b: NDArray[np.int64]
    distances: NDArray[np.float64]
    times: NDArray[np.int64]
    offsets: NDArray[np.int64]
    erased: NDArray[np.bool_]

    @property
    def holds(self) -> NDArray[np.bool_]:
        """Which of them say that the pair holds: (n,) bool."""
        return ~np.isnan(self.distances)

    def chosen(self, which: NDArray[np.intp]) -> "Known":
        """Some of them, by their positions, in that order."""
        return Known._make(column[which] for column in self)

    @classmethod
    def together(cls, parts: "Sequence[Known]") -> "Known":
        """All of `parts`, one after the other."""
        return cls._make(np.concatenate(column) for column in zip(_NOTHING, *parts, strict=True))


class Statements(NamedTuple):
    """Per pair the statement with the highest (revisions, time), the first of several; and the last one in the log.

    Postgres shows the `current` one (`consumers.sink.statements`). Kafka's compaction, and everyone who keeps the last
    record of each key, keeps `last_published`: they should be the same.
    """

    current: Known
    last_published: Known


_NO_HASH, _NO_NUMBER = np.empty((0, 2), np.uint64), np.empty(0, np.int64)
_NOTHING = Known(
    _NO_HASH, _NO_HASH, _NO_NUMBER, _NO_NUMBER, np.empty(0, np.float64), _NO_NUMBER, _NO_NUMBER, np.empty(0, np.bool_)
)


class Findings:
    """Collects the records of one partition of `duplicates`, of one collection or of all, in the order of the log.

    Checks count for one shard only. Memory: 120 bytes a pair and 50 an individual, at times twice that.
    """

    def __init__(self, collection: str | None = None, shard: Shard = Shard(), erased: Erased = NOBODY) -> None:
        self._collection, self._shard, self._erased = collection, shard, erased
        self._scopes: dict[tuple[str, str], int] = {}
        self._parts: list[tuple[NDArray[np.uint64], NDArray[np.int64], Known]] = []  # pair ids, scopes
        self._count = 0
        self._limit = _FIRST_LIMIT
        self._statements: tuple[NDArray[np.int64], Statements] | None = None
        self._checks: dict[tuple[str, str], list[IdTable]] = {}

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Add records. Unreadable ones are skipped: they are dead letters already."""
        pairs: list[tuple[PairEvent, datetime, int]] = []
        checks: list[tuple[IndividualChecked, int]] = []
        for record in records:
            try:
                message = decode(record, DUPLICATES)
            except UnreadableError:
                continue
            if self._collection not in (None, message.event.collection):
                continue
            if isinstance(message.event, PairEvent):
                pairs.append((message.event, message.time, record.offset))
            elif isinstance(message.event, IndividualChecked):
                checks.append((message.event, record.offset))
        self._add_pairs(pairs)
        self._add_checks(checks)

    def _add_pairs(self, messages: list[tuple[PairEvent, datetime, int]]) -> None:
        keys: list[str] = []
        ids: list[tuple[str, str]] = []
        numbers: list[tuple[int, int, int, int, int]] = []
        distances: list[float] = []
        erased: list[bool] = []
        for event, time, offset in messages:
            scope = self._scopes.setdefault((event.collection, event.encoder), len(self._scopes))
            keys.append(event.pair_id)
            ids.append((event.a.individual_id, event.b.individual_id))
            numbers.append((scope, event.a.revision, event.b.revision, in_microseconds(time), offset))
            distances.append(event.distance if isinstance(event, DuplicateFound) else float("nan"))
            erased.append(any(self._is_erased(event.collection, member) for member in (event.a, event.b)))
        if keys:
            scopes, revisions_a, revisions_b, times, offsets = np.array(numbers, dtype=np.int64).T
            a, b = (hashes_of(side) for side in zip(*ids, strict=True))
            known = Known(a, b, revisions_a, revisions_b, np.array(distances), times, offsets, np.array(erased))
            self._parts.append((hashes_of(keys), scopes, known))
            self._count += len(keys)
            self._statements = None
        if self._count >= self._limit:
            self._reduced()
            self._limit = max(_FIRST_LIMIT, 2 * self._count)

    def _is_erased(self, collection: str, member: Member) -> bool:
        return self._erased.covers(collection, member.individual_id, member.revision)

    def _add_checks(self, messages: list[tuple[IndividualChecked, int]]) -> None:
        by_scope: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
        for event, offset in messages:
            if Shard(event.shard, event.shards) == self._shard:
                scope = by_scope.setdefault((event.collection, event.encoder), [])
                scope.append((event.individual_id, event.revision, offset))
        for name, checks in by_scope.items():
            ids, revisions, offsets = zip(*checks, strict=True)
            parts = self._checks.setdefault(name, [])
            parts.append(IdTable.of(hashes_of(ids), np.array(revisions, np.int64), np.array(offsets, np.int64)))
            if sum(map(len, parts[1:])) > max(_FIRST_LIMIT, len(parts[0])):
                self._checks[name] = [_latest(parts)]

    def checked(self, collection: str, encoder: str) -> IdTable:
        """The individuals that were compared with everyone before, with their revisions."""
        return _latest(self._checks.get((collection, encoder), []))

    def in_use(self) -> dict[str, set[str]]:
        """Per collection, the encoders by which any pair is stated to hold."""
        scopes, statements = self._reduced()
        used = set(np.unique(scopes[statements.current.holds | statements.last_published.holds]).tolist())
        found: dict[str, set[str]] = {}
        for (collection, encoder), scope in self._scopes.items():
            if scope in used:
                found.setdefault(collection, set()).add(encoder)
        return found

    def statements(self, collection: str, encoder: str) -> Statements:
        """The statements about the pairs of one encoder in one collection."""
        scopes, statements = self._reduced()
        here = np.flatnonzero(scopes == self._scopes.get((collection, encoder), -1))
        return Statements(statements.current.chosen(here), statements.last_published.chosen(here))

    def _reduced(self) -> tuple[NDArray[np.int64], Statements]:
        """The scope of each pair, and its statements in the same order. Drops all other records."""
        if self._statements is None:
            parts, self._parts = self._parts, []
            keys = np.concatenate([_NO_HASH, *(keys for keys, _, _ in parts)])
            scopes = np.concatenate([_NO_NUMBER, *(scopes for _, scopes, _ in parts)])
            known = Known.together([known for _, _, known in parts])
            versions = version_keys(known.revisions_a, known.revisions_b, known.times)
            current = last_of_each(keys, -known.offsets, *versions)
            last = last_of_each(keys, known.offsets)
            kept = np.unique(np.concatenate([current, last]))
            self._parts, self._count = [(keys[kept], scopes[kept], known.chosen(kept))], len(kept)
            self._statements = scopes[last], Statements(known.chosen(current), known.chosen(last))
        return self._statements


def _latest(parts: Sequence[IdTable]) -> IdTable:
    """All of `parts` in one table, with the last row of each individual."""
    hashes = np.concatenate([_NO_HASH, *(part.hashes for part in parts)])
    revisions = np.concatenate([_NO_NUMBER, *(part.revisions for part in parts)])
    offsets = np.concatenate([_NO_NUMBER, *(part.offsets for part in parts)])
    kept = last_of_each(hashes, offsets)
    return IdTable(hashes[kept], revisions[kept], offsets[kept])


def in_microseconds(time: datetime) -> int:
    """A time in microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)
