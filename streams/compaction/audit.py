"""Compares the pairs that must hold with those that `duplicates` states: which to publish, which to retract. Pure.

A pair is coded as one int64: row · people + row, of the living of one encoder in one collection, the smaller row first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events.pairs import RetractionReason
from schemas.shard import Shard
from streams.compaction.census import ERASED, Census
from streams.compaction.findings import Statements
from streams.gallery.exact import VectorRows, exact_distances, nearest_of_each
from streams.gallery.id_table import IdTable, falling_to
from streams.gallery.segment import Segment, search_index

_FIRST_PROBES, _MOST_PROBES = 256, 2048  # searched at once: doubled while they have few hits, halved when many
_HITS_AT_ONCE = 2_000_000  # 24 bytes each: about 50 MB
_MEASURED_NUMBERS = 2**23  # of one side of pairs that are measured at once: 2 x 33 MB of float32
_SAME_DISTANCE = 1e-6  # a distance is computed in float64 of float32 vectors: what differs less is the same
REASONS = tuple(RetractionReason)
_IN_ORDER = RetractionReason.ERASED, RetractionReason.UPDATED, RetractionReason.THRESHOLD


class RequiredPairs(NamedTuple):
    """Pairs that must hold, (n,) of each: codes, ascending, and exact distances.

    `totals`, (people,) int64, is the number of earlier rows that each row has a pair with. It exceeds the number of
    required pairs where that is limited.
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]
    totals: NDArray[np.int64]

    @classmethod
    def nothing(cls, people: int) -> "RequiredPairs":
        """No pair among so many people."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float64), np.zeros(people, np.int64))


def required_pairs(
    segment: Segment,
    ours: NDArray[np.int64],
    rows: VectorRows,
    threshold: float,
    limit: int,
    progress: Callable[[int], None],
) -> RequiredPairs:
    """All pairs of `rows` within the threshold whose earlier member is in the segment, as the index finds them.

    `ours` are the positions in `rows` of the segment's rows, in the segment's order. A row has pairs with the nearest
    `limit` of those before it in the log, as the matcher publishes them. `progress` is called with the number of rows
    that have been compared.
    """
    people = len(rows.ids)
    first = ours[segment.shared.rows[segment.shared.begins[:-1]]]  # for each node, a row with its vector
    most_alike = int(np.diff(segment.shared.begins).max())
    codes, distances, totals = [np.empty(0, np.int64)], [np.empty(0, np.float64)], np.zeros(people, np.int64)
    begin, count = 0, _FIRST_PROBES
    while begin < people:
        count = max(1, min(count, _HITS_AT_ONCE // most_alike))
        probes = rows.vectors[begin : begin + count]
        of_nodes = search_index(segment.index, probes, threshold, lambda nodes: rows.vectors[first[nodes]])
        at, found, apart = segment.shared.hits(of_nodes)
        at, found = at + begin, ours[found]
        earlier = rows.offsets[found] < rows.offsets[at]
        at, found, apart = at[earlier], found[earlier], apart[earlier]
        totals[begin : begin + len(probes)] = np.bincount(at - begin, minlength=len(probes))
        nearest = nearest_of_each(at, apart, rows.offsets[found], limit)
        codes.append(np.minimum(at, found)[nearest] * people + np.maximum(at, found)[nearest])
        distances.append(apart[nearest])
        begin += len(probes)
        progress(begin)
        count = count // 2 if len(earlier) > _HITS_AT_ONCE // 2 else min(2 * count, _MOST_PROBES)
    pairs, measured = np.concatenate(codes), np.concatenate(distances)
    order = np.argsort(pairs)
    return RequiredPairs(pairs[order], measured[order], totals)


@dataclass(frozen=True, slots=True)
class AuditInput:
    """What `compare` goes by, for one encoder in one collection.

    `rows` are those of the census with a vector by the encoder, `required` the pairs among them that must hold.
    `statements` and `checked` are what was published up to a moment; everyone below `matched_offset` of `encodings` had
    been compared by then, so what is missing for others is still to come from the matcher. `changed` are the
    individuals that changed between the census and that moment, or later. Each of several `shard`s judges the published
    pairs whose first member falls to it.
    """

    census: Census
    encoder: str
    rows: VectorRows
    required: RequiredPairs
    statements: Statements
    checked: IdTable
    threshold: float
    matched_offset: int
    changed: IdTable
    shard: Shard = Shard()


class Corrections(NamedTuple):
    """What is to be published.

    `found`: codes of pairs, their `distances`, and `after`: the times (microseconds since 1970) that their ce_time must
    exceed, 0 for any. `unchecked`: rows without a statement that they were compared with everyone before.
    `retracted`: offsets in `duplicates` of the pairs that no longer hold, ascending, with indexes into `REASONS`.
    `kept`: how many published pairs hold; `unknown`: how many stay as they are though the log has nothing of a member.
    """

    kept: int
    unknown: int
    found: NDArray[np.int64]
    distances: NDArray[np.float64]
    after: NDArray[np.int64]
    unchecked: NDArray[np.int64]
    retracted: NDArray[np.int64]
    reasons: NDArray[np.int64]


def compare(audit: AuditInput) -> Corrections:
    """Compare the pairs whose members have not changed since the census."""
    rows, required, current = audit.rows, audit.required, audit.statements.current
    stated = _judge_stated(audit)
    mine = stated.is_ours & falling_to(audit.shard, current.a)
    hashes = audit.census.id_table.hashes[audit.census.positions(audit.encoder)]
    is_open = (audit.changed.find(hashes) < 0) & (rows.offsets < audit.matched_offset)

    sides = np.stack(np.divmod(required.codes, max(len(rows.ids), 1)))
    missing = is_open[sides].all(axis=0) & ~np.isin(required.codes, stated.codes[stated.is_right])
    is_wrong = mine & stated.is_stated & stated.is_near & ~stated.is_right
    wrong = is_wrong & ~np.isin(stated.codes, required.codes[missing])
    found = np.concatenate([required.codes[missing], stated.codes[wrong]])
    checked_revisions = np.append(audit.checked.revisions, 0)  # the last: for rows that were never checked
    is_unchecked = checked_revisions[audit.checked.find(hashes)] < rows.revisions

    gone = np.flatnonzero(mine & stated.is_stated & ~stated.is_near & ~np.isin(stated.codes, required.codes))
    offsets = np.where(current.holds, current.offsets, audit.statements.last_published.offsets)
    gone = gone[np.argsort(offsets[gone])]
    return Corrections(
        kept=int((mine & stated.is_right).sum()),
        unknown=int((stated.is_unknown & stated.is_stated & falling_to(audit.shard, current.a)).sum()),
        found=found,
        distances=np.concatenate([required.distances[missing], stated.distances[wrong]]),
        after=_times_of(found, stated.codes, current.times),
        unchecked=np.flatnonzero(is_unchecked & is_open),
        retracted=offsets[gone],
        reasons=stated.reasons[gone],
    )


class _StatedPairs(NamedTuple):
    """Pairs that anything was published about, (n,) of each.

    `codes`: -1 unless both members live by the encoder. `distances`: exact, infinite unless both have the revisions
    that are stated. `reasons`: indexes into `REASONS`, of why it does not hold, if it does not.
    `is_ours`: neither member changed since the census, and the census has their stated revisions or higher ones, or
    knows them as erased.
    `is_unknown`: neither changed, and the log has nothing of a member though nobody erased them. Nothing is said of
    such a pair: their record was lost, not they.
    `is_stated`: the current or the last published statement says that the pair holds.
    `is_near`: it is within the threshold at the stated revisions.
    `is_right`: it is near, and both statements say so with these revisions and this distance.
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]
    reasons: NDArray[np.int64]
    is_ours: NDArray[np.bool_]
    is_unknown: NDArray[np.bool_]
    is_stated: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
    is_right: NDArray[np.bool_]


def _judge_stated(audit: AuditInput) -> _StatedPairs:
    census = audit.census
    current, last = audit.statements
    at = np.stack([census.id_table.find(current.a), census.id_table.find(current.b)])  # (2, n), -1: not in the census
    revisions = np.stack([current.revisions_a, current.revisions_b])
    now = np.where(at >= 0, np.append(census.id_table.revisions, 0)[at], revisions)
    encoders = np.where(at >= 0, np.append(census.encoders, ERASED)[at], ERASED)
    is_latest = (encoders == census.code_of(audit.encoder)) & (revisions == now)
    is_current = is_latest.all(axis=0)
    codes, distances = _codes_and_distances(audit, at, is_current)
    is_near = distances <= audit.threshold
    is_right = is_near & (last.revisions_a == current.revisions_a) & (last.revisions_b == current.revisions_b)
    for statement in (current, last):
        is_right &= statement.holds & (np.abs(distances - np.nan_to_num(statement.distances)) <= _SAME_DISTANCE)
    is_changed = (audit.changed.find(current.a) >= 0) | (audit.changed.find(current.b) >= 0)
    is_erased = ((at >= 0) & (encoders == ERASED)).any(axis=0) | current.erased
    is_unknown = (at < 0).any(axis=0) & (is_latest | (at < 0)).all(axis=0) & ~is_erased & ~is_changed
    erased, updated, beyond = (REASONS.index(reason) for reason in _IN_ORDER)
    return _StatedPairs(
        codes,
        distances,
        reasons=np.select([is_erased, ~is_current], [erased, updated], beyond),
        is_ours=~is_changed & ~is_unknown & (revisions <= now).all(axis=0),
        is_unknown=is_unknown,
        is_stated=current.holds | last.holds,
        is_near=is_near,
        is_right=is_right,
    )


def _codes_and_distances(
    audit: AuditInput, at: NDArray[np.int64], is_current: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The codes and exact distances of pairs whose members are `at` (2, n) in the census: see `_StatedPairs`."""
    rows = audit.rows
    row_of = np.full(len(audit.census.ids) + 1, -1)
    row_of[audit.census.positions(audit.encoder)] = np.arange(len(rows.ids))
    members = row_of[at]
    codes = np.where((members >= 0).all(axis=0), members.min(axis=0) * len(rows.ids) + members.max(axis=0), -1)
    distances = np.full(len(codes), np.inf)
    current = np.flatnonzero(is_current)
    at_once = _MEASURED_NUMBERS // max(1, rows.vectors.shape[1])
    for begin in range(0, len(current), at_once):
        some = current[begin : begin + at_once]
        distances[some] = exact_distances(rows.vectors[members[0, some]], rows.vectors[members[1, some]])
    return codes, distances


def _times_of(found: NDArray[np.int64], codes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The time of the current statement about each pair found, 0 where there is none."""
    if not len(codes):
        return np.zeros(len(found), np.int64)
    order = np.argsort(codes)
    at = order[np.minimum(np.searchsorted(codes[order], found), len(codes) - 1)]
    return np.where(codes[at] == found, times[at], 0)
