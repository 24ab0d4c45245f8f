"""The matcher's core: a fold over the log, whose pairs are those of comparing all living with all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import REPLAY_ID, Message, Record, StoredRecord, decode, encode, of_replay
from schemas.events.base import Event
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.pairs import DuplicateFound, IndividualChecked, PairEvent
from schemas.shard import Shard
from schemas.thresholds import ThresholdFor
from streams.checkpoint.state import gallery_of, state_of
from streams.gallery.gallery import Gallery
from streams.matching.match import Consequences, Rules, match, restore
from tests import encodings, oracle
from tests.records import stored

TIME = datetime(2026, 1, 31, tzinfo=UTC)
_random = np.random.default_rng(3)
# Points on a line, 0.2 apart: neighbours are pairs at threshold 0.3, others are not.
_direction = _random.normal(size=128)
_direction /= np.linalg.norm(_direction)
POINTS = [(0.2 * (i + 1) * _direction).astype(np.float32) for i in range(8)]
LIMIT = 100
Logged = EncodingComputed | EncodingErased


def computed(
    who: str, revision: int, point: int, collection: str = "c", encoder: str = "e", dimensions: int | None = None
) -> EncodingComputed:
    """Encoder f has twice as many dimensions as the others, and the same distances."""
    vector = np.zeros(dimensions or (256 if encoder == "f" else 128), np.float32)
    vector[:128] = POINTS[point]
    return encodings.computed(who, vector, revision, collection, encoder)


def erased(who: str, revision: int, collection: str = "c") -> EncodingErased:
    return EncodingErased(collection=collection, individual_id=who, revision=revision)


def stepped(_collection: str, _encoder: str, living: int) -> float:
    """A threshold that moves in steps, as a review budget's does: soon there are enough people for the last of them."""
    return 0.5 if living <= 3 else 0.3 if living <= 6 else 0.1


def log_of(events: list[Logged]) -> list[StoredRecord]:
    return [
        stored(encode(Message(event, id=f"id-{event.key}-{event.revision}", time=TIME, source="t")), offset)
        for offset, event in enumerate(events)
    ]


def run(
    records: list[StoredRecord],
    batch: int = 1000,
    gallery: Gallery | None = None,
    threshold_for: ThresholdFor = lambda *_: 0.3,
) -> Consequences:
    gallery = gallery or Gallery()
    total = Consequences()
    for begin in range(0, len(records), batch):
        one = match(gallery, records[begin : begin + batch], Rules(threshold_for, LIMIT))
        total.publish += one.publish
        total.renew += one.renew
    return total


def found(consequences: Consequences) -> set[tuple[str, str, str]]:
    events = [decode(record).event for record in consequences.publish if record.topic == "duplicates"]
    return {
        (event.collection, event.a.individual_id, event.b.individual_id)
        for event in events
        if isinstance(event, DuplicateFound)
    }


def event_of(record: Record) -> Event:
    return decode(record).event


def checked(consequences: Consequences) -> dict[tuple[str, int], int]:
    events = [decode(record).event for record in consequences.publish if record.topic == "duplicates"]
    return {(e.individual_id, e.revision): e.duplicates for e in events if isinstance(e, IndividualChecked)}


def test_neighbours_are_found_with_their_distance_and_everyone_is_checked() -> None:
    consequences = run(log_of([computed("a", 1, 0), computed("b", 1, 1), computed("z", 1, 7)]))
    assert found(consequences) == {("c", "a", "b")}
    assert checked(consequences) == {("a", 1): 0, ("b", 1): 1, ("z", 1): 0}
    event = decode(consequences.publish[1]).event
    assert isinstance(event, DuplicateFound)
    assert abs(event.distance - 0.2) < 1e-6


def letters(consequences: Consequences) -> list[Record]:
    return [record for record in consequences.publish if record.topic == "dead-letters"]


def test_embeddings_of_many_dimensions_are_compared_beside_those_of_few() -> None:
    consequences = run(
        log_of(
            [*(computed(who, 1, 0, encoder="e") for who in "ab"), *(computed(who, 1, 0, encoder="f") for who in "cd")]
        )
    )
    assert found(consequences) == {("c", "a", "b"), ("c", "c", "d")}


@pytest.mark.parametrize("batch", [1, 1000])
def test_an_embedding_of_other_dimensions_than_its_encoders_is_a_dead_letter(batch: int) -> None:
    """What it hides in the log is published again; whoever comes after it is compared as if it had never come."""
    log = log_of([computed("a", 1, 0), computed("a", 2, 1, dimensions=256), computed("b", 1, 0)])
    gallery = Gallery()
    consequences = run(log, batch, gallery)
    (letter,) = letters(consequences)
    assert any(b"another number of dimensions" in (value or b"") for _, value in letter.headers)
    assert letter.value == log[1].value
    assert consequences.renew == [0]
    assert checked(consequences)["b", 1] == 1
    assert gallery.living == 2


def test_of_several_shards_all_leave_it_and_one_sends_the_letter() -> None:
    """A shard knows how many dimensions there are though it keeps no vector: also when it was started again."""
    people = [computed(f"p{number}", 1, number % 8) for number in range(4)]
    log = log_of([*people, computed("odd", 1, 0, dimensions=512)])
    sent, left = 0, 0
    for number in range(1, 9):
        gallery = Gallery(Shard(number, 8))
        run(log[: len(people)], gallery=gallery)
        gallery = gallery_of(state_of(gallery, len(people)), Shard(number, 8))
        sent += len(letters(run(log[len(people) :], gallery=gallery)))
        left += gallery.living
    assert (sent, left) == (1, len(people))


def test_what_is_restored_leaves_it_too() -> None:
    gallery = Gallery()
    restore(gallery, log_of([computed("a", 1, 0), computed("a", 2, 1, dimensions=256), computed("b", 1, 7)]))
    latest = gallery.collections["c"].find("a")
    assert latest is not None
    assert (latest.revision, gallery.living) == (1, 2)


def test_collections_and_encoders_are_never_compared() -> None:
    events: list[Logged] = [
        computed("a", 1, 0),
        computed("b", 1, 0, collection="d"),
        computed("d", 1, 0, encoder="f"),
    ]
    assert found(run(log_of(events))) == set()


def test_the_old_embedding_stops_counting_when_the_new_one_comes() -> None:
    log = log_of([computed("a", 1, 0), computed("a", 2, 7), computed("b", 1, 0), computed("z", 1, 7)])
    assert found(run(log)) == {("c", "a", "z")}


def test_an_erased_person_is_found_no_more_and_late_encodings_do_not_bring_them_back() -> None:
    log = log_of([computed("a", 1, 0), erased("a", 3), computed("a", 2, 0), computed("b", 1, 0)])
    consequences = run(log)
    assert found(consequences) == set()
    assert consequences.renew == [1]


def test_an_erasure_wins_over_an_encoding_of_its_own_revision() -> None:
    both: list[Logged] = [computed("a", 1, 0), erased("a", 1)]
    for order in (both, both[::-1]):
        assert found(run(log_of([*order, computed("b", 1, 0)]))) == set()


def test_behind_an_unreadable_record_or_a_bare_null_what_it_hides_is_published_again() -> None:
    """Else Kafka's compaction would keep it in the place of the person under whose key it is."""
    first, gone, other = log_of([computed("a", 1, 0), erased("gone", 1), computed("b", 1, 7)])
    foreign = Record("encodings", first.key, b'{"collection": "c", "individual_id": "a"}', first.headers[:1])
    unreadable = [foreign, replace(foreign, value=None, headers=()), replace(foreign, key=gone.key)]
    log = [first, gone, other, *(stored(record, 3 + at) for at, record in enumerate(unreadable))]
    consequences = run(log)
    assert consequences.renew == [0, 0, 1]
    assert [record.topic for record in consequences.publish].count("dead-letters") == 3
    unknown = [replace(foreign, key=b"c/nobody"), replace(foreign, key=b"d/a"), replace(foreign, key=b"\xff")]
    assert run([first, *(stored(record, 1 + at) for at, record in enumerate(unknown))]).renew == []


def test_what_was_published_again_behind_an_unreadable_record_is_not_once_more() -> None:
    first, again = log_of([computed("a", 1, 0), computed("a", 1, 0)])
    again = replace(again, offset=2)
    foreign = stored(Record("encodings", first.key, b"?", ()), 1)
    gallery = Gallery()
    restore(gallery, [first, foreign, again])
    assert run([foreign, again], gallery=gallery).renew == []


def test_each_shard_publishes_again_what_falls_to_it() -> None:
    shards = [Shard(number, 3) for number in (1, 2, 3)]
    log = log_of([computed("a", 1, 0)])
    log.append(stored(Record("encodings", log[0].key, None, ()), 1))
    assert sorted(run(log, gallery=Gallery(shard)).renew for shard in shards) == [[], [], [0]]


def test_a_stale_record_is_not_applied_and_the_right_one_is_published_again() -> None:
    log = log_of([computed("a", 2, 0), computed("a", 1, 7), computed("b", 1, 0), computed("z", 1, 7)])
    for batch in (1, 100):
        consequences = run(log, batch)
        assert found(consequences) == {("c", "a", "b")}
        assert consequences.renew == [0]


def test_what_was_published_again_changes_nothing() -> None:
    log = log_of([computed("a", 2, 0), computed("a", 1, 7), computed("b", 1, 0), computed("a", 2, 0)])
    consequences = run(log)
    assert found(consequences) == {("c", "a", "b")}
    assert consequences.renew == [0]


def test_what_is_published_again_because_of_a_replay_names_it() -> None:
    context = (("traceparent", b"t"), (REPLAY_ID, b"r1"))
    latest, stale = log_of([computed("a", 2, 0), computed("a", 1, 7)])
    stale = replace(stale, headers=(*stale.headers, *context))
    consequences = match(Gallery(), [latest, stale], Rules(lambda *_: 0.3, LIMIT))
    assert consequences.renew == [0]
    assert of_replay(latest.headers, consequences.replays[0]) == (*latest.headers, (REPLAY_ID, b"r1"))
    assert of_replay(((REPLAY_ID, b"r0"),), consequences.replays[0]) == ((REPLAY_ID, b"r0"),)
    assert (
        match(Gallery(), log_of([computed("a", 2, 0), computed("a", 1, 7)]), Rules(lambda *_: 0.3, LIMIT)).replays == {}
    )


def test_records_handed_over_again_change_nothing() -> None:
    log = log_of([computed("a", 1, 0), computed("a", 2, 1), computed("b", 1, 2)])
    gallery = Gallery()
    first = run(log, gallery=gallery)
    again = run(log, gallery=gallery)
    assert again.renew == []
    assert {record.value for record in again.publish} <= {record.value for record in first.publish}
    assert found(again) == found(first)
    assert gallery.living == 2


def test_repeated_work_yields_the_same_bytes() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 1)])
    assert run(log).publish == run(log).publish


def test_an_unreadable_record_becomes_a_dead_letter_and_the_rest_goes_on() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 1), computed("c", 1, 2)])
    log[1] = replace(log[1], value=b"garbage")
    consequences = run(log)
    letters = [record for record in consequences.publish if record.topic == "dead-letters"]
    assert [(letter.value, dict(letter.headers)["dead_letter_offset"]) for letter in letters] == [(b"garbage", b"1")]
    assert checked(consequences) == {("a", 1): 0, ("c", 1): 0}


events = st.builds(
    lambda kind, who, revision, point, collection, encoder: (
        erased(who, revision, collection) if kind == 0 else computed(who, revision, point, collection, encoder)
    ),
    st.integers(0, 6),
    st.sampled_from("abcdef"),
    st.integers(1, 5),
    st.integers(0, 7),
    st.sampled_from("cd"),
    st.sampled_from("ef"),
)


few = st.builds(
    lambda kind, who, point: (kind, who, point), st.integers(0, 5), st.sampled_from("abcd"), st.sampled_from([0, 1, 7])
)


def in_turn(changes: list[tuple[int, str, int]]) -> list[Logged]:
    """Changes of a few people, each of whom has a higher revision than the one before."""
    revisions = dict.fromkeys("abcd", 0)
    logged: list[Logged] = []
    for kind, who, point in changes:
        revisions[who] += 1
        logged.append(erased(who, revisions[who]) if kind == 0 else computed(who, revisions[who], point))
    return logged


@settings(max_examples=400, deadline=None)
@given(
    st.lists(events, max_size=40, unique_by=lambda event: (event.key, event.revision))
    | st.lists(few, max_size=30).map(in_turn),
    st.integers(1, 12),
    st.data(),
)
def test_the_pairs_that_hold_are_those_of_comparing_all_living(
    logged: list[Logged], batch: int, data: st.DataObject
) -> None:
    """Whatever the order of arrival, the batch boundaries, and where the process was started again: at each moment."""
    log = log_of(logged)
    crash = data.draw(st.integers(0, len(log)))
    before = run(log[:crash], batch)
    assert_as_the_oracle(logged[:crash], before.publish)
    matched = data.draw(st.integers(0, crash))
    gallery = Gallery()
    restore(gallery, log[:matched])
    after = run(log[data.draw(st.integers(0, matched)) :], data.draw(st.integers(1, 12)), gallery)
    assert gallery.living == len(oracle.living(logged))
    assert_as_the_oracle(logged, before.publish + after.publish)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.sampled_from([0, 1, 7])), max_size=12),
    st.integers(1, 6),
    st.data(),
)
def test_a_finding_that_follows_a_retraction_is_the_later_statement(
    changes: list[tuple[str, int, int]], batch: int, data: st.DataObject
) -> None:
    """Registration systems that send several photos of one revision: the last in the log counts, for every consumer."""
    logged: list[Logged] = [computed(*change) for change in changes]
    log = [
        stored(encode(Message(event, id=f"id-{offset}", time=TIME - timedelta(days=offset), source="t")), offset)
        for offset, event in enumerate(logged)
    ]
    crash = data.draw(st.integers(0, len(log)))
    before = run(log[:crash], batch)
    assert_as_the_oracle(logged[:crash], before.publish)
    matched = data.draw(st.integers(0, crash))
    gallery = Gallery()
    restore(gallery, log[:matched])
    after = run(log[matched:], data.draw(st.integers(1, 6)), gallery)
    assert_as_the_oracle(logged, before.publish + after.publish)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 7)), max_size=30), st.integers(1, 9))
def test_by_which_threshold_somebody_is_compared_does_not_depend_on_how_batches_are_cut(
    arrivals: list[tuple[str, int]], batch: int
) -> None:
    """Newcomers are compared by the step in force when they came; each statement names it."""
    logged: list[Logged] = [
        erased(f"{who}{number // 2}", 2) if point == 7 else computed(f"{who}{number}", 1, point)
        for number, (who, point) in enumerate(arrivals)
    ]
    log = log_of(logged)
    at_once, cut = (run(log, size, threshold_for=stepped) for size in (1, batch))
    gone = {event.individual_id for event in logged if isinstance(event, EncodingErased)}
    stated = [
        {
            (event.key, event.threshold)
            for event in map(event_of, (record for record in one.publish if record.topic == "duplicates"))
            if isinstance(event, DuplicateFound) and gone.isdisjoint((event.a.individual_id, event.b.individual_id))
        }
        for one in (at_once, cut)
    ]
    assert stated[0] == stated[1]


def test_a_step_is_taken_by_the_newcomer_who_makes_it_and_back_by_the_erasure_that_does() -> None:
    crowd: list[Logged] = [computed(f"p{number}", 1, 7) for number in range(4)]
    log = log_of([*crowd, erased("p0", 2), erased("p1", 2), computed("p9", 1, 7)])
    events = map(event_of, run(log, 1, threshold_for=stepped).publish)
    assert [e.threshold for e in events if isinstance(e, DuplicateFound)] == [0.5] * (1 + 2) + [0.3] * 3 + [0.5] * 2


def test_by_an_encoder_without_a_threshold_nobody_is_compared_and_the_letter_names_what_to_type() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 0), computed("b", 2, 0)])
    consequences = run(log, threshold_for=lambda _, encoder, __: None if encoder == "e" else 0.3)
    assert (found(consequences), checked(consequences)) == (set(), {})
    assert [record.topic for record in consequences.publish] == ["dead-letters"] * 2, "of a revision that is past none"
    for record in consequences.publish:
        assert any("FACEMATCH_THRESHOLDS='{\"e\": …}'" in (value or b"").decode() for _, value in record.headers)


def test_the_same_embedding_once_more_is_no_later_statement() -> None:
    log = log_of([computed("a", 1, 0), computed("b", 1, 0), computed("b", 1, 0)])
    first, again = run(log[:2]), run(log, batch=1)
    assert [record for record in again.publish if record not in first.publish] == []


def assert_as_the_oracle(logged: list[Logged], published: list[Record]) -> None:
    """Whether the last record of each pair counts, or that of the highest version: see `events.pairs.Version`."""
    expected = set(oracle.pairs(oracle.living(logged).values(), 0.3))
    last: dict[str, Message[Event]] = {}
    highest: dict[str, Message[Event]] = {}
    for message in (decode(record) for record in published if record.topic == "duplicates"):
        if isinstance(message.event, PairEvent):
            last[message.event.key] = message
            if version(message) > version(highest.get(message.event.key)):
                highest[message.event.key] = message
    for kept in (last, highest):
        holding = (message.event for message in kept.values())
        assert {oracle.pair_of(event) for event in holding if isinstance(event, DuplicateFound)} == expected


def version(message: Message[Event] | None) -> tuple[int, datetime]:
    if message is None:
        return 0, TIME
    assert isinstance(message.event, PairEvent)
    return message.event.a.revision + message.event.b.revision, message.time


def test_an_earlier_photo_that_comes_again_is_found_behind_the_one_in_between() -> None:
    """Within one batch: the record that comes again has the same id, and its finding too."""
    first, other = computed("b", 2, 0), computed("b", 2, 1)
    events: list[Logged] = [computed("a", 1, 1), computed("b", 1, 0), first, other, first]
    log = [
        stored(encode(Message(event, id=f"id-{2 if event is first else offset}", time=TIME, source="t")), offset)
        for offset, event in enumerate(events)
    ]
    published = [decode(record).event for record in run(log).publish]
    distances = [event.distance for event in published if isinstance(event, DuplicateFound)]
    assert abs(distances[-1] - 0.2) < 1e-6
