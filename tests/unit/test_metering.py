"""What is counted of the answers of a pool, and of what the matcher and the sink say. Replays have old times."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from consumers.encoder.answers import Answer, Outcome, erased, escalated, rejected, unreadable
from consumers.encoder.metering import AnswerCounter
from consumers.photos.rejected import RejectedError
from consumers.sink.metering import count_written
from runtime.telemetry.metrics import QUALITY
from schemas.envelope import Message, Record, Source, UnreadableError, announce, encode
from schemas.erased import ErasureKey
from schemas.events.base import Event
from schemas.events.encodings import Quality, RejectionReason
from schemas.events.pairs import IndividualChecked
from schemas.events.registrations import IndividualCreated, IndividualDeleted, Photo
from schemas.settings import Settings
from schemas.thresholds import Thresholds
from streams.gallery.gallery import Gallery
from streams.matcher.candidates import CandidateWatch
from streams.matcher.metering import count_matched, show_galleries
from streams.matcher.vitals import PartitionVitals, ScopeVitals, vitals_of
from tests.encodings import computed
from tests.records import stored

KEY = ErasureKey(SecretStr("0123456789abcdef" * 2))
REPLAYED = (("replay_id", b"2026-01-31"),)
E = TypeVar("E", bound=Event)

CREATED = IndividualCreated(collection="c", individual_id="a", revision=1, photo=Photo(uri="file:///a.jpg"))
CHECKED = IndividualChecked(collection="c", individual_id="a", revision=1, encoder="e", duplicates=0, truncated=False)


class Since:
    """How much metrics have grown since this was made: those of other tests are in the same registry."""

    def __init__(self) -> None:
        self._before = self._all()

    def _all(self) -> dict[str, float]:
        return {
            f"{sample.name}{sorted(sample.labels.values())}": sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
        }

    def __call__(self, name: str, *labels: str) -> float:
        key = f"{name}{sorted(labels)}"
        return self._all().get(key, 0) - self._before.get(key, 0)


def message(event: E, ago_s: float = 0) -> Message[E]:
    return announce(event, "test", datetime.now(UTC) - timedelta(seconds=ago_s))


def record(event: Event) -> Record:
    return encode(message(event))


def encoded(message: Message[Event]) -> Answer:
    return Answer(Outcome.ENCODED, message, encode(message))


def test_each_kind_of_answer_is_counted_with_its_reason() -> None:
    counter, since = AnswerCounter("cpu", "individuals"), Since()
    rejection = rejected(message(CREATED), RejectedError(RejectionReason.NO_FACE, "no face"))
    counter.count(
        [
            encoded(message(computed("a", np.ones(128, np.float32)))),
            rejection,
            rejection,
            escalated(stored(record(CREATED)), message(CREATED), "no_face_by_hog"),
            *erased(message(IndividualDeleted(collection="c", individual_id="a", revision=2)), "c", KEY),
            unreadable(stored(record(CREATED)), UnreadableError("for the test")),
        ]
    )
    counted = {
        (outcome, reason): since("facematch_encoder_answers_total", "cpu", outcome, reason)
        for outcome, reason in (
            ("encoded", ""),
            ("rejected", "no_face"),
            ("escalated", "no_face_by_hog"),
            ("erased", ""),
            ("dead_letter", ""),
        )
    }
    assert list(counted.values()) == [1, 2, 1, 1, 1], counted
    assert since("facematch_dead_letters_total", "individuals") == 1
    assert since("facematch_face_sharpness_sum", "cpu") == 100


def test_every_measure_of_a_face_has_its_histogram() -> None:
    """And every histogram its measure: the counter reads each from the answer after Kafka has it."""
    assert set(QUALITY) == set(Quality.model_fields)


def test_how_long_it_took_is_measured_but_of_what_is_replayed() -> None:
    counter, since = AnswerCounter("gpu", "escalations"), Since()
    embedding = computed("a", np.ones(128, np.float32))
    counter.count([encoded(message(embedding, 3)), encoded(replace(message(embedding, 86_400), context=REPLAYED))])
    count_matched([message(CHECKED, 2), replace(message(CHECKED, 86_400), context=REPLAYED)], letters=0)
    by_matcher = replace(message(CHECKED, 4), source=Source.MATCHER)
    made_up_for = replace(message(CHECKED, 3_600), source=Source.COMPACTION)
    count_written([by_matcher, replace(by_matcher, context=REPLAYED), made_up_for, message(CREATED, 9_000)])
    for stage, seconds in (("encoded", 3), ("matched", 2), ("written", 4)):
        assert since("facematch_since_registration_seconds_count", stage) == 1
        assert since("facematch_since_registration_seconds_sum", stage) == pytest.approx(seconds, abs=1)
    assert since("facematch_encoder_answers_total", "gpu", "encoded", "") == 2
    assert since("facematch_matcher_events_total", "IndividualChecked") == 2
    assert since("facematch_sink_events_total", "IndividualCreated") == 1


def test_galleries_are_those_that_the_matcher_holds_now() -> None:
    scope = ScopeVitals(collection="c", encoder="e", people=3, delta=2, segments=(), compacted_at=None)
    empty = scope.model_copy(update={"encoder": "of before", "people": 0})
    now = datetime.now(UTC)
    held = [PartitionVitals(partition=0, shard="2/8", matched=5, at=now, scopes=(scope, empty))]
    show_galleries(Settings(_env_file=None), lambda: held)
    labels = {"collection": "c", "encoder": "e", "shard": "2/8"}
    assert REGISTRY.get_sample_value("facematch_gallery_people", labels) == 3
    assert REGISTRY.get_sample_value("facematch_gallery_delta_embeddings", labels) == 2
    assert REGISTRY.get_sample_value("facematch_gallery_recall_ratio", labels) is None
    assert REGISTRY.get_sample_value("facematch_gallery_people", labels | {"encoder": "of before"}) is None
    held.clear()
    assert REGISTRY.get_sample_value("facematch_gallery_people", labels) is None


def test_candidates_of_newcomers_stand_beside_what_was_expected() -> None:
    thresholds = Thresholds(Settings(_env_file=None, candidates_per_newcomer=0.5, thresholds={"test": 0.9}))
    gallery, watch = Gallery(), CandidateWatch(thresholds)
    for number in range(1500):
        gallery.apply(computed(f"p{number}", np.ones(128, np.float32)), number)
    checks = [
        message(IndividualChecked(collection="c", individual_id="a", revision=1, encoder="test", duplicates=found))
        for found in [0] * 750 + [4] * 750
    ]
    watch.count(checks, gallery)
    counts = watch.of("c", "test")
    assert 500 <= counts.newcomers < 1000
    assert counts.expected / counts.newcomers == 0.5
    assert counts.candidates / counts.newcomers > 2, "the last weigh most"
    held = [vitals_of(gallery, watch, thresholds, 0, 1500, datetime.now(UTC))]
    show_galleries(Settings(_env_file=None), lambda: held)

    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"facematch_{name}", {"collection": "c", "encoder": "test", "shard": "1/1"})

    assert (value("gallery_threshold_distance"), value("candidates_newcomers")) == (0.9, counts.newcomers)
    assert value("candidates_per_newcomer") == counts.candidates / counts.newcomers
    assert value("candidates_expected_per_newcomer") == 0.5
    assert value("strangers_expected_pairs") is None, "nobody has measured it"
    held.clear()


def test_thousands_of_collections_are_the_largest_and_one_for_the_others() -> None:
    def scope(number: int, **more: Any) -> ScopeVitals:
        known = {"collection": f"c{number}", "encoder": "e", "people": number, "delta": 7, "segments": ()}
        return ScopeVitals.model_validate({**known, "compacted_at": None, **more})

    now, day = datetime.now(UTC), timedelta(days=1)
    scopes = [
        scope(1, begun_at=now - 3 * day, compacted_at=now - day),
        scope(2, begun_at=now - 2 * day),
        scope(3, begun_at=now, delta=90),
        *(scope(number, begun_at=now) for number in range(4, 3001)),
    ]
    held = [PartitionVitals(partition=0, shard="1/1", matched=5, at=now, scopes=tuple(scopes))]
    show_galleries(Settings(_env_file=None), lambda: held)

    def value(name: str, collection: str) -> float | None:
        labels = {"collection": collection, "encoder": "e", "shard": "1/1"}
        return REGISTRY.get_sample_value(f"facematch_gallery_{name}", labels)

    assert (value("people", "c3000"), value("people", "c2951"), value("people", "c2950")) == (3000, 2951, None)
    assert value("people", "(others)") == sum(range(1, 2951))
    assert value("delta_embeddings", "(others)") == 90
    assert value("begun_timestamp_seconds", "(others)") == (now - 2 * day).timestamp(), "never compacted the longest"
    assert value("compacted_timestamp_seconds", "(others)") == (now - day).timestamp()
    held.clear()
