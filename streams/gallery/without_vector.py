"""Individuals without a vector in this shard, in 33 bytes each."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.gallery.id_table import IdTable, hashes_of, order_of


class WithoutVector:
    """Individuals without a vector here: erased ones, and living ones whose vector is in another shard. Immutable.

    They are kept so that a late record is recognized as late.
    """

    def __init__(self, id_table: IdTable, erased: NDArray[np.bool_]) -> None:
        if len(id_table) != len(erased):
            raise ValueError(f"{len(id_table)} individuals, and {len(erased)} times whether they are erased")
        self.id_table, self.erased = id_table, erased

    def __len__(self) -> int:
        return len(self.id_table)

    @classmethod
    def of(
        cls, ids: Sequence[str], revisions: Sequence[int], offsets: Sequence[int], erased: Sequence[bool]
    ) -> "WithoutVector":
        """From the columns of a table, in any order."""
        hashes = hashes_of(ids)
        id_table = IdTable.of(hashes, np.array(revisions, np.int64), np.array(offsets, np.int64))
        return cls(id_table, np.array(erased, np.bool_)[order_of(hashes)])

    def with_earlier(self, earlier: "WithoutVector") -> "WithoutVector":
        """Both in one, with the later record of an individual that is in both."""
        gone = earlier.id_table.find(self.id_table.hashes)
        kept = np.ones(len(earlier), dtype=np.bool_)
        kept[gone[gone >= 0]] = False
        hashes = np.concatenate([earlier.id_table.hashes[kept], self.id_table.hashes])
        both = IdTable.of(
            hashes,
            np.concatenate([earlier.id_table.revisions[kept], self.id_table.revisions]),
            np.concatenate([earlier.id_table.offsets[kept], self.id_table.offsets]),
        )
        return WithoutVector(both, np.concatenate([earlier.erased[kept], self.erased])[order_of(hashes)])
