"""Individuals by a hash of their id: 32 bytes each, however long the id."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.shard import Shard


def falling_to(shard: Shard, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which ids, given their hashes (n, 2), fall to a shard: (n,) bool. See `IdHash.falls_to`."""
    falls: NDArray[np.bool_] = hashes[:, 1] % np.uint64(shard.count) == shard.number - 1
    return falls


class IdHash(NamedTuple):
    """The 128-bit BLAKE2b hash of an individual's id. Among a billion ids two collide with probability 1e-21."""

    high: int
    low: int

    def falls_to(self, shard: Shard) -> bool:
        """Whether the individual's vector is kept in that shard."""
        return self.low % shard.count == shard.number - 1


def hash_of(individual_id: str) -> IdHash:
    """The hash of an id. It is the same in every process."""
    digest = hashlib.blake2b(individual_id.encode(), digest_size=16).digest()
    return IdHash(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def hashes_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """The hashes of ids: (n, 2) uint64, high and low."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


class IdTable:
    """Individuals by the hash of their id, each with the revision and the offset of its record. Immutable.

    Invariant: `hashes`, (n, 2) uint64, ascend; `revisions` and `offsets`, (n,) int64, belong to them. A search relies
    on it, and so does `build_segment`: the last rows are a random sample. Raises ValueError where it does not hold.
    """

    def __init__(self, hashes: NDArray[np.uint64], revisions: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        if not len(hashes) == len(revisions) == len(offsets):
            raise ValueError(f"{len(hashes)} hashes, {len(revisions)} revisions and {len(offsets)} offsets")
        if not _is_ascending(hashes):
            raise ValueError("the hashes of an id table do not ascend")
        self.hashes, self.revisions, self.offsets = hashes, revisions, offsets
        self._high = np.ascontiguousarray(hashes[:, 0])

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], revisions: NDArray[np.int64], offsets: NDArray[np.int64]) -> "IdTable":
        """A table of rows in any order."""
        order = order_of(hashes)
        return cls(hashes[order], revisions[order], offsets[order])

    @classmethod
    def empty(cls) -> "IdTable":
        """A table without rows."""
        return cls(np.empty((0, 2), np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))

    def row_of(self, wanted: IdHash) -> int | None:
        """The row of an id, None if it is not here."""
        row = int(np.searchsorted(self._high, np.uint64(wanted.high)))
        while row < len(self._high) and self._high[row] == wanted.high:
            if self.hashes[row, 1] == wanted.low:
                return row
            row += 1
        return None

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of hashes (n, 2): (n,) int64, -1 for those that are not here."""
        if not len(self):
            return np.full(len(hashes), -1)
        rows = np.minimum(np.searchsorted(self._high, hashes[:, 0]), len(self) - 1)
        found = np.where((self.hashes[rows] == hashes).all(axis=1), rows, -1)
        # Ids that share the high half with another are looked up one by one.
        for at in np.flatnonzero((self._high[rows] == hashes[:, 0]) & (found < 0)):
            row = self.row_of(IdHash(int(hashes[at, 0]), int(hashes[at, 1])))
            found[at] = -1 if row is None else row
        return found


def _is_ascending(hashes: NDArray[np.uint64]) -> bool:
    high, low = hashes[:, 0], hashes[:, 1]
    return bool(((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))).all())


def order_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The positions of hashes (n, 2) in ascending order: (n,) int64."""
    return np.lexsort((hashes[:, 1], hashes[:, 0]))


def last_of_each(keys: NDArray[np.uint64], *order_by: NDArray[Any]) -> NDArray[np.intp]:
    """For each distinct key, a row of (n, k), the position of the last, as `numpy.lexsort` orders them by `order_by`.

    Positions are in ascending order of the keys.
    """
    order = np.lexsort((*order_by, *keys.T[::-1]))
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    lasts: NDArray[np.intp] = order[is_last]
    return lasts
