"""Whatever `duplicates` says, after an audit it says what comparing all with all says."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pytest
from pydantic import SecretStr

from schemas.envelope import Message, Readable, StoredRecord, decode, encode
from schemas.erased import NOBODY, Erased, Erasure, ErasureKey
from schemas.events.base import Member, individual_of
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, IndividualChecked, RetractionReason
from schemas.shard import Shard
from schemas.thresholds import ThresholdFor
from streams.compaction.audit import REASONS, AuditInput, Corrections, RequiredPairs, compare, required_pairs
from streams.compaction.census import Census, Fold
from streams.compaction.findings import Findings
from streams.gallery.build import build_segment
from streams.gallery.exact import VectorRows
from streams.gallery.gallery import Gallery
from streams.gallery.id_table import IdTable, falling_to
from streams.matching.match import Rules, match, restore
from tests import oracle
from tests.encodings import EncodingEvent, crowd, twins
from tests.records import stored
from tests.unit.test_match import log_of

THRESHOLD, LIMIT = 0.45, 1000
ALL = 10**9
TICK, EPOCH, NOW = timedelta(microseconds=1), datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
Pairs = dict[tuple[str, int, str, int], float]


@pytest.fixture(scope="module")
def events() -> list[EncodingEvent]:
    return crowd(1500, seed=1)


def published(
    events: list[EncodingEvent],
    threshold: float | ThresholdFor = THRESHOLD,
    limit: int = LIMIT,
    shard: Shard = Shard(),
) -> list[StoredRecord]:
    """What a matcher publishes that retracts nothing, with offsets."""
    gallery, log, records = Gallery(shard), log_of(events), []
    rules = Rules((lambda *_: threshold) if isinstance(threshold, float) else threshold, limit)
    for begin in range(0, len(log), 50):
        records += match(gallery, log[begin : begin + 50], rules).publish
    kept = [record for record in records if not isinstance(decode(record).event, DuplicateRetracted)]
    return [stored(record, 3 * number) for number, record in enumerate(kept)]


def matched(events: list[EncodingEvent], threshold: float | ThresholdFor, limit: int = LIMIT) -> list[StoredRecord]:
    """The same, of pairs alone."""
    records = published(events, threshold, limit)
    return [record for record in records if not isinstance(decode(record).event, IndividualChecked)]


def census_of(events: list[EncodingEvent]) -> Census:
    fold = Fold()
    fold.add(log_of(events))
    (census,) = fold.collections()
    return census


def audited(
    census: Census,
    records: list[StoredRecord],
    shard: Shard = Shard(),
    threshold: float = THRESHOLD,
    limit: int = LIMIT,
    matched: int = ALL,
    changed: IdTable | None = None,
    erased: Erased = NOBODY,
) -> tuple[VectorRows, Corrections]:
    findings = Findings(shard=shard, erased=erased)
    for begin in range(0, len(records), 100):
        findings.add(records[begin : begin + 100])
    rows = census.living("test")
    ours = np.flatnonzero(falling_to(shard, census.id_table.hashes[census.positions("test")]))
    segment = build_segment(rows.chosen(ours), threshold, 0.999, 1)
    must = required_pairs(segment, ours, rows, threshold, limit, lambda _: None)
    said = findings.statements("c", "test"), findings.checked("c", "test")
    changed = IdTable.empty() if changed is None else changed
    return rows, compare(AuditInput(census, "test", rows, must, *said, threshold, matched, changed, shard))


class Word(NamedTuple):
    """What is said of a pair, smaller id first; retracted where there is no distance."""

    pair: tuple[str, int, str, int]
    time: datetime
    distance: float | None


def words(records: list[StoredRecord]) -> list[Word]:
    found = []
    for record in records:
        message = decode(record)
        event = message.event
        assert isinstance(event, DuplicateFound | DuplicateRetracted)
        pair = (event.a.individual_id, event.a.revision, event.b.individual_id, event.b.revision)
        distance = event.distance if isinstance(event, DuplicateFound) else None
        found.append(Word(pair, message.time, distance))
    return found


def seen(said: list[Word]) -> Pairs:
    """What one ends with who keeps the last record of each pair; Postgres, which keeps the highest version, agrees."""
    last = {(word.pair[0], word.pair[2]): word for word in said}
    shown: dict[tuple[str, str], Word] = {}
    for word in said:
        before = shown.setdefault((word.pair[0], word.pair[2]), word)
        if version(word) > version(before):
            shown[word.pair[0], word.pair[2]] = word
    kept, current = (
        {word.pair: word.distance for word in view.values() if word.distance is not None} for view in (last, shown)
    )
    assert kept == current
    return kept


def version(word: Word) -> tuple[int, datetime]:
    return word.pair[1] + word.pair[3], word.time


def said(records: list[StoredRecord]) -> Pairs:
    return seen(words(records))


def pairs_in(rows: VectorRows, judged: Corrections) -> Pairs:
    pairs = {}
    for code, distance in zip(judged.found.tolist(), judged.distances.tolist(), strict=True):
        one, other = divmod(code, len(rows.ids))
        a, b = sorted((rows.ids[row], int(rows.revisions[row])) for row in (one, other))
        pairs[*a, *b] = distance
    return pairs


def after(records: list[StoredRecord], *audits: tuple[VectorRows, Corrections]) -> Pairs:
    """What `duplicates` says once a difference is published."""
    said = words(records)
    by_offset = {record.offset: word for record, word in zip(records, said, strict=True)}
    gone = [offset for _, judged in audits for offset in judged.retracted.tolist()]
    assert len(set(gone)) == len(gone)
    for offset in gone:
        assert by_offset[offset].distance is not None
        said.append(Word(by_offset[offset].pair, max(NOW, by_offset[offset].time + TICK), None))
    for rows, judged in audits:
        for (pair, distance), time in zip(pairs_in(rows, judged).items(), judged.after.tolist(), strict=True):
            said.append(Word(pair, max(NOW, EPOCH + (time + 1) * TICK), distance))
    return seen(said)


def true(events: list[EncodingEvent], threshold: float = THRESHOLD) -> Pairs:
    pairs = oracle.pairs(oracle.living(events).values(), threshold)
    return {(pair.a, pair.revision_a, pair.b, pair.revision_b): distance for pair, distance in pairs.items()}


@pytest.mark.parametrize("steps", [(0.6, 0.5, 0.45, 0.3), (0.45, 0.6)])
def test_after_the_threshold_has_moved_in_steps_the_pairs_are_those_of_the_last(
    events: list[EncodingEvent], steps: tuple[float, ...]
) -> None:
    """A step inwards takes pairs away, by reason `threshold`; one outwards (people were erased) brings some."""

    def threshold_for(_collection: str, _encoder: str, living: int) -> float:
        return steps[min(living // 250, len(steps) - 1)]

    census = census_of(events)
    gallery = Gallery()
    restore(gallery, log_of(events))
    assert census.people == gallery.collections["c"].living == len(oracle.living(events))
    now = threshold_for("c", "test", census.people)
    records = matched(events, threshold_for)
    before, result = said(records), audited(census, records, threshold=now)
    expected = true(events, now)
    assert_same(after(records, result), expected)
    judged = result[1]
    reasons = Counter(REASONS[reason] for reason in judged.reasons.tolist())
    if now < max(steps):
        assert reasons[RetractionReason.THRESHOLD] >= len(
            [pair for pair, distance in before.items() if distance > now and pair in true(events, max(steps))]
        )
        assert reasons[RetractionReason.THRESHOLD] > 10
    else:
        assert len(judged.found) > 10
    again = audited(census, records, threshold=now)
    assert again[1].retracted.tolist() == judged.retracted.tolist(), "cut off and run again, it retracts the same"


def assert_same(found: Pairs, expected: Pairs) -> None:
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(distance, abs=1e-9) for pair, distance in expected.items())


@pytest.mark.parametrize("at_the_time", [0.45, 0.40, 0.50])
@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_missed_is_found_and_what_does_not_hold_retracted(
    events: list[EncodingEvent], at_the_time: float, shards: int
) -> None:
    random = np.random.default_rng(1)
    records = [record for record in matched(events, at_the_time) if random.random() > 0.1]  # some are lost
    expected = true(events)
    assert said(records).keys() != expected.keys()
    census = census_of(events)
    audits = [audited(census, records, Shard(number, shards)) for number in range(1, shards + 1)]
    assert_same(after(records, *audits), expected)
    kept, found = (sum(counts) for counts in zip(*((one.kept, len(one.found)) for _, one in audits), strict=True))
    assert kept == len(said(records).keys() & expected.keys()) > 100
    assert kept + found == len(expected)


def test_each_retraction_has_its_reason(events: list[EncodingEvent]) -> None:
    records = matched(events, 0.5)
    _, judged = audited(census_of(events), records)
    latest = oracle.latest(events)
    reasons: Counter[RetractionReason] = Counter()
    by_offset = {record.offset: decode(record).event for record in records}
    for offset, place in zip(judged.retracted.tolist(), judged.reasons.tolist(), strict=True):
        event = by_offset[offset]
        assert isinstance(event, DuplicateFound)
        now = [latest[f"c/{member.individual_id}"] for member in (event.a, event.b)]
        if any(isinstance(one, EncodingErased) for one in now):
            expected = RetractionReason.ERASED
        elif [one.revision for one in now] != [event.a.revision, event.b.revision]:
            expected = RetractionReason.UPDATED
        else:
            assert event.distance > THRESHOLD
            expected = RetractionReason.THRESHOLD
        assert REASONS[place] is expected
        reasons[expected] += 1
    assert all(reasons[reason] > 5 for reason in RetractionReason)


def test_a_pair_of_someone_whose_tombstone_kafka_dropped_is_retracted(events: list[EncodingEvent]) -> None:
    gone = {event.key for event in events if isinstance(event, EncodingErased)}
    left = [event for event in events if event.key not in gone]
    records = matched(events, THRESHOLD)
    assert_same(after(records, audited(census_of(left), records, erased=registry_of(gone))), true(left))


def registry_of(gone: set[str]) -> Erased:
    """The registry that has these individuals of collection c as erased at every revision, by their keys."""
    key = ErasureKey(SecretStr("k" * 32))
    digests = {key.digest(*individual_of(one)): Erasure(10**6, NOW) for one in gone}
    return Erased(key, digests)


def test_nobody_is_called_erased_who_never_was_though_the_log_has_nothing_of_them(events: list[EncodingEvent]) -> None:
    """A foreign record took the place of theirs, say: the pair stays, and is counted."""
    gone = {event.key for event in events if isinstance(event, EncodingErased)}
    records, expected = matched(events, THRESHOLD), true(events)
    came = Counter(event.individual_id for event in events)
    a, b = next((a, b) for a, _, b, _ in expected if came[a] == 1)
    left = [event for event in events if event.key not in gone | {f"c/{a}"}]
    rows, judged = audited(census_of(left), records, erased=registry_of(gone))
    assert_same(after(records, (rows, judged)), expected)
    assert judged.unknown == sum(a in (pair[0], pair[2]) for pair in expected) > 0
    updated = [event for event in left if event.individual_id != b] + [moved(events, b)]
    _, judged = audited(census_of(updated), records, erased=registry_of(gone))
    assert judged.unknown == sum(a in (pair[0], pair[2]) and b not in (pair[0], pair[2]) for pair in expected)


def moved(events: list[EncodingEvent], who: str) -> EncodingEvent:
    """An update of somebody, whose pairs hold no longer whatever became of the others."""
    latest = oracle.latest(events)[f"c/{who}"]
    assert isinstance(latest, EncodingComputed)
    return latest.model_copy(update={"revision": latest.revision + 1})


def test_what_the_matcher_has_not_reached_is_its_business(events: list[EncodingEvent]) -> None:
    records = matched(events[:1000], THRESHOLD)
    census = census_of(events)
    rows, judged = audited(census, records, matched=1000)
    assert len(judged.found) == 0
    assert judged.kept > 100
    rows, judged = audited(census, records, matched=1200)
    later = {rows.ids[row] for row in np.flatnonzero(rows.offsets >= 1200)}
    found = pairs_in(rows, judged)
    assert len(found) > 20
    assert not any(a in later or b in later for a, _, b, _ in found)


def test_of_whom_changed_since_nothing_is_published(events: list[EncodingEvent]) -> None:
    """Not retracted, not found: neither who came, nor who was updated or erased between the census and now."""
    records = matched(events, THRESHOLD)
    census, since = census_of(events[:1000]), census_of(events[1000:]).id_table
    _, judged = audited(census, records, changed=since)
    changed = {event.individual_id for event in events[1000:]}
    touched = {record.offset for record in records if _members(record) & changed}
    assert touched.isdisjoint(judged.retracted.tolist())
    assert len(touched) > 50
    assert len(judged.found) == 0
    assert len(judged.retracted) > 10
    _, careless = audited(census, records)
    assert careless.unknown > judged.unknown == 0  # it has nothing of newcomers, and takes them for lost


@pytest.mark.parametrize("gap", [0, 1, -1])
def test_where_the_last_word_and_the_one_that_counts_differ_both_are_put_right(
    events: list[EncodingEvent], gap: int
) -> None:
    """Retractions by clocks that are ahead, behind, or late: Kafka keeps one, Postgres shows another."""
    records = matched(events, 0.5)
    last = {record.key: record for record in records}
    mixed: list[Readable] = list(records)
    for number, record in enumerate(last.values()):
        message = decode(record)
        found = message.event
        assert isinstance(found, DuplicateFound)
        sides = {"a": found.a, "b": found.b}
        if number % 3 == 0 and gap < 0:  # of lower revisions
            sides["a"] = Member(individual_id=found.a.individual_id, revision=1)
        retracted = DuplicateRetracted(
            collection="c", encoder="test", **sides, reason=RetractionReason.UPDATED, distance=found.distance
        )
        mixed.append(encode(Message(retracted, f"r{number}", message.time + timedelta(days=300 * gap), "t")))
        if number % 2:
            mixed.append(record)
    log = [stored(record, 3 * number) for number, record in enumerate(mixed)]
    assert_same(after(log, audited(census_of(events), log)), true(events))


def test_a_finding_with_a_wrong_distance_is_published_again(events: list[EncodingEvent]) -> None:
    records = matched(events, THRESHOLD)
    findings = [decode(record).event for record in records]
    wrong = next(at for at, one in enumerate(findings) if said(records[at : at + 1]).keys() <= true(events).keys())
    assert isinstance(findings[wrong], DuplicateFound)
    value = (records[wrong].value or b"").replace(b'"distance":0.', b'"distance":0.0')
    records[wrong] = replace(records[wrong], value=value)
    rows, judged = audited(census_of(events), records)
    assert pairs_in(rows, judged).keys() == said([records[wrong]]).keys()
    assert_same(after(records, (rows, judged)), true(events))


def test_what_is_found_comes_after_what_was_published_of_the_pair(events: list[EncodingEvent]) -> None:
    records = matched(events, THRESHOLD)
    findings = Findings()
    findings.add(records)
    times = set(findings.statements("c", "test").current.times.tolist())
    _, judged = audited(census_of(events), records, threshold=0.5)
    assert set(judged.after.tolist()) <= {0, *times}
    assert (judged.after == 0).any()


@pytest.mark.parametrize("limit", [1, 3])
def test_of_each_newcomer_the_nearest_are_required(events: list[EncodingEvent], limit: int) -> None:
    """Those that the matcher publishes; and what it published beyond, under another limit, is true and stays."""
    everyone = list(oracle.living(events).values())[:200]
    alike = [*everyone, *twins(everyone, "x"), *twins(everyone, "y"), *twins(everyone, "z")]
    capped, census, expected = matched(alike, THRESHOLD, limit), census_of(alike), true(alike)
    rows, judged = audited(census, [], limit=limit)
    assert_same(pairs_in(rows, judged), said(capped))
    assert len(capped) < len(expected) - 100
    _, again = audited(census, matched(alike, THRESHOLD), limit=limit)
    assert (again.kept, len(again.found), len(again.retracted)) == (len(expected), 0, 0)


@pytest.mark.parametrize("shard", [Shard(), Shard(2, 3)])
def test_individuals_without_a_check_are_known(events: list[EncodingEvent], shard: Shard) -> None:
    records = published(events, shard=shard)
    census, since = census_of(events[:1400]), census_of(events[1400:]).id_table
    assert unchecked(census, records, shard, since) == set()
    lost = [at for at, record in enumerate(records) if isinstance(decode(record).event, IndividualChecked)][:300:3]
    left = [record for at, record in enumerate(records) if at not in lost]
    others = published(events[:700], shard=Shard(1, 3))  # another shard's word does not count
    last = {key_of(record): at for at, record in enumerate(records)}
    changed = {event.individual_id for event in events[1400:]}
    expected = {key_of(records[at]) for at in lost if last[key_of(records[at])] == at} - changed
    living = {event.individual_id for event in oracle.living(events[:1400]).values()}
    assert unchecked(census, [*left, *others], shard, since) == expected & living
    assert len(expected & living) > 50


def key_of(record: StoredRecord) -> str:
    return (record.key or b"").decode().rpartition("/")[2]


def unchecked(census: Census, records: list[StoredRecord], shard: Shard, changed: IdTable) -> set[str]:
    rows, judged = audited(census, records, shard, changed=changed)
    return {rows.ids[row] for row in judged.unchecked.tolist()}


def test_how_many_each_has_a_pair_with_is_what_the_matcher_says(events: list[EncodingEvent]) -> None:
    everyone = list(oracle.living(events).values())
    alike = [*everyone, *twins(everyone[:200], "x")]
    census = census_of(alike)
    rows = census.living("test")
    segment = build_segment(rows, THRESHOLD, 0.999, 1)
    totals = required_pairs(segment, np.arange(len(rows.ids)), rows, THRESHOLD, 1, lambda _: None).totals
    said = {
        event.individual_id: event.duplicates
        for event in (decode(record).event for record in published(alike, limit=1))
        if isinstance(event, IndividualChecked)
    }
    assert dict(zip(rows.ids, totals.tolist(), strict=True)) == said
    assert max(said.values()) > 1


def test_of_nobody_nothing_is_required_and_all_is_retracted(events: list[EncodingEvent]) -> None:
    """An encoder that nobody's latest embedding is of any more."""
    records = matched(events, THRESHOLD)
    moved = [
        event.model_copy(update={"encoder": "newer"}) if isinstance(event, EncodingComputed) else event
        for event in oracle.latest(events).values()
    ]
    census = census_of([*events, *moved])
    findings = Findings()
    findings.add(records)
    rows = census.living("test")
    assert rows.ids == []
    said = findings.statements("c", "test"), findings.checked("c", "test")
    judged = compare(AuditInput(census, "test", rows, RequiredPairs.nothing(0), *said, THRESHOLD, ALL, IdTable.empty()))
    assert after(records, (rows, judged)) == {}
    assert judged.kept == 0


def _members(record: StoredRecord) -> set[str]:
    event = decode(record).event
    assert isinstance(event, DuplicateFound)
    return {event.a.individual_id, event.b.individual_id}
