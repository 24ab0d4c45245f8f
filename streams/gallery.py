"""The state of one partition of `encodings`: the latest revision of each individual. A fold over the log.

Pure: what it holds follows from the records applied, in the order of their offsets, and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from schemas.events import EncodingComputed, EncodingErased, Member
from streams.delta import Delta

EncodingEvent = EncodingComputed | EncodingErased


class Applied(Enum):
    """What applying a record did."""

    NEW = auto()
    """It is now the individual's latest record."""
    AGAIN = auto()
    """It already was: the same record was handed over again."""
    PAST = auto()
    """It once was, and a later record has taken its place."""
    STALE = auto()
    """It came after a record of a higher revision, which stays the latest."""


@dataclass(slots=True)
class Latest:
    """An individual's latest record; `row` is None once erased."""

    revision: int
    offset: int
    scope: "Scope | None" = None
    row: int | None = None


@dataclass(slots=True)
class Scope:
    """What is compared with each other: the embeddings of one encoder in one collection."""

    collection: str
    encoder: str
    delta: Delta = field(default_factory=Delta)
    members: list[Member] = field(default_factory=list)


class Candidate(NamedTuple):
    """Someone registered before who looks like the same person."""

    member: Member
    distance: float


class Gallery:
    """The individuals of one partition. Not thread-safe."""

    def __init__(self) -> None:
        self._latest: dict[str, Latest] = {}
        self._scopes: dict[tuple[str, str], Scope] = {}

    @property
    def living(self) -> int:
        """How many individuals have an embedding."""
        return sum(latest.row is not None for latest in self._latest.values())

    def apply(self, event: EncodingEvent, offset: int) -> Applied:
        """Take in the record at an offset of the log."""
        latest = self._latest.get(event.key)
        if latest is not None:
            if offset <= latest.offset:
                return Applied.AGAIN if offset == latest.offset else Applied.PAST
            if _outranks(latest, event):
                return Applied.STALE
            if latest.scope is not None and latest.row is not None:
                latest.scope.delta.remove(latest.row)
        self._latest[event.key] = self._entry(event, offset)
        return Applied.NEW

    def latest_offset(self, key: str) -> int:
        """Where in the log an individual's latest record stands. Raises KeyError for one never seen."""
        return self._latest[key].offset

    def candidates(self, newcomers: Sequence[EncodingComputed], threshold: float) -> list[list[Candidate]]:
        """For each newcomer those who came before it, are living, and lie within the threshold; nearest first.

        Newcomers have been applied, are the latest of their individuals, and share one collection.
        """
        found: list[list[Candidate]] = [[] for _ in newcomers]
        by_encoder: dict[str, list[int]] = {}
        for position, newcomer in enumerate(newcomers):
            by_encoder.setdefault(newcomer.encoder, []).append(position)
        for encoder, positions in by_encoder.items():
            scope = self._scopes[newcomers[0].collection, encoder]
            rows = [self._latest[newcomers[position].key].row for position in positions]
            probes = np.stack([newcomers[position].embedding for position in positions])
            hits = scope.delta.search(probes, np.array(rows, dtype=np.int64), threshold)
            for probe, row, distance in zip(*hits, strict=True):
                found[positions[probe]].append(Candidate(scope.members[row], float(distance)))
        for candidates in found:
            candidates.sort(key=lambda candidate: (candidate.distance, candidate.member.individual_id))
        return found

    def _entry(self, event: EncodingEvent, offset: int) -> Latest:
        if isinstance(event, EncodingErased):
            return Latest(event.revision, offset)
        scope = self._scopes.setdefault((event.collection, event.encoder), Scope(event.collection, event.encoder))
        row = scope.delta.append(event.embedding)
        scope.members.append(Member(individual_id=event.individual_id, revision=event.revision))
        return Latest(event.revision, offset, scope, row)


def _outranks(latest: Latest, event: EncodingEvent) -> bool:
    """Whether the latest record stays: a higher revision, or an erasure met by an encoding of its revision."""
    erased_already = latest.row is None and isinstance(event, EncodingComputed)
    return latest.revision > event.revision or (latest.revision == event.revision and erased_already)
