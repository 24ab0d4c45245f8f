"""Which pairs must hold, and what of that `duplicates` does not say, or says although it does not hold. Pure.

A pair is one int64, row · people + row of the living of an encoder in a collection, the smaller row first.
"""

from collections.abc import Callable
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

_FIRST_PROBES, _MOST_PROBES, _HITS_AT_ONCE = 256, 2048, 2_000_000
_MEASURED_AT_ONCE = 65_536
_SAME = 1e-6
REASONS = tuple(RetractionReason)
_IN_ORDER = RetractionReason.ERASED, RetractionReason.UPDATED, RetractionReason.THRESHOLD


class RequiredPairs(NamedTuple):
    """Pairs that must hold, (n,) of each: codes, ascending, and exact distances.

    `totals`, (people,) int64: with how many before it each row has a pair, more than are due where it has too many.
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]
    totals: NDArray[np.int64]

    @classmethod
    def nothing(cls, people: int) -> "RequiredPairs":
        """No pair of so many people."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float64), np.zeros(people, np.int64))


def due(
    segment: Segment,
    ours: NDArray[np.int64],
    rows: VectorRows,
    threshold: float,
    limit: int,
    progress: Callable[[int], None],
) -> RequiredPairs:
    """All pairs of `rows` within the threshold whose earlier member is in the segment, as the index finds them.

    `ours` are the positions in `rows` of the segment's rows, in the segment's order. Of each newcomer those who stand
    before it in the log, the nearest `limit` of them, as the matcher has them published. `progress` is told how many
    of the rows have been compared.
    """
    people = len(rows.ids)
    first = ours[segment.shared.rows[segment.shared.begins[:-1]]]  # of each node a row that has its vector
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


class Difference(NamedTuple):
    """What is to be said.

    `found`: pairs, their `distances`, and `after` which times (microseconds since 1970) that must be, 0 for any.
    `unchecked`: rows of which nobody said that they were compared with all before.
    `retracted`: where in `duplicates` those stand that no longer hold, ascending, with places in `REASONS`. `kept`: how
    many are known and hold.
    """

    kept: int
    found: NDArray[np.int64]
    distances: NDArray[np.float64]
    after: NDArray[np.int64]
    unchecked: NDArray[np.int64]
    retracted: NDArray[np.int64]
    reasons: NDArray[np.int64]


def difference(
    census: Census,
    encoder: str,
    rows: VectorRows,
    due: RequiredPairs,
    words: Statements,
    checked: IdTable,
    threshold: float,
    matched: int,
    changed: IdTable,
    shard: Shard = Shard(),
) -> Difference:
    """Judge pairs whose members have not changed since the census.

    `rows` are those of the census living by the encoder. `words` is what was said up to a moment; everyone below offset
    `matched` had been compared by then: what is missing of others is the matcher's business. Whoever is in `changed`,
    changed between the census and that moment, or later. Of several shards each judges what is known of those pairs
    whose first member falls to it.
    """
    judged = _judged(census, encoder, rows, words, threshold, changed)
    mine = judged.is_ours & falling_to(shard, words.counts.a)
    hashes = census.id_table.hashes[rows.numbers]
    is_open = (changed.find(hashes) < 0) & (rows.offsets < matched)

    sides = np.stack(np.divmod(due.codes, max(len(rows.ids), 1)))
    missing = is_open[sides].all(axis=0) & ~np.isin(due.codes, judged.codes[judged.is_right])
    wrong = mine & judged.is_said & judged.is_near & ~judged.is_right & ~np.isin(judged.codes, due.codes[missing])
    found = np.concatenate([due.codes[missing], judged.codes[wrong]])
    unchecked = np.append(checked.revisions, 0)[checked.find(hashes)] < rows.revisions  # the last: of who never was

    gone = np.flatnonzero(mine & judged.is_said & ~judged.is_near & ~np.isin(judged.codes, due.codes))
    standing_at = np.where(words.counts.holds, words.counts.offsets, words.last.offsets)
    gone = gone[np.argsort(standing_at[gone])]
    return Difference(
        kept=int((mine & judged.is_right).sum()),
        found=found,
        distances=np.concatenate([due.distances[missing], judged.distances[wrong]]),
        after=_times_of(found, judged.codes, words.counts.times),
        unchecked=np.flatnonzero(unchecked & is_open),
        retracted=standing_at[gone],
        reasons=judged.reasons[gone],
    )


class _Judged(NamedTuple):
    """Of each pair that anything is known of, (n,) of each.

    `codes` is -1 where not both live by the encoder. Is it a matter for a compaction, does any word say that it holds,
    is it within the threshold at the revisions that it is known of, and do both words say just that?
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]
    reasons: NDArray[np.int64]
    is_ours: NDArray[np.bool_]
    is_said: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
    is_right: NDArray[np.bool_]


def _judged(
    census: Census, encoder: str, rows: VectorRows, words: Statements, threshold: float, changed: IdTable
) -> _Judged:
    known, last = words
    at = np.stack([census.id_table.find(known.a), census.id_table.find(known.b)])  # (2, n), -1 of who is not in it
    revisions = np.stack([known.revisions_a, known.revisions_b])
    now = np.where(at >= 0, np.append(census.id_table.revisions, 0)[at], revisions)
    encoders = np.where(at >= 0, np.append(census.encoders, ERASED)[at], ERASED)
    stands = ((encoders == census.code_of(encoder)) & (revisions == now)).all(axis=0)
    row_of = np.full(len(census.ids) + 1, -1)
    row_of[rows.numbers] = np.arange(len(rows.ids))
    members = row_of[at]
    codes = np.where((members >= 0).all(axis=0), members.min(axis=0) * len(rows.ids) + members.max(axis=0), -1)
    distances = np.full(len(codes), np.inf)
    standing = np.flatnonzero(stands)
    for begin in range(0, len(standing), _MEASURED_AT_ONCE):
        some = standing[begin : begin + _MEASURED_AT_ONCE]
        distances[some] = exact_distances(rows.vectors[members[0, some]], rows.vectors[members[1, some]])
    is_near = distances <= threshold
    is_right = is_near & (last.revisions_a == known.revisions_a) & (last.revisions_b == known.revisions_b)
    for word in words:
        is_right &= word.holds & (np.abs(distances - np.nan_to_num(word.distances)) <= _SAME)
    is_touched = (changed.find(known.a) >= 0) | (changed.find(known.b) >= 0)
    is_erased = (encoders == ERASED).any(axis=0)
    erased, updated, beyond = (REASONS.index(reason) for reason in _IN_ORDER)
    return _Judged(
        codes,
        distances,
        reasons=np.select([is_erased, ~stands], [erased, updated], beyond),
        is_ours=~is_touched & (revisions <= now).all(axis=0),  # the census may not know of a higher one
        is_said=known.holds | last.holds,
        is_near=is_near,
        is_right=is_right,
    )


def _times_of(found: NDArray[np.int64], codes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each pair found the time of what was last said of it, 0 where nothing was."""
    if not len(codes):
        return np.zeros(len(found), np.int64)
    order = np.argsort(codes)
    at = order[np.minimum(np.searchsorted(codes[order], found), len(codes) - 1)]
    return np.where(codes[at] == found, times[at], 0)
