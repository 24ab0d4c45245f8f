"""Who stands in a sealed part of the gallery, found by a hash of the id: 32 bytes each, however long the id."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.shard import Shard


class IdHash(NamedTuple):
    """BLAKE2b of an individual's id, 128 bits: among a billion ids two collide with probability 1e-21."""

    high: int
    low: int

    def falls_to(self, shard: Shard) -> bool:
        """Whether the individual's vector is kept in that shard."""
        return self.low % shard.count == shard.number - 1


def hash_of(individual_id: str) -> IdHash:
    """The hash of an id; the same in every process."""
    digest = hashlib.blake2b(individual_id.encode(), digest_size=16).digest()
    return IdHash(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def hashes_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """The hashes of ids, (n, 2) uint64: high and low."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


class Roster:
    """Ids by their hash, each with the revision and the offset of its record. Immutable.

    `hashes` is (n, 2) uint64 in ascending order, `revisions` and `offsets` (n,) int64.
    """

    def __init__(self, hashes: NDArray[np.uint64], revisions: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self.hashes, self.revisions, self.offsets = hashes, revisions, offsets
        self._high = np.ascontiguousarray(hashes[:, 0])

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def empty(cls) -> "Roster":
        """Of nobody."""
        return cls(np.empty((0, 2), np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))

    def row_of(self, wanted: IdHash) -> int | None:
        """The row of an id, None where it is not here."""
        row = int(np.searchsorted(self._high, np.uint64(wanted.high)))
        while row < len(self._high) and self._high[row] == wanted.high:
            if self.hashes[row, 1] == wanted.low:
                return row
            row += 1
        return None

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of hashes (n, 2): (n,) int64, -1 of those that are not here."""
        if not len(self):
            return np.full(len(hashes), -1)
        rows = np.minimum(np.searchsorted(self._high, hashes[:, 0]), len(self) - 1)
        found = np.where((self.hashes[rows] == hashes).all(axis=1), rows, -1)
        # Two ids with the same high half: looked for one by one.
        for at in np.flatnonzero((self._high[rows] == hashes[:, 0]) & (found < 0)):
            row = self.row_of(IdHash(int(hashes[at, 0]), int(hashes[at, 1])))
            found[at] = -1 if row is None else row
        return found


def order_of(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order in which a roster has them."""
    return np.lexsort((hashes[:, 1], hashes[:, 0]))


class Absent:
    """Individuals without a vector here: erased ones, and living ones whose vector is in another shard. Immutable.

    What is kept of them is a hash, so that a record that comes late is known to be late.
    """

    def __init__(self, roster: Roster, erased: NDArray[np.bool_]) -> None:
        self.roster, self.erased = roster, erased

    def __len__(self) -> int:
        return len(self.roster)

    @classmethod
    def of(
        cls, ids: Sequence[str], revisions: Sequence[int], offsets: Sequence[int], erased: Sequence[bool]
    ) -> "Absent":
        """From lists in any order."""
        roster = Roster(hashes_of(ids), np.array(revisions, np.int64), np.array(offsets, np.int64))
        return cls(roster, np.array(erased, np.bool_))._sorted()

    def with_earlier(self, earlier: "Absent") -> "Absent":
        """Both in one; of an id that is in both the later record."""
        gone = earlier.roster.find(self.roster.hashes)
        kept = np.ones(len(earlier), dtype=np.bool_)
        kept[gone[gone >= 0]] = False
        both = Roster(
            np.concatenate([earlier.roster.hashes[kept], self.roster.hashes]),
            np.concatenate([earlier.roster.revisions[kept], self.roster.revisions]),
            np.concatenate([earlier.roster.offsets[kept], self.roster.offsets]),
        )
        return Absent(both, np.concatenate([earlier.erased[kept], self.erased]))._sorted()

    def _sorted(self) -> "Absent":
        order = order_of(self.roster.hashes)
        roster = Roster(self.roster.hashes[order], self.roster.revisions[order], self.roster.offsets[order])
        return Absent(roster, self.erased[order])


def last_of_each(keys: NDArray[np.uint64], *order_by: NDArray[Any]) -> NDArray[np.intp]:
    """Of each different key, a row of (n, k), the position of the last, as `numpy.lexsort` orders them by `order_by`.

    In ascending order of the keys.
    """
    order = np.lexsort((*order_by, *keys.T[::-1]))
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    lasts: NDArray[np.intp] = order[is_last]
    return lasts
