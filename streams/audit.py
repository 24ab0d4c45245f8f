"""Which pairs must hold, and what of that `duplicates` does not say, or says although it does not hold. Pure.

A pair is one int64, row · people + row of the living of an encoder in a collection, the smaller row first.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events import RetractionReason
from schemas.shard import Shard
from streams.delta import Rows, exact_distances
from streams.findings import Words
from streams.fold import ERASED, Census, falling_to
from streams.roster import Roster
from streams.segment import Segment, search_index

_FIRST_PROBES, _MOST_PROBES, _HITS_AT_ONCE = 256, 2048, 2_000_000
_MEASURED_AT_ONCE = 65_536
_SAME = 1e-6
REASONS = tuple(RetractionReason)


class Due(NamedTuple):
    """Pairs that must hold, (n,) of each: codes, ascending, and exact distances.

    `totals`, (people,) int64: with how many before it each row has a pair, more than are due where it has too many.
    """

    codes: NDArray[np.int64]
    distances: NDArray[np.float64]
    totals: NDArray[np.int64]

    @classmethod
    def nothing(cls, people: int) -> "Due":
        """No pair of so many people."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float64), np.zeros(people, np.int64))


def due(
    segment: Segment, ours: NDArray[np.int64], rows: Rows, threshold: float, limit: int, progress: Callable[[int], None]
) -> Due:
    """All pairs of `rows` within the threshold whose earlier member is in the segment, as the index finds them.

    `ours` are the positions in `rows` of the segment's rows, in the segment's order. Of each newcomer those who stand
    before it in the log, the nearest `limit` of them, as the matcher has them published. `progress` is told how many
    of the rows have been compared.
    """
    people = len(rows.ids)
    first = ours[segment.bearers.rows[segment.bearers.begins[:-1]]]  # of each node a row that has its vector
    most_alike = int(np.diff(segment.bearers.begins).max())
    codes, distances, totals = [np.empty(0, np.int64)], [np.empty(0, np.float64)], np.zeros(people, np.int64)
    begin, count = 0, _FIRST_PROBES
    while begin < people:
        count = max(1, min(count, _HITS_AT_ONCE // most_alike))
        probes = rows.vectors[begin : begin + count]
        of_nodes = search_index(segment.index, probes, threshold, lambda nodes: rows.vectors[first[nodes]])
        at, found, apart = segment.bearers.hits(of_nodes)
        at, found = at + begin, ours[found]
        earlier = rows.offsets[found] < rows.offsets[at]
        at, found, apart = at[earlier], found[earlier], apart[earlier]
        np.add.at(totals, at, 1)
        order = np.lexsort((rows.offsets[found], apart, at))
        nearest = order[np.arange(len(order)) - np.searchsorted(at[order], at[order]) < limit]
        codes.append(np.minimum(at, found)[nearest] * people + np.maximum(at, found)[nearest])
        distances.append(apart[nearest])
        begin += len(probes)
        progress(begin)
        count = count // 2 if len(earlier) > _HITS_AT_ONCE // 2 else min(2 * count, _MOST_PROBES)
    pairs, measured = np.concatenate(codes), np.concatenate(distances)
    order = np.argsort(pairs)
    return Due(pairs[order], measured[order], totals)


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
    rows: Rows,
    due: Due,
    words: Words,
    checked: Roster,
    threshold: float,
    matched: int,
    changed: Roster,
    shard: Shard = Shard(),
) -> Difference:
    """Judge pairs whose members have not changed since the census.

    `rows` are those of the census living by the encoder. `words` is what was said up to a moment; everyone below offset
    `matched` had been compared by then: what is missing of others is the matcher's business. Whoever is in `changed`,
    changed between the census and that moment, or later. Of several shards each judges what is known of those pairs
    whose first member falls to it.
    """
    known, people = words.counts, len(rows.ids)
    row_of = np.full(len(census.ids) + 1, -1)  # the last one: of who is not in the census
    row_of[rows.numbers] = np.arange(people)
    at = np.stack([census.roster.find(known.a), census.roster.find(known.b)])  # (2, n)
    revisions = np.stack([known.revisions_a, known.revisions_b])
    now = np.where(at >= 0, np.append(census.roster.revisions, 0)[at], revisions)
    encoders = np.where(at >= 0, np.append(census.encoders, ERASED)[at], ERASED)
    # Of a revision that the census does not know yet, or no more.
    ours = ~((changed.find(known.a) >= 0) | (changed.find(known.b) >= 0) | (revisions > now).any(axis=0))
    erased = (encoders == ERASED).any(axis=0)
    stands = ((encoders == census.code_of(encoder)) & (revisions == now)).all(axis=0)
    members = row_of[at]
    codes = np.where((members >= 0).all(axis=0), members.min(axis=0) * people + members.max(axis=0), -1)
    distances = np.full(len(codes), np.inf)
    standing = np.flatnonzero(stands)
    for begin in range(0, len(standing), _MEASURED_AT_ONCE):
        some = standing[begin : begin + _MEASURED_AT_ONCE]
        distances[some] = exact_distances(rows.vectors[members[0, some]], rows.vectors[members[1, some]])
    near = stands & (distances <= threshold)
    said = ours & (known.holds | words.last.holds)
    right = near & (words.last.revisions_a == known.revisions_a) & (words.last.revisions_b == known.revisions_b)
    for one in words:
        right &= one.holds & (np.abs(distances - np.nan_to_num(one.distances)) <= _SAME)
    mine = ours & falling_to(shard, known.a)
    wrong = mine & said & near & ~right  # at another distance, or by one of the words alone

    later = np.maximum(rows.offsets[due.codes // max(people, 1)], rows.offsets[due.codes % max(people, 1)])
    touched = np.zeros(people, dtype=np.bool_)
    touched[changed.find(census.roster.hashes[rows.numbers]) >= 0] = True
    open_to_all = ~(touched[due.codes // max(people, 1)] | touched[due.codes % max(people, 1)])
    missing = (later < matched) & open_to_all & ~np.isin(due.codes, codes[right])
    wrong &= ~np.isin(codes, due.codes[missing])
    found = np.concatenate([due.codes[missing], codes[wrong]])
    apart = np.concatenate([due.distances[missing], distances[wrong]])

    check = checked.find(census.roster.hashes[rows.numbers])
    unchecked = np.append(checked.revisions, 0)[check] < rows.revisions  # the last one: of who was never checked
    unchecked &= ~touched & (rows.offsets < matched)

    gone = mine & said & ~near & ~np.isin(codes, due.codes)
    standing_at = np.where(known.holds, known.offsets, words.last.offsets)
    reasons = np.select([erased, ~stands], [_place(RetractionReason.ERASED), _place(RetractionReason.UPDATED)],
                        _place(RetractionReason.THRESHOLD))  # fmt: skip
    retracted = np.flatnonzero(gone)
    retracted = retracted[np.argsort(standing_at[retracted])]
    return Difference(
        int((mine & right).sum()),
        found,
        apart,
        _times_of(found, codes, known.times),
        np.flatnonzero(unchecked),
        standing_at[retracted],
        reasons[retracted],
    )


def _place(reason: RetractionReason) -> int:
    return REASONS.index(reason)


def _times_of(found: NDArray[np.int64], codes: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each pair found the time of what was last said of it, 0 where nothing was."""
    order = np.argsort(codes)
    at = np.minimum(np.searchsorted(codes[order], found), max(len(codes) - 1, 0))
    if not len(codes):
        return np.zeros(len(found), np.int64)
    return np.where(codes[order][at] == found, times[order][at], 0)
