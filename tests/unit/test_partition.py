"""One partition's matcher: nothing is lost, whatever the stream skips, repeats or loses on the way."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from runtime.servers.log import Span
from runtime.servers.publisher import PublishError
from schemas.envelope import Message, Record, StoredRecord, decode, encode
from schemas.events.encodings import EncodingErased
from schemas.events.pairs import DuplicateFound, DuplicateRetracted, IndividualChecked, PairEvent
from schemas.letters import Letter, read_letter, removed_records
from schemas.topics import ENCODINGS
from streams.checkpoint.state import state_of
from streams.gallery.gallery import Gallery
from streams.matcher import reporting
from streams.matcher.ownership import PartitionLostError, ProcessWasFrozenError
from streams.matcher.partition import PartitionMatcher, SpentError
from streams.matching.match import restore
from tests.conftest import Clock, Make
from tests.encodings import EncodingEvent, computed, crowd
from tests.matcher_parts import NOW, PARTITION, MatcherParts
from tests.records import stored

PEOPLE = 40


def records_of(events: Iterable[EncodingEvent]) -> list[Record]:
    return [
        encode(Message(event, f"{event.key}-{event.revision}", NOW - timedelta(days=1), "test")) for event in events
    ]


@pytest.fixture
def parts(clock: Clock) -> MatcherParts:
    return MatcherParts(clock)


def matcher_of(parts: MatcherParts) -> PartitionMatcher:
    made = PartitionMatcher(PARTITION, parts.context)
    made.restore()
    return made


def checked(parts: MatcherParts) -> list[str]:
    events = [decode(record).event for record in parts.publisher.published if record.topic == "duplicates"]
    return [event.individual_id for event in events if isinstance(event, IndividualChecked)]


def found(parts: MatcherParts) -> set[tuple[str, str]]:
    events = [decode(record).event for record in parts.publisher.published if record.topic == "duplicates"]
    return {(e.a.individual_id, e.b.individual_id) for e in events if isinstance(e, DuplicateFound)}


def test_what_was_removed_before_it_was_matched_becomes_a_dead_letter(parts: MatcherParts, embedding: Make) -> None:
    parts.append(records_of([computed(f"p{number}", embedding()) for number in range(8)]))
    parts.progress.offset = 2
    parts.kafka.remove(ENCODINGS.name, PARTITION, 5)
    assert matcher_of(parts).position == 5
    (record,) = parts.publisher.published
    letter = read_letter(stored(record, 0))
    assert isinstance(letter, Letter)
    assert (letter.name, removed_records(letter.error)) == ("encodings/0/2", 3)


def test_what_the_stream_skipped_is_read_from_the_log_and_matched_before_what_it_hands_over(
    parts: MatcherParts, embedding: Make, caplog: pytest.LogCaptureFixture
) -> None:
    face = embedding()
    parts.append(records_of([*(computed(f"p{number}", embedding()) for number in range(8)), computed("a", face)]))
    parts.append(records_of([computed("b", face)]))
    matcher = matcher_of(parts)
    matcher.process([parts.records[0], *parts.records[9:]])
    assert parts.log.reads[-1] == Span(1, 9)
    assert checked(parts) == [*(f"p{number}" for number in range(8)), "a", "b"]
    assert found(parts) == {("a", "b")}
    assert matcher.position == parts.progress.offset == 10
    assert "the stream skipped records" in caplog.text


def test_a_gap_that_compaction_left_is_passed_over(
    parts: MatcherParts, embedding: Make, caplog: pytest.LogCaptureFixture
) -> None:
    first, last = records_of([computed("p0", embedding()), computed("p4", embedding())])
    parts.append([first])
    parts.leave_gap(3)
    parts.append([last])
    matcher = matcher_of(parts)
    matcher.process(parts.records)
    assert checked(parts) == ["p0", "p4"]
    assert matcher.position == 5
    assert "skipped" not in caplog.text


def test_records_that_come_again_publish_the_same_again_and_move_nothing_back(parts: MatcherParts) -> None:
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    matcher = matcher_of(parts)
    matcher.process(parts.records)
    before, gallery = parts.publisher.last_of_each_key(), matcher.gallery.living
    matcher.process(parts.records[10:20])
    assert parts.publisher.last_of_each_key() == before
    assert (matcher.gallery.living, matcher.position, parts.progress.offset) == (gallery, PEOPLE, PEOPLE)
    matcher.process(parts.records[15:])
    assert parts.log.reads == [Span(0, 0)]  # what comes again leaves no gap


def test_progress_is_advanced_after_the_findings_are_acknowledged_and_the_partition_is_still_ours(
    parts: MatcherParts, embedding: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.append(records_of([computed("a", embedding())]))
    matcher = matcher_of(parts)
    check = parts.ownership.check

    def noted_check(partition: int) -> None:
        parts.steps.append("ownership.check")
        check(partition)

    monkeypatch.setattr(parts.ownership, "check", noted_check)
    parts.steps.clear()
    matcher.process(parts.records)
    assert parts.steps[:6] == [
        "publisher.publish",
        "ownership.check",
        "ownership.check",
        "publisher.published",
        "ownership.check",
        "progress.advance",
    ]


def test_nothing_advances_when_publishing_fails_and_the_matcher_is_of_no_use_any_more(clock: Clock) -> None:
    parts = MatcherParts(clock, delta_limit=PEOPLE // 2)
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    matcher = matcher_of(parts)

    def fail(step: str) -> None:
        if step == "publisher.published":
            raise PublishError("of the test")

    parts.on_step = fail
    with pytest.raises(PublishError):
        matcher.process(parts.records)
    assert (matcher.position, parts.progress.offset) == (0, None)
    parts.on_step = lambda _: None
    published = len(parts.publisher.published)
    with pytest.raises(SpentError, match=f"partition {PARTITION} has failed"):
        matcher.process(parts.records)
    with pytest.raises(SpentError):
        matcher.tend()
    assert len(parts.publisher.published) == published
    assert not parts.background.step()
    assert parts.checkpoints.state is None


def undisturbed(clock: Clock, limit: int) -> MatcherParts:
    parts = MatcherParts(clock, delta_limit=limit)
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    run_to_the_end(parts)
    return parts


def run_to_the_end(parts: MatcherParts) -> None:
    """Hand over what is not matched yet, in batches of ten of which the stream skips the first two."""
    matcher = matcher_of(parts)
    for begin in range(matcher.position // 10 * 10, PEOPLE, 10):
        matcher.process(parts.records[begin + 2 : begin + 10])
        while parts.background.step():
            matcher.tend()


@pytest.mark.parametrize("error", [PartitionLostError, ProcessWasFrozenError])
def test_a_partition_lost_at_any_call_leaves_nothing_half_done_and_the_next_matcher_goes_on(
    clock: Clock, error: type[Exception]
) -> None:
    whole = undisturbed(clock, limit=15)
    assert whole.checkpoints.state is not None
    assert {"checkpoints.save", "log.read", "publisher.published", "progress.advance"} <= set(whole.steps)
    for number in range(len(whole.steps)):
        parts = MatcherParts(clock, delta_limit=15)
        parts.append(records_of(crowd(PEOPLE, seed=1)))
        published_by_then: list[int] = []

        def lose(_: str, parts: MatcherParts = parts, at: int = number, by_then: list[int] = published_by_then) -> None:
            if len(parts.steps) == at + 1:
                by_then.append(len(parts.publisher.published))
                if error is PartitionLostError:
                    parts.ownership.set([])
                else:
                    parts.ownership._was_frozen = True

        parts.on_step = lose
        try:
            run_to_the_end(parts)
        except error:
            assert len(parts.publisher.published) == published_by_then[0], f"published after step {number}"
        matched, checkpoint = parts.progress.offset or 0, parts.checkpoints.state
        assert checkpoint is None or checkpoint.offset <= matched, f"step {number}: saved ahead of what is matched"
        parts.on_step = lambda _: None
        parts.ownership.set([PARTITION])
        parts.ownership._was_frozen = False
        parts.background._waiting.clear()
        run_to_the_end(parts)
        assert parts.publisher.last_of_each_key() == whole.publisher.last_of_each_key(), f"lost at step {number}"
        assert parts.progress.offset == PEOPLE


def test_a_partition_lost_after_the_findings_are_acknowledged_is_not_advanced(
    parts: MatcherParts, embedding: Make
) -> None:
    """The next matcher may have begun before them."""
    parts.append(records_of([computed("a", embedding())]))
    matcher = matcher_of(parts)
    parts.on_step = lambda step: parts.ownership.set([]) if step == "publisher.published" else None
    with pytest.raises(PartitionLostError):
        matcher.process(parts.records)
    assert parts.progress.offset is None
    with pytest.raises(SpentError):
        matcher.tend()


def test_a_checkpoint_is_not_written_of_a_partition_lost_meanwhile(clock: Clock) -> None:
    parts = MatcherParts(clock, delta_limit=5)
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    matcher = matcher_of(parts)
    matcher.process(parts.records)
    parts.ownership.set([])
    assert parts.background.step()
    assert parts.checkpoints.state is None


def test_without_a_checkpoint_the_state_comes_from_the_whole_log_up_to_what_is_matched(parts: MatcherParts) -> None:
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    parts.progress.offset = 30
    matcher = matcher_of(parts)
    assert parts.log.reads == [Span(0, 30)]
    assert matcher.position == 30
    assert matcher.gallery.living == living_after(parts.records[:30])
    assert parts.publisher.published == []


def living_after(records: list[StoredRecord]) -> int:
    gallery = Gallery()
    restore(gallery, records)
    return gallery.living


def test_of_a_checkpoint_only_what_came_since_is_read(clock: Clock) -> None:
    parts = MatcherParts(clock, delta_limit=10)
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    first = matcher_of(parts)
    first.process(parts.records[:25])
    while parts.background.step():
        first.tend()
    first.process(parts.records[25:30])
    assert parts.checkpoints.state is not None
    assert parts.checkpoints.state.offset == 25
    second = matcher_of(parts)
    assert parts.log.reads[-1] == Span(25, 30)
    assert second.position == 30
    assert second.gallery.living == first.gallery.living


def test_sealed_and_restored_segments_are_searched_with_the_threads_of_matching(clock: Clock) -> None:
    parts = MatcherParts(clock, delta_limit=10)
    parts.background.search_threads = 3
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    sealing = matcher_of(parts)
    sealing.process(parts.records)
    while parts.background.step():
        sealing.tend()
    for matcher in (sealing, matcher_of(parts)):
        segments = [segment for _, _, scope in matcher.gallery.scopes() for segment in scope.segments]
        assert [segment.index.num_threads for segment in segments] == [3] * len(segments) != []


def test_a_checkpoint_ahead_of_what_redis_calls_matched_repeats_no_less_than_that(parts: MatcherParts) -> None:
    """Redis lost the matched offset: the group's committed one serves."""
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    first = matcher_of(parts)
    first.process(parts.records)
    parts.checkpoints.state = state_of(first.gallery, PEOPLE)
    parts.progress.offset = None
    parts.commit(20)
    second = matcher_of(parts)
    assert second.position == 20
    assert second.gallery.living == first.gallery.living
    second.process(parts.records[20:])
    assert second.gallery.living == first.gallery.living


def test_what_another_matched_while_this_process_was_stopped_is_no_other_log(
    parts: MatcherParts, embedding: Make
) -> None:
    """A process that was stopped while it restored forgot the progress of the one that took over."""
    parts.append(records_of(computed(f"p{number}", embedding()) for number in range(8)))
    parts.progress.offset = 8

    def go_on_elsewhere(step: str) -> None:
        if step == "progress.matched":
            parts.on_step = lambda _: None
            parts.append(records_of([computed("q", embedding())]))
            parts.progress.offset = 9

    parts.on_step = go_on_elsewhere
    assert matcher_of(parts).position == 9
    assert "progress.forget" not in parts.steps


def test_what_redis_forgot_of_committed_records_is_matched_though_nothing_comes(
    parts: MatcherParts, embedding: Make
) -> None:
    """Redis lost its last writes: the stream begins behind them, and would hand nothing over in a quiet partition."""
    parts.append(records_of(computed(f"p{number}", embedding()) for number in range(8)))
    parts.progress.offset = 3
    parts.commit(8)
    matcher = matcher_of(parts)
    assert (matcher.position, parts.progress.offset) == (8, 8)
    assert checked(parts) == [f"p{number}" for number in range(3, 8)]


@pytest.mark.parametrize("committed", [None, 3])
def test_a_matched_offset_and_a_checkpoint_of_another_log_are_not_believed(
    parts: MatcherParts, caplog: pytest.LogCaptureFixture, committed: int | None
) -> None:
    parts.append(records_of(crowd(10, seed=1)))
    parts.progress.offset = 500
    if committed is not None:
        parts.commit(committed)
    parts.checkpoints.state = state_of(Gallery(), 400)
    matcher = matcher_of(parts)
    assert "it is another log" in caplog.text
    assert matcher.position == (committed or 0)
    assert "progress.forget" in parts.steps
    assert parts.log.reads == [Span(0, committed or 0)]
    matcher.process(parts.records[5:])
    assert parts.progress.offset == 10


def test_behind_a_stale_record_what_counts_is_published_again_as_it_was(parts: MatcherParts, embedding: Make) -> None:
    newcomers = [computed(f"p{number}", embedding()) for number in range(6)]
    latest, stale = computed("a", embedding(), 5), computed("a", embedding(), 4)
    parts.append(records_of([latest, *newcomers[:3], stale, *newcomers[3:]]))
    parts.append(records_of([computed("z", embedding())]))
    matcher_of(parts).process(parts.records[-1:])  # all others are caught up with: see `lookup`
    (again,) = [record for record in parts.publisher.published if record.topic == "encodings"]
    first = parts.records[0]
    assert (again.key, again.value, again.headers, again.partition) == (
        first.key,
        first.value,
        first.headers,
        PARTITION,
    )


def test_a_record_that_is_compacted_away_is_not_published_again_and_that_is_logged(
    parts: MatcherParts, embedding: Make, caplog: pytest.LogCaptureFixture
) -> None:
    parts.append(records_of([computed("a", embedding(), 5), computed("a", embedding(), 4)]))
    matcher = matcher_of(parts)
    matcher.process(parts.records[:1])
    parts.kafka.compact(ENCODINGS.name)
    (stale,) = parts.records
    matcher.process([stale])
    assert [record.topic for record in parts.publisher.published] == ["duplicates"]
    assert "compacted away and cannot be published again" in caplog.text
    assert matcher.position == 2


def test_matching_goes_on_while_a_segment_is_built(clock: Clock) -> None:
    parts = MatcherParts(clock, delta_limit=20)
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    matcher = matcher_of(parts)
    matcher.process(parts.records[:25])
    matcher.process(parts.records[25:])
    assert (matcher.position, len(checked(parts)) > 0) == (PEOPLE, True)
    assert "checkpoints.save" not in parts.steps
    while parts.background.step():
        matcher.tend()
    assert [len(scope.segments) for _, _, scope in matcher.gallery.scopes()] == [1]
    assert parts.checkpoints.state is not None
    assert parts.checkpoints.state.offset == PEOPLE


def test_a_retraction_is_of_now_and_a_finding_of_the_registration(parts: MatcherParts, embedding: Make) -> None:
    face = embedding()
    parts.append(records_of([computed("a", face), computed("b", face), computed("b", embedding(), 2)]))
    matcher = matcher_of(parts)
    matcher.process(parts.records[:2])
    matcher.process(parts.records[2:])
    times = {
        type(message.event): message.time
        for message in map(decode, parts.publisher.published)
        if isinstance(message.event, PairEvent)
    }
    assert times == {DuplicateFound: NOW - timedelta(days=1), DuplicateRetracted: NOW}


def test_vitals_are_shown_every_two_seconds(parts: MatcherParts, clock: Clock) -> None:
    parts.append(records_of(crowd(PEOPLE, seed=1)))
    matcher = matcher_of(parts)
    matcher.process(parts.records[:10])
    matcher.process(parts.records[10:20])
    clock.now += 2
    matcher.process(parts.records[20:])
    assert [(one.matched, one.at) for one in parts.shown] == [(10, NOW), (PEOPLE, NOW)]
    assert parts.shown[-1] == matcher.vitals
    assert np.sum([scope.people for scope in parts.shown[-1].scopes]) == matcher.gallery.living


def test_what_became_of_a_batch_is_logged_from_what_was_decided(
    parts: MatcherParts, embedding: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings at level debug; nothing of them is decoded again."""
    face = embedding()
    (broken,) = records_of([computed("x", face)])
    parts.append([*records_of([computed("a", face), computed("b", face)]), replace(broken, value=b"{")])
    matcher = matcher_of(parts)
    monkeypatch.setattr(reporting, "decode", lambda _: pytest.fail("decoded what was just made"))
    with caplog.at_level(logging.DEBUG, "streams.matcher.reporting"):
        matcher.process(parts.records)
    lines = [vars(record)["msg"] for record in caplog.records if record.name == reporting.__name__]
    assert [line["event"] for line in lines] == [
        "dead letter",
        "IndividualChecked",
        "DuplicateFound",
        "IndividualChecked",
    ]


@pytest.mark.parametrize("limit", [3, 1000], ids=["from the checkpoint", "from the log"])
def test_a_restart_does_not_forget_since_when_a_gallery_is_there(clock: Clock, embedding: Make, limit: int) -> None:
    """An alert counts from then on, whether the gallery was ever compacted."""
    parts = MatcherParts(clock, delta_limit=limit)
    begun = NOW - timedelta(days=2)
    records = records_of(computed(f"p{number}", embedding()) for number in range(6))
    for number, record in enumerate(records):
        parts.written_at = begun + timedelta(hours=number)
        parts.append([record])
    matcher = matcher_of(parts)
    matcher.process(parts.records)
    for _ in range(5):
        parts.background.step()
        matcher.tend()
    assert (parts.checkpoints.state is not None) == (limit == 3)
    parts.append([*records_of([computed("late", embedding())]), records[0]])
    parts.kafka.compact(ENCODINGS.name)  # what stood first is gone
    assert parts.records[0].offset == 1
    again = matcher_of(parts)
    clock.now += 10
    again.tend()
    for vitals in parts.shown[0], parts.shown[-1]:
        (scope,) = vitals.scopes
        assert scope.begun_at is not None
        assert begun <= scope.begun_at <= begun + timedelta(hours=1)


def test_a_collection_more_than_a_matcher_takes_is_answered_and_not_lost(clock: Clock, embedding: Make) -> None:
    """A letter of each of its embeddings; whoever raises the bound sends them again."""
    parts = MatcherParts(clock, max_collections=2, delta_limit=3)
    face = embedding()
    people = [computed(f"p{place}", face, collection=f"c{place % 3}") for place in range(6)]
    parts.append(records_of([*people, EncodingErased(collection="c3", individual_id="x", revision=1)]))
    matcher = matcher_of(parts)
    matcher.process(parts.records)
    for _ in range(5):
        parts.background.step()
        matcher.tend()

    def letters() -> list[str]:
        return [str(record.key) for record in parts.publisher.published if record.topic == "dead-letters"]

    assert letters() == ["b'c2/p2'", "b'c2/p5'"]
    assert found(parts) == {("p0", "p3"), ("p1", "p4")}
    assert set(matcher_of(parts).gallery.collections) == {"c0", "c1"}, "a restart takes no more"
    assert parts.checkpoints.state is not None
    wider = replace(parts.context, settings=parts.context.settings.model_copy(update={"max_collections": 3}))
    again = PartitionMatcher(PARTITION, wider)
    again.restore()
    sent_again = len(parts.records)
    parts.append(records_of([people[2], people[5]]))
    again.process(parts.records[sent_again:])
    assert len(letters()) == 2
    assert found(parts) == {("p0", "p3"), ("p1", "p4"), ("p2", "p5")}
