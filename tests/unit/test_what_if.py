"""What-if: the pairs of a part of the log by other settings are those that a matcher would have said."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from schemas.envelope import StoredRecord
from streams.gallery import reach
from streams.gallery.reach import TooManyPairsError
from streams.matching.match import Rules
from streams.matching.what_if import (
    LogSlice,
    PairChange,
    SupposedFinding,
    SupposedOutcome,
    SupposedPair,
    SupposedRun,
    batches,
    changes,
)
from tests import oracle
from tests.encodings import crowd
from tests.unit.test_match import Logged, computed, erased, log_of


def rules(threshold: float, limit: int = 100) -> Rules:
    return Rules(lambda *_: threshold, limit)


def outcome(run: SupposedRun, records: list[StoredRecord], begin: int = 0, most: int = 64) -> SupposedOutcome:
    run.apply(records[:begin])
    for batch in batches(records[begin:], most):
        run.match(batch)
    return run.outcome()


def names(run: SupposedOutcome) -> set[tuple[str, str]]:
    return {(pair.a, pair.b) for pair in run.pairs}


@pytest.mark.parametrize("threshold", [0.45, 0.3])
def test_the_pairs_are_those_of_comparing_all_with_all_at_that_threshold(threshold: float) -> None:
    events = crowd(600, seed=5, collections=("c", "d"))
    truth = oracle.pairs(oracle.living(events).values(), threshold)
    assert len(truth) > 20
    assert set(outcome(SupposedRun(rules(threshold)), log_of(events)).pairs) == oracle.ids(truth)


def test_what_stands_before_the_part_counts_and_is_not_compared_itself() -> None:
    events = crowd(600, seed=6)
    late = {event.individual_id for event in events[400:]}
    truth = oracle.ids(oracle.pairs(oracle.living(events).values(), 0.45))
    found = outcome(SupposedRun(rules(0.45)), log_of(events), begin=400)
    assert {pair for pair in found.pairs if {pair.a, pair.b} & late} == {
        pair for pair in truth if {pair[1], pair[2]} & late
    }
    assert all({pair.a, pair.b} & late for pair in found.pairs)


def test_pairs_gained_and_lost_are_told_apart_the_nearest_first() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 1), computed("c", 1, 3)])  # 0.2, 0.4 and 0.6 apart
    narrow, wide = (outcome(SupposedRun(rules(threshold)), log) for threshold in (0.3, 0.7))
    gained = changes(narrow, wide)
    assert [(one.gained, one.pair.a, one.pair.b) for one in gained] == [(True, "b", "c"), (True, "a", "c")]
    assert [round(one.found.distance, 6) for one in gained] == [0.4, 0.6]
    assert [one._replace(gained=True) for one in changes(wide, narrow)] == gained
    assert not changes(wide, wide)


def test_an_encoder_is_supposed_to_be_the_only_one_and_pairs_are_of_people() -> None:
    log = log_of(
        [
            *(computed(who, 1, place, encoder="old") for who, place in (("a", 0), ("b", 1), ("z", 7))),
            *(computed(who, 1, place, encoder="new") for who, place in (("a", 0), ("b", 7), ("z", 7))),
        ]
    )
    now, then = outcome(SupposedRun(rules(0.3)), log), outcome(SupposedRun(rules(0.3), "old"), log)
    assert (names(now), names(then)) == ({("b", "z")}, {("a", "b")})
    gained, lost = sorted(changes(now, then), reverse=True)
    assert (gained.pair, gained.found.encoder) == (SupposedPair("c", "a", "b"), "old")
    assert (lost.pair, lost.found.encoder) == (SupposedPair("c", "b", "z"), "new")
    assert then.newcomers == {"c": 3}
    unknown = SupposedRun(rules(0.3), "none")
    assert outcome(unknown, log).pairs == {}
    assert not unknown.has_seen_encoder


def test_who_has_more_than_are_published_keeps_the_nearest() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 0), computed("c", 1, 1)])
    few = outcome(SupposedRun(rules(0.3, limit=1)), log)
    assert (names(few), few.truncated, few.newcomers) == ({("a", "b"), ("a", "c")}, {"c": 1}, {"c": 3})


def test_who_is_erased_in_the_part_is_in_no_pair_at_its_end() -> None:
    events: list[Logged] = [computed("a", 1, 0), computed("b", 1, 1), erased("a", 2), computed("b", 2, 1)]
    assert outcome(SupposedRun(rules(0.3)), log_of(events), most=1).pairs == {}
    back: list[Logged] = [*events, computed("a", 3, 0)]
    assert names(outcome(SupposedRun(rules(0.3)), log_of(back), most=1)) == {("a", "b")}


def test_of_what_is_said_of_a_pair_in_one_batch_the_highest_revisions_count() -> None:
    events: list[Logged] = [
        computed("c", 1, 1),
        computed("a", 1, 2),
        computed("a", 1, 2),
        computed("c", 2, 3, encoder="f"),
        computed("c", 3, 1),
        computed("a", 1, 2),
    ]
    run = SupposedRun(rules(0.3))
    run.match(log_of(events))
    assert names(run.outcome()) == {("a", "c")}


def test_a_threshold_that_everyone_is_within_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_MOST_IN_REACH", 5)
    log = log_of([computed(f"p{number:02}", 1, 0) for number in range(30)])
    run = SupposedRun(rules(1.9))
    with pytest.raises(TooManyPairsError, match=r"threshold of 1\.9"):
        outcome(run, log)


def test_a_part_is_cut_out_by_offset_time_and_collection() -> None:
    log = [
        replace(record, timestamp=1000 * number)
        for number, record in enumerate(log_of([computed(f"p{n}", 1, 0, "c" if n % 2 else "cc") for n in range(6)]))
    ]

    def cut(part: LogSlice) -> list[tuple[int, bool]]:
        return [(record.offset, is_in) for record, is_in in part.split(log)]

    def at(second: int) -> datetime:
        return datetime.fromtimestamp(second, UTC)

    assert cut(LogSlice()) == [(n, True) for n in range(6)]
    assert cut(LogSlice("c")) == [(1, True), (3, True), (5, True)]
    assert cut(LogSlice(begin=2, end=4)) == [(0, False), (1, False), (2, True), (3, True)]
    assert cut(LogSlice("c", since=at(2), until=at(5))) == [(1, False), (3, True)]


def test_batches_grow_and_lose_nothing() -> None:
    log = log_of([computed(f"p{number}", 1, 0) for number in range(20)])
    cut = list(batches(log, 4))
    assert [len(batch) for batch in cut] == [1, 2, 4, 4, 4, 4, 1]
    assert [record for batch in cut for record in batch] == log


def test_partitions_are_added_up() -> None:
    both = SupposedOutcome()
    for collection in ("c", "d"):
        pair = {SupposedPair(collection, "a", "b"): SupposedFinding("e", 0.1)}
        both.add(SupposedOutcome(pair, newcomers=type(both.newcomers)({collection: 2})))
    assert (len(both.pairs), both.newcomers) == (2, {"c": 2, "d": 2})
    assert changes(SupposedOutcome(), both)[0] == PairChange(
        True, SupposedPair("c", "a", "b"), SupposedFinding("e", 0.1)
    )
