"""The embeddings of one encoder in one collection: they are compared with each other, and with no others."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from schemas.events.base import Member
from streams.gallery.delta import Delta
from streams.gallery.exact import nearest_of_each
from streams.gallery.segment import Segment


class Candidate(NamedTuple):
    """An individual registered before that looks like the same person, and the offset of its record."""

    member: Member
    distance: float
    offset: int


class CandidateList(NamedTuple):
    """The number of candidates of one newcomer, and the nearest of them."""

    total: int
    nearest: list[Candidate]


@dataclass(slots=True)
class Scope:
    """A delta, searched exactly, and the segments that were sealed from it before, all of as many dimensions.

    `begun_at`: when Kafka had the first record that is known of it.
    """

    delta: Delta
    segments: list[Segment] = field(default_factory=list)
    compacted_at: datetime | None = None
    begun_at: datetime | None = None

    @classmethod
    def of_dimensions(cls, dimensions: int) -> Self:
        """An empty one."""
        return cls(Delta(dimensions))

    @property
    def dimensions(self) -> int:
        """Numbers of each embedding: those of the first one."""
        return self.delta.dimensions

    @property
    def living(self) -> int:
        """How many individuals have an embedding here."""
        return self.delta.living + sum(segment.living for segment in self.segments)

    def search(
        self, probes: NDArray[np.float32], offsets: NDArray[np.int64], threshold: float, limit: int
    ) -> list[CandidateList]:
        """For each probe the candidates: individuals before it in the log within the threshold.

        `probes` is (n, d) float32, `offsets` (n,) int64. At most `limit` are listed, the nearest first; of several
        equally near, the one that stands earlier in the log.
        """
        totals = np.zeros(len(probes), dtype=np.int64)
        nearest: list[list[Candidate]] = [[] for _ in range(len(probes))]
        places: list[Delta | Segment] = [self.delta, *self.segments]
        for place in places:
            hits = place.search(probes, offsets, threshold)
            standing = place.offsets_of(hits.rows)
            totals += np.bincount(hits.probes, minlength=len(probes))
            kept = nearest_of_each(hits.probes, hits.distances, standing, limit)
            members = place.members(hits.rows[kept])
            found = zip(members, hits.distances[kept].tolist(), standing[kept].tolist(), strict=True)
            for probe, candidate in zip(hits.probes[kept], map(Candidate._make, found), strict=True):
                nearest[probe].append(candidate)
        for candidates in nearest:
            candidates.sort(key=lambda candidate: (candidate.distance, candidate.offset))
        return [
            CandidateList(int(total), candidates[:limit]) for total, candidates in zip(totals, nearest, strict=True)
        ]
