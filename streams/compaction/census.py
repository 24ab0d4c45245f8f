"""The log of a partition → its individuals as arrays: what `Gallery` has one by one, for millions at once.

Pure. Which record is an individual's latest does not depend on the order in which they come: see `Rank`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import StoredRecord, UnreadableError, decode_as_sent
from schemas.erased import NOBODY, Erased
from schemas.events.base import key_prefix
from schemas.events.encodings import EMBEDDING_DIMENSIONS, EncodingAsSent, embeddings_of, rank_keys
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import IdTable, hashes_of, last_of_each

_FIRST_LIMIT = 200_000  # records, 140 MB: reduced to the latest when there are more, or twice as many as the latest
ERASED = -1
_NO_VECTOR = ""


class Census(NamedTuple):
    """All individuals of a collection that have a record in the log, the erased ones too, in the order of `id_table`.

    `encoders` is (n,) int64: the encoder of each vector as a position in `names`, or ERASED. `vectors` is (n, 128)
    float32.
    """

    collection: str
    id_table: IdTable
    ids: list[str]
    encoders: NDArray[np.int64]
    names: list[str]
    vectors: NDArray[np.float32]

    @classmethod
    def empty(cls, collection: str) -> "Census":
        """The census of a collection without individuals in the log."""
        return cls(
            collection, IdTable.empty(), [], np.empty(0, np.int64), [], np.empty((0, EMBEDDING_DIMENSIONS), np.float32)
        )

    def code_of(self, encoder: str) -> int:
        """The number of an encoder in `encoders`; one that does not occur there, if nobody has a vector by it."""
        return self.names.index(encoder) if encoder in self.names else len(self.names)

    def in_use(self) -> list[str]:
        """The encoders of the latest vectors."""
        return [self.names[code] for code in np.unique(self.encoders).tolist() if code != ERASED]

    def positions(self, encoder: str) -> NDArray[np.int64]:
        """The positions of those whose latest vector is by that encoder, ascending: (n,) int64."""
        return np.flatnonzero(self.encoders == self.code_of(encoder))

    def living(self, encoder: str) -> VectorRows:
        """Those whose latest vector is by that encoder, in the order of `positions`."""
        rows = self.positions(encoder)
        everyone = len(rows) == len(self.ids)
        return VectorRows(
            self.vectors if everyone else self.vectors[rows],  # spares a copy
            self.ids if everyone else [self.ids[row] for row in rows.tolist()],
            self.id_table.revisions[rows],
            self.id_table.offsets[rows],
        )


class _Part(NamedTuple):
    """Records, (n,) of each. `collections` and `encoders` are positions in lists of names; `vectors` is (n, 128)."""

    ids: list[str]
    collections: NDArray[np.int64]
    revisions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    encoders: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def chosen(self, which: NDArray[np.intp]) -> "_Part":
        """Some of them, by their positions, in that order."""
        ids = [self.ids[position] for position in which.tolist()]
        return _Part._make((ids, *(column[which] for column in self[1:])))


class Fold:
    """Collects the records of one partition, of one collection or of all, and returns the latest of each individual.

    Encodings of people in `erased` do not count, even where Kafka has dropped the tombstone.

    Memory: at most twice the records of as many individuals as there are, or 200,000, at 0.7 kB each.
    """

    def __init__(self, collection: str | None = None, erased: Erased = NOBODY) -> None:
        self._erased = erased
        self._prefix = b"" if collection is None else key_prefix(collection).encode()
        self._collections: dict[str, int] = {}
        self._encoders: dict[str, int] = {}
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
            vectors = embeddings_of(texts)
            part = _Part._make((ids, *np.array(numbers, dtype=np.int64).T, vectors))
            vectors[part.encoders == ERASED] = 0
            taken = np.isfinite(vectors).all(axis=1)
            if not taken.all():
                part = part.chosen(np.flatnonzero(taken))
            self._parts.append(part)
            self._count += len(part.ids)
        if self._count >= self._limit:
            self._limit = max(_FIRST_LIMIT, 2 * len(self._reduced()[0].ids))

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
                latest.vectors[here],
            )

    def _reduced(self) -> tuple[_Part, NDArray[np.uint64]]:
        """The latest record of each individual, by collection and hash, and the hashes. Drops the others."""
        parts, self._parts = self._parts, []
        ids = [one for part in parts for one in part.ids]
        empty = np.empty(0, np.int64)
        collections, revisions, offsets, encoders = (
            np.concatenate([empty, *(part[column] for part in parts)]) for column in (1, 2, 3, 4)
        )
        hashes = hashes_of(ids)
        whose = np.column_stack([collections.astype(np.uint64), hashes])
        kept = last_of_each(whose, offsets, *rank_keys(revisions, encoders == ERASED))
        vectors = np.concatenate([np.empty((0, EMBEDDING_DIMENSIONS), np.float32), *(part.vectors for part in parts)])
        del parts
        latest = _Part(ids, collections, revisions, offsets, encoders, vectors).chosen(kept)
        self._parts, self._count = [latest], len(latest.ids)
        return latest, hashes[kept]
