"""Individuals without a vector here, in little memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streams.gallery.id_table import Roster, hashes_of, order_of


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
