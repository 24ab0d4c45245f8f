"""Individuals without a vector here, in little memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.gallery.id_table import IdTable, hashes_of, order_of


class WithoutVector:
    """Individuals without a vector here: erased ones, and living ones whose vector is in another shard. Immutable.

    What is kept of them is a hash, so that a record that comes late is known to be late.
    """

    def __init__(self, id_table: IdTable, erased: NDArray[np.bool_]) -> None:
        self.id_table, self.erased = id_table, erased

    def __len__(self) -> int:
        return len(self.id_table)

    @classmethod
    def of(
        cls, ids: Sequence[str], revisions: Sequence[int], offsets: Sequence[int], erased: Sequence[bool]
    ) -> "WithoutVector":
        """From lists in any order."""
        id_table = IdTable(hashes_of(ids), np.array(revisions, np.int64), np.array(offsets, np.int64))
        return cls(id_table, np.array(erased, np.bool_))._sorted()

    def with_earlier(self, earlier: "WithoutVector") -> "WithoutVector":
        """Both in one; of an id that is in both the later record."""
        gone = earlier.id_table.find(self.id_table.hashes)
        kept = np.ones(len(earlier), dtype=np.bool_)
        kept[gone[gone >= 0]] = False
        both = IdTable(
            np.concatenate([earlier.id_table.hashes[kept], self.id_table.hashes]),
            np.concatenate([earlier.id_table.revisions[kept], self.id_table.revisions]),
            np.concatenate([earlier.id_table.offsets[kept], self.id_table.offsets]),
        )
        return WithoutVector(both, np.concatenate([earlier.erased[kept], self.erased]))._sorted()

    def _sorted(self) -> "WithoutVector":
        order = order_of(self.id_table.hashes)
        id_table = IdTable(self.id_table.hashes[order], self.id_table.revisions[order], self.id_table.offsets[order])
        return WithoutVector(id_table, self.erased[order])
