"""The log of a partition → who is living in it, as arrays: what `Gallery` holds one by one, for millions at once.

Pure. Which record is an individual's latest does not depend on the order in which they come: it is the one of the
highest revision, of several the erasure, else the one that stands last in the log.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.envelope import Record, UnreadableError, decode
from schemas.events import EMBEDDING_DIMENSIONS, EncodingComputed, EncodingErased
from schemas.shard import Shard
from streams.delta import Rows
from streams.roster import hashes_of

_FIRST_LIMIT = 200_000
_ERASED = -1
_NO_VECTOR = np.zeros(EMBEDDING_DIMENSIONS, np.float32)


class _Part(NamedTuple):
    """Records, (n,) of each: the key, numbers, the scope or _ERASED, and (n, 128) vectors."""

    keys: list[str]
    revisions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    scopes: NDArray[np.int64]
    vectors: NDArray[np.float32]


class Fold:
    """Takes the records of one partition, of one collection or of all, and hands out the living.

    `is_empty` is whether nobody was ever in it, be it to be erased. Memory: at most twice the records of as many
    individuals as there are, or 200,000, at 0.7 kB each.
    """

    def __init__(self, collection: str | None = None, shard: Shard = Shard()) -> None:
        self._prefix = b"" if collection is None else f"{collection}/".encode()
        self.is_empty = True
        self._shard = shard
        self._scopes: dict[tuple[str, str], int] = {}
        self._parts: list[_Part] = []
        self._held = 0
        self._limit = _FIRST_LIMIT

    def add(self, records: Sequence[Record]) -> None:
        """Take records in; what cannot be read is a dead letter already."""
        keys: list[str] = []
        numbers: list[tuple[int, int, int]] = []
        vectors: list[NDArray[np.float32]] = []
        for record in records:
            if record.key is None or not record.key.startswith(self._prefix):
                continue
            try:
                event = decode(record).event
            except UnreadableError:
                continue
            assert isinstance(event, EncodingComputed | EncodingErased)
            assert record.offset is not None
            scope, vector = _ERASED, _NO_VECTOR
            if isinstance(event, EncodingComputed):
                scope = self._scopes.setdefault((event.collection, event.encoder), len(self._scopes))
                vector = event.embedding
            keys.append(event.key)
            numbers.append((event.revision, record.offset, scope))
            vectors.append(vector)
        if keys:
            self.is_empty = False
            revisions, offsets, scopes = np.array(numbers, dtype=np.int64).T
            self._parts.append(_Part(keys, revisions, offsets, scopes, np.stack(vectors)))
            self._held += len(keys)
        if self._held >= self._limit:
            self._limit = max(_FIRST_LIMIT, 2 * len(self._settled().keys))

    def living(self) -> dict[tuple[str, str], Rows]:
        """By collection and encoder the latest records of the living that fall to the shard, in the log's order."""
        latest = self._settled()
        ids = [key.partition("/")[2] for key in latest.keys]
        ours = latest.scopes != _ERASED
        if self._shard.count > 1 and ids:
            ours &= hashes_of(ids)[:, 1] % np.uint64(self._shard.count) == self._shard.number - 1
        found = {}
        for name, scope in self._scopes.items():
            rows = np.flatnonzero(ours & (latest.scopes == scope))
            names = [ids[row] for row in rows.tolist()]
            whole = len(rows) == len(ids)  # spares a copy
            found[name] = Rows(
                np.arange(len(rows)),
                latest.vectors if whole else latest.vectors[rows],
                names,
                latest.revisions[rows],
                latest.offsets[rows],
            )
        return found

    def _settled(self) -> _Part:
        """Of each individual the latest record, in the order of the log; the others are forgotten."""
        parts, self._parts = self._parts, []
        keys = [key for part in parts for key in part.keys]
        empty = np.empty(0, np.int64)
        revisions, offsets, scopes = (
            np.concatenate([empty, *(part[column] for part in parts)]) for column in (1, 2, 3)
        )
        hashes = hashes_of(keys)
        order = np.lexsort((offsets, scopes == _ERASED, revisions, hashes[:, 1], hashes[:, 0]))
        is_last = np.ones(len(order), dtype=np.bool_)
        is_last[:-1] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
        kept = order[is_last]
        kept = kept[np.argsort(offsets[kept])]
        vectors = np.concatenate([np.empty((0, EMBEDDING_DIMENSIONS), np.float32), *(part.vectors for part in parts)])
        del parts
        latest = _Part(
            [keys[row] for row in kept.tolist()], revisions[kept], offsets[kept], scopes[kept], vectors[kept]
        )
        self._parts, self._held = [latest], len(latest.keys)
        return latest
