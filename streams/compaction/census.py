"""The log of a partition → its individuals as arrays: what `Gallery` has one by one, for millions at once.

Pure. Which record is an individual's latest does not depend on the order in which they come: see `Rank`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import StoredRecord, UnreadableError, decode_as_sent
from schemas.erased import NOBODY, Erased
from schemas.events.base import key_prefix
from schemas.events.encodings import EncodingAsSent, embeddings_of, rank_keys
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import IdTable, hashes_of, last_of_each

_FIRST_LIMIT = 200_000  # records, 140 MB: reduced to the latest when there are more, or twice as many as the latest
ERASED = -1
_NO_VECTOR = ""
_NOBODY: NDArray[np.float32] = np.empty((0, 1), np.float32)


class Census(NamedTuple):
    """All individuals of a collection that have a record in the log, the erased ones too, in the order of `id_table`.

    `encoders` is (n,) int64: the encoder of each vector as a position in `names`, or ERASED. `vectors` has, by these
    positions, the vectors of each encoder in the order of the individuals: (m, d) float32.
    """

    collection: str
    id_table: IdTable
    ids: list[str]
    encoders: NDArray[np.int64]
    names: list[str]
    vectors: Mapping[int, NDArray[np.float32]]

    @classmethod
    def empty(cls, collection: str) -> "Census":
        """The census of a collection without individuals in the log."""
        return cls(collection, IdTable.empty(), [], np.empty(0, np.int64), [], {})

    def code_of(self, encoder: str) -> int:
        """The number of an encoder in `encoders`; one that does not occur there, if nobody has a vector by it."""
        return self.names.index(encoder) if encoder in self.names else len(self.names)

    def in_use(self) -> list[str]:
        """The encoders of the latest vectors."""
        return [self.names[code] for code in np.unique(self.encoders).tolist() if code != ERASED]

    @property
    def people(self) -> int:
        """How many are living, by whichever encoder."""
        return int((self.encoders != ERASED).sum())

    def positions(self, encoder: str) -> NDArray[np.int64]:
        """The positions of those whose latest vector is by that encoder, ascending: (n,) int64."""
        return np.flatnonzero(self.encoders == self.code_of(encoder))

    def living(self, encoder: str) -> VectorRows:
        """Those whose latest vector is by that encoder, in the order of `positions`."""
        rows = self.positions(encoder)
        everyone = len(rows) == len(self.ids)
        return VectorRows(
            self.vectors.get(self.code_of(encoder), _NOBODY),
            self.ids if everyone else [self.ids[row] for row in rows.tolist()],
            self.id_table.revisions[rows],
            self.id_table.offsets[rows],
        )


class _Part(NamedTuple):
    """Records, (n,) of each. `collections` and `encoders` are positions in lists of names.

    `dimensions` is 0 of those without a vector. `vectors` has, by their dimensions, those of the others in their order:
    (m, d) float32.
    """

    ids: list[str]
    collections: NDArray[np.int64]
    revisions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    encoders: NDArray[np.int64]
    dimensions: NDArray[np.int64]
    vectors: Mapping[int, NDArray[np.float32]]

    def chosen(self, which: NDArray[np.intp]) -> "_Part":
        """Some of them, by their positions, in that order."""
        ids = [self.ids[position] for position in which.tolist()]
        columns = (column[which] for column in self[1:-1])
        return _Part._make((ids, *columns, {d: self.vectors_of(d, which) for d in self.vectors}))

    def vectors_of(self, dimensions: int, which: NDArray[np.intp]) -> NDArray[np.float32]:
        """The vectors of those among the records at `which`, (n,), that have so many dimensions, in that order."""
        have = self.dimensions == dimensions
        places = (np.cumsum(have) - 1)[which[have[which]]]
        vectors = self.vectors[dimensions]
        is_all = len(places) == len(vectors) and bool((np.diff(places) == 1).all())
        return vectors if is_all else vectors[places]  # spares a copy

    @classmethod
    def together(cls, parts: "Sequence[_Part]") -> "_Part":
        """All of some parts, of which there may be none."""
        empty = np.empty(0, np.int64)
        columns = [
            np.concatenate([empty, *(part[column] for part in parts)]) for column in range(1, len(cls._fields) - 1)
        ]
        every = {d for part in parts for d in part.vectors}
        vectors = {d: np.concatenate([part.vectors[d] for part in parts if d in part.vectors]) for d in every}
        return cls._make(([one for part in parts for one in part.ids], *columns, vectors))


class Fold:
    """Collects the records of one partition, of one collection or of all, and returns the latest of each individual.

    Encodings of people in `erased` do not count, even where Kafka has dropped the tombstone. Nor do those of another
    number of dimensions than most have of their encoder in their collection: they are dead letters already.

    Memory: at most twice the records of as many individuals as there are, or 200,000, at 0.7 kB each.
    """

    def __init__(self, collection: str | None = None, erased: Erased = NOBODY) -> None:
        self._erased = erased
        self._prefix = b"" if collection is None else key_prefix(collection).encode()
        self._collections: dict[str, int] = {}
        self._encoders: dict[str, int] = {}
        self._seen: Counter[tuple[int, int, int]] = Counter()  # records by collection, encoder, and dimensions
        self._parts: list[_Part] = []
        self._count = 0
        self._limit = _FIRST_LIMIT

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Add records. Unreadable ones are skipped: they are dead letters already."""
        ids: list[str] = []
        numbers: list[tuple[int, int, int, int]] = []
        texts: list[str] = []
        for record in records:
            if record.key is None or not record.key.startswith(self._prefix):
                continue
            try:
                event = decode_as_sent(record)
            except UnreadableError:
                continue
            if isinstance(event, EncodingAsSent) and self._erased.covers(
                event.collection, event.individual_id, event.revision
            ):
                continue
            encoder, text = ERASED, _NO_VECTOR
            if isinstance(event, EncodingAsSent):
                encoder = self._encoders.setdefault(event.encoder, len(self._encoders))
                text = event.embedding
            collection = self._collections.setdefault(event.collection, len(self._collections))
            ids.append(event.individual_id)
            numbers.append((collection, event.revision, record.offset, encoder))
            texts.append(text)
        if ids:
            self._take(_part_of(ids, np.array(numbers, dtype=np.int64), texts))
        if self._count >= self._limit:
            self._limit = max(_FIRST_LIMIT, 2 * len(self._reduced()[0].ids))

    def _take(self, part: _Part) -> None:
        self._parts.append(part)
        self._count += len(part.ids)
        whose = np.column_stack([part.collections, part.encoders, part.dimensions])[part.dimensions > 0]
        for (collection, encoder, dimensions), count in zip(*_counted(whose), strict=True):
            self._seen[collection, encoder, dimensions] += count

    def collections(self) -> Iterator[Census]:
        """The census of each collection, in the order of their names."""
        latest, hashes = self._reduced()
        for name, code in sorted(self._collections.items()):
            here = slice(*np.searchsorted(latest.collections, [code, code + 1]).tolist())
            if here.start == here.stop:  # its only embedding was refused
                continue
            yield Census(
                name,
                IdTable(hashes[here], latest.revisions[here], latest.offsets[here]),
                latest.ids[here],
                latest.encoders[here],
                list(self._encoders),
                _by_encoder(latest, here),
            )

    def _reduced(self) -> tuple[_Part, NDArray[np.uint64]]:
        """The latest record of each individual, by collection and hash, and the hashes. Drops the others."""
        parts, self._parts = self._parts, []
        every = _Part.together(parts)
        del parts
        fitting = self._fitting(every)
        if not fitting.all():
            every = every.chosen(np.flatnonzero(fitting))
        hashes = hashes_of(every.ids)
        whose = np.column_stack([every.collections.astype(np.uint64), hashes])
        kept = last_of_each(whose, every.offsets, *rank_keys(every.revisions, every.encoders == ERASED))
        latest = every.chosen(kept)
        self._parts, self._count = [latest], len(latest.ids)
        return latest, hashes[kept]

    def _fitting(self, part: _Part) -> NDArray[np.bool_]:
        """Which records have as many dimensions as most of their encoder in their collection, or no vector: (n,)."""
        fits = np.ones(len(part.ids), np.bool_)
        scopes: dict[tuple[int, int], dict[int, int]] = {}
        for (collection, encoder, dimensions), count in self._seen.items():
            scopes.setdefault((collection, encoder), {})[dimensions] = count
        for (collection, encoder), counts in scopes.items():
            if len(counts) > 1:
                of_scope = (part.collections == collection) & (part.encoders == encoder)
                fits &= ~of_scope | (part.dimensions == max(counts, key=lambda dimensions: counts[dimensions]))
        return fits


def _part_of(ids: list[str], numbers: NDArray[np.int64], texts: Sequence[str]) -> _Part:
    """Records with their collection, revision, offset and encoder, (n, 4), and their embeddings as they were sent.

    Those whose embedding EncodingComputed refuses are left out.
    """
    found, dimensions = embeddings_of(texts), np.zeros(len(ids), np.int64)
    for count, at in found.items():
        dimensions[at.positions] = count
    vectors = {count: at.embeddings for count, at in found.items()}
    part = _Part._make((ids, *numbers.T, dimensions, vectors))
    taken = (part.encoders == ERASED) | (dimensions > 0)
    return part if taken.all() else part.chosen(np.flatnonzero(taken))


def _counted(rows: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
    """The different rows of (n, 3), and how often each is there."""
    different, counts = np.unique(rows, axis=0, return_counts=True)
    return different.tolist(), counts.tolist()


def _by_encoder(part: _Part, here: slice) -> dict[int, NDArray[np.float32]]:
    """The vectors of the records in a slice, by their encoder."""
    found = {}
    for code in np.unique(part.encoders[here]).tolist():
        if code != ERASED:
            which = here.start + np.flatnonzero(part.encoders[here] == code)
            found[code] = part.vectors_of(int(part.dimensions[which[0]]), which)
    return found
