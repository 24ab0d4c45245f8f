"""How a gallery holds what it holds (sealed when, put away, packed, divided into shards) changes nothing it says."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import StoredRecord, decode
from schemas.erased import NOBODY, Erased
from schemas.events.encodings import EncodingComputed
from schemas.events.pairs import DuplicateFound, IndividualChecked
from schemas.shard import Shard
from schemas.thresholds import ThresholdFor
from streams.checkpoint.files import pack_absent, pack_rest, pack_segment, unpack_absent, unpack_rest, unpack_segment
from streams.checkpoint.state import ScopeState, State, gallery_of, state_of
from streams.compaction.census import Fold
from streams.gallery.build import build_segment
from streams.gallery.collection import Collection
from streams.gallery.delta import DeltaRows
from streams.gallery.gallery import Applied, Gallery
from streams.gallery.id_table import falling_to
from streams.gallery.segment import Segment
from streams.matching.match import Consequences, Rules, match
from tests.encodings import crowd
from tests.unit.test_match import Logged, computed, erased, log_of, stepped

THRESHOLD = 0.3
NOW = datetime(2026, 2, 1, tzinfo=UTC)
FEW = 3  # findings of one newcomer: often there are more


@dataclass
class Holder:
    """A gallery, what was published so far, and what is about to be sealed."""

    gallery: Gallery = field(default_factory=Gallery)
    limit: int = FEW
    threshold_for: ThresholdFor = lambda *_: THRESHOLD
    published: Consequences = field(default_factory=Consequences)
    offset: int = 0
    under_way: list[tuple[str, str, DeltaRows]] = field(default_factory=list)
    log: dict[int, StoredRecord] = field(default_factory=dict)
    compacted: list[tuple[str, str, Segment]] = field(default_factory=list)

    def match(self, records: list[StoredRecord], erased: Erased = NOBODY, now: datetime = NOW) -> None:
        self.log |= {record.offset: record for record in records}
        rules = Rules(self.threshold_for, self.limit, erased, self.encoding_at, lambda: now)
        one = match(self.gallery, records, rules)
        self.published.publish += one.publish
        self.published.renew += one.renew
        self.offset = max([self.offset, *(record.offset + 1 for record in records)])

    def encoding_at(self, offset: int) -> EncodingComputed | None:
        event = decode(self.log[offset]).event
        assert isinstance(event, EncodingComputed)
        return event

    def begin_to_seal(self) -> None:
        """Take the rows of every scope that has any and is not being sealed."""
        busy = {(collection, encoder) for collection, encoder, _ in self.under_way}
        for collection, encoder, scope in self.gallery.scopes():
            if scope.delta.living and (collection, encoder) not in busy:
                self.under_way.append((collection, encoder, scope.delta.numbered_rows()))

    def adopt(self) -> None:
        for collection, encoder, sealed in self.under_way:
            segment = build_segment(sealed.rows, THRESHOLD, 0.999, 1)
            self.gallery.collections[collection].adopt(encoder, sealed, segment)
        self.under_way = []

    def compact(self) -> None:
        """Build a segment of all that the log has so far, as compaction does in another process."""
        fold = Fold()
        fold.add([self.log[offset] for offset in sorted(self.log)])
        self.compacted = []
        for census in fold.collections():
            for encoder in census.in_use():
                rows = census.living(encoder)
                hashes = census.id_table.hashes[census.positions(encoder)]
                ours = rows.chosen(np.flatnonzero(falling_to(self.gallery.shard, hashes)))
                if ours.ids:
                    self.compacted.append((census.collection, encoder, build_segment(ours, THRESHOLD, 0.999, 1)))

    def take_over(self) -> None:
        """What was compacted; never while something is sealed."""
        if not self.under_way:
            for collection, encoder, segment in self.compacted:
                scopes = self.gallery.collections.setdefault(collection, Collection())
                scopes.adopt_compacted(encoder, segment, datetime.now(UTC))
                assert scopes.scopes[encoder].segments[0] is segment
            self.compacted = []

    def put_away(self) -> None:
        self.gallery.put_away(1)
        self.gallery.drop_empty()

    def tidy(self) -> None:
        """What `Gallery.full` does with deltas most of whose rows are masked; never of what is being sealed."""
        if not self.under_way:
            for living in {scope.delta.living for _, _, scope in self.gallery.scopes()}:
                self.gallery.full(2 * living + 1)

    def pack(self) -> None:
        """Go through a checkpoint, as a process that is started again does."""
        self.under_way = []
        state = packed_and_unpacked(state_of(self.gallery, self.offset))
        self.gallery = gallery_of(state, self.gallery.shard)


def packed_and_unpacked(state: State) -> State:
    with ExitStack() as files:

        def stored(parts: Mapping[str, BinaryIO]) -> Mapping[str, BinaryIO]:
            for file in parts.values():
                files.enter_context(file)
            return parts

        scopes = [
            ScopeState(
                one.collection,
                one.encoder,
                [unpack_segment(stored(pack_segment(segment)), segment.quality) for segment in one.segments],
                unpack_rest(stored(pack_rest(one.rest))),
            )
            for one in state.scopes
        ]
        absent = [(name, unpack_absent(stored(pack_absent(one)))) for name, one in state.absent]
    return State(state.offset, scopes, absent)


COMPACTION = ["compact", "take_over"]
STEPS = st.sampled_from(["match", "match", "begin_to_seal", "adopt", "put_away", "tidy", "pack", "again", *COMPACTION])
EVENTS = st.builds(
    lambda kind, who, revision, point, collection, encoder: (
        erased(who, revision, collection) if kind == 0 else computed(who, revision, point, collection, encoder)
    ),
    st.integers(0, 4),
    st.sampled_from("abcdefgh"),
    st.integers(1, 6),
    st.sampled_from([0, 0, 0, 1, 2, 7]),
    st.sampled_from("ccd"),
    st.sampled_from("eef"),
)
LOGS = st.lists(EVENTS, max_size=40, unique_by=lambda event: (event.key, event.revision)).map(
    lambda logged: logged + logged[::5]  # some are published again, and some of those are stale by then
)


def check_same(one: Holder, other: Holder, logged: list[Logged]) -> None:
    assert one.published.publish == other.published.publish
    assert one.published.renew == other.published.renew
    assert one.gallery.living == other.gallery.living
    assert living_of(one) == living_of(other)
    for event in logged:
        latest = [holder.gallery.collections[event.collection].find(event.individual_id) for holder in (one, other)]
        facts = [found and (found.revision, found.offset, found.erased, found.place is not None) for found in latest]
        assert facts[0] == facts[1]


def living_of(holder: Holder) -> dict[str, int]:
    return {name: collection.living for name, collection in holder.gallery.collections.items() if collection.living}


def go_on(holders: list[Holder], log: list[StoredRecord], begin: int, data: st.DataObject) -> int:
    """One random step of the first holder; all of them match the same batches."""
    step = data.draw(STEPS)
    if step in ("match", "again"):
        if step == "again":
            begin = data.draw(st.integers(0, begin))
        end = data.draw(st.integers(begin, min(len(log), begin + 9)))
        for holder in holders:
            holder.match(log[begin:end])
        return end
    getattr(holders[0], step)()
    return begin


@settings(max_examples=150, deadline=None)
@given(LOGS, st.data())
def test_what_is_published_does_not_depend_on_how_the_gallery_keeps_it(
    logged: list[Logged], data: st.DataObject
) -> None:
    """Sealed in random moments, adopted records later, put away, tidied, packed: always as if nothing ever were."""
    log = log_of(logged)
    holder, plain = Holder(threshold_for=stepped), Holder(threshold_for=stepped)
    at = 0
    for _ in range(data.draw(st.integers(0, 30))):
        at = go_on([holder, plain], log, at, data)
    holder.adopt()
    holder.begin_to_seal()
    for one in (holder, plain):
        one.match(log[at:])
    check_same(holder, plain, logged)
    holder.adopt()
    check_same(holder, plain, logged)
    holder.pack()
    for one in (holder, plain):
        one.match(log)
    check_same(holder, plain, logged)


@pytest.mark.parametrize("sealed_every", [2, 100])
@pytest.mark.parametrize("late", [0, 1, 3])
def test_what_is_compacted_while_matching_goes_on_changes_nothing_that_is_published(
    late: int, sealed_every: int
) -> None:
    """Newcomers, updates and erasures arrive between the end of the log that compaction read and its taking over."""
    logged = crowd(700, seed=1, collections=("c", "d"))
    log = log_of(logged)
    holder, plain = Holder(), Holder()
    for number, begin in enumerate(range(0, len(log), 50)):
        if number % 5 == 0:
            holder.compact()
        for one in (holder, plain):
            one.match(log[begin : begin + 50])
        if number % 5 == late:
            holder.take_over()
            check_same(holder, plain, logged)
        elif number % sealed_every == 1:
            holder.begin_to_seal()
            holder.adopt()
    assert len([event for event in events_of(plain.published) if isinstance(event, DuplicateFound)]) > 40
    check_same(holder, plain, logged)


def test_what_was_sealed_since_compaction_read_the_log_stays_sealed() -> None:
    log = log_of(crowd(900, seed=1))
    holder, plain = Holder(), Holder()
    steps = ((0, 300, "seal"), (300, 450, "compact"), (450, 500, "seal"), (500, 800, "seal"), (800, 850, ""))
    for begin, end, step in steps:
        for one in (holder, plain):
            one.match(log[begin:end])
        if step == "compact":
            holder.compact()
        elif step == "seal":
            holder.begin_to_seal()
            holder.adopt()
    scope = holder.gallery.collections["c"].scopes["test"]
    *_, later = scope.segments
    holder.take_over()
    assert scope.segments[1:] == [later]
    assert 60 < len(scope.delta) < 120  # of what was sealed with what compaction has, what came later
    for one in (holder, plain):
        one.match(log[850:])
    assert holder.published.publish == plain.published.publish
    assert holder.gallery.living == plain.gallery.living


def test_a_segment_of_another_log_brings_nobody_and_hides_nobody() -> None:
    """The topic was made anew, and the same offsets are other people's."""
    other = log_of([*(computed(f"x{i}", 1, 7) for i in range(8))])
    log = log_of([*(computed(f"y{i}", 1, 0) for i in range(8)), computed("z", 1, 0)])
    holder, old = Holder(), Holder()
    old.match(other)
    old.compact()
    holder.match(log[:8])
    holder.compacted = old.compacted
    holder.take_over()
    assert holder.gallery.living == 8
    assert holder.gallery.drop_empty()
    assert not holder.gallery.drop_empty()
    holder.match(log[8:])
    last = events_of(holder.published)[-1]
    assert isinstance(last, IndividualChecked)
    assert (last.individual_id, last.duplicates) == ("z", 8)


@pytest.mark.parametrize(("others", "parts"), [(0, 1), (10, 2)])
def test_of_an_individual_that_was_put_away_twice_the_later_record_counts(others: int, parts: int) -> None:
    """Whether the two are held in one part or in two."""
    gallery = Gallery()
    for offset, who in enumerate(["a", *(f"b{i}" for i in range(others))]):
        gallery.apply(erased(who, 1), offset)
    gallery.put_away(1)
    gallery.apply(erased("a", 3), 100)
    gallery.put_away(1)
    assert len(gallery.collections["c"].absent) == parts
    change = gallery.apply(computed("a", 2, 0), 101)
    assert (change.applied, change.before and change.before.offset) == (Applied.STALE, 100)


def sealed_after(records: list[StoredRecord], moments: list[int], holder: Holder) -> Holder:
    """Matched in batches that end at those moments, at each of which everything is sealed."""
    for begin, end in zip([0, *moments], [*moments, len(records)], strict=True):
        holder.match(records[begin:end])
        if end != len(records):
            holder.begin_to_seal()
            holder.adopt()
    return holder


def events_of(published: Consequences) -> list[object]:
    return [decode(record).event for record in published.publish if record.topic != "dead-letters"]


@pytest.mark.parametrize("moments", [[], [10], [3, 7], [1, 2, 5, 10]])
def test_of_too_many_candidates_the_nearest_are_published_and_how_many_there_are(moments: list[int]) -> None:
    """Wherever they are held; of those equally near the earliest."""
    points = [2, 1, 0, 1, 0, 0, 2, 0, 7, 1]  # of those before; the newcomer is at 1, all but one are within 0.2
    log = log_of([computed(who, 1, point) for who, point in zip("jihgfedcbaz", [*points, 1], strict=True)])
    *before, last = events_of(sealed_after(log, moments, Holder()).published)
    assert isinstance(last, IndividualChecked)
    assert (last.individual_id, last.duplicates, last.truncated) == ("z", 9, True)
    found = [event for event in before if isinstance(event, DuplicateFound) and event.b.individual_id == "z"]
    assert [event.a.individual_id for event in found] == ["i", "g", "a"]
    assert [event.distance for event in found] == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("moments", [[], [10], [4, 8]])
def test_of_a_crowd_the_same_are_published_however_it_is_kept(moments: list[int]) -> None:
    log = log_of([computed(who, 1, 0) for who in "jihgfedcbak"])
    *_, a, b, c, last = events_of(sealed_after(log, moments, Holder()).published)
    assert isinstance(last, IndividualChecked)
    assert (last.duplicates, last.truncated) == (10, True)
    assert [e.a.individual_id for e in (a, b, c) if isinstance(e, DuplicateFound)] == ["j", "i", "h"]


@settings(max_examples=100, deadline=None)
@given(LOGS, st.integers(1, 5), st.data())
def test_shards_together_publish_what_one_alone_publishes(
    logged: list[Logged], count: int, data: st.DataObject
) -> None:
    """The same findings, counts that add up, renewals and dead letters by one of them; one of them seals meanwhile."""
    log = log_of(logged)
    if log and data.draw(st.integers(0, 1)) == 1:
        log[0] = replace(log[0], value=b"garbage")
    alone = Holder(limit=100, threshold_for=stepped)
    shards = [Holder(Gallery(Shard(number, count)), 100, stepped) for number in range(1, count + 1)]
    at = 0
    for _ in range(data.draw(st.integers(0, 15))):
        chosen = data.draw(st.integers(0, count - 1))
        at = go_on([*shards[chosen:], *shards[:chosen], alone], log, at, data)
    for one in (*shards, alone):
        one.match(log[at:])
    published = [event for shard in shards for event in events_of(shard.published)]
    assert findings(published) == findings(events_of(alone.published))
    assert counts(published) == counts(events_of(alone.published))
    assert sorted(offset for shard in shards for offset in shard.published.renew) == sorted(alone.published.renew)
    letters = [
        [record for record in one.published.publish if record.topic == "dead-letters"] for one in (*shards, alone)
    ]
    assert [letter for one in letters[:-1] for letter in one] == letters[-1]
    assert sum(shard.gallery.living for shard in shards) == alone.gallery.living
    for shard in shards:
        assert living_of(shard) == living_of(alone), "each knows how many the whole collection has"
        shard.put_away()
        shard.pack()
        assert living_of(shard) == living_of(alone)


def findings(events: list[object]) -> list[str]:
    return sorted(event.model_dump_json() for event in events if isinstance(event, DuplicateFound))


def counts(events: list[object]) -> dict[tuple[str, str, int], int]:
    """By whom, the sum of what all reports about them say."""
    total: dict[tuple[str, str, int], int] = {}
    for event in events:
        if isinstance(event, IndividualChecked):
            key = (event.collection, event.individual_id, event.revision)
            total[key] = total.get(key, 0) + event.duplicates
    return total
