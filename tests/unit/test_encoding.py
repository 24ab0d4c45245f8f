"""Which pool encodes, what is rejected and why, and that every task of a batch has its own answer."""

import base64
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import SecretStr

from consumers.encoder.answers import ESCALATION_REASON, Answer, Outcome, Task, answer_to
from consumers.encoder.encoding import Encoding
from consumers.encoder.intake import Intake
from consumers.encoder.pool.task_pool import CrashedError, OutOfTimeError, StuckError, TaskFailedError
from consumers.faces.detected import DetectedFace
from consumers.faces.encoder import AlignedFace, FaceEncoder
from consumers.photos.file import UprightPhoto
from consumers.photos.rejected import RejectedError
from schemas.envelope import StoredRecord, announce, decode, encode, has_event
from schemas.erased import NOBODY, Erased, ErasureKey
from schemas.events.base import Detector, Event
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated, IndividualDeleted, IndividualUpdated, Photo, Registration
from schemas.settings import Settings
from tests.records import stored

KEY = ErasureKey(SecretStr("0123456789abcdef" * 2))


def jpeg(grey: int) -> bytes:
    """A photo whose brightness is known by its grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (grey, grey, grey)).save(buffer, "JPEG")
    return buffer.getvalue()


def registration(who: str = "x", collection: str = "c", detector: Detector | None = None) -> StoredRecord:
    photo = Photo(uri="file:///x.jpg")
    event = IndividualCreated(collection=collection, individual_id=who, revision=1, photo=photo, detector=detector)
    return stored(encode(announce(event, "test")))


class Faces:
    """A detector that finds as many faces as the photo's grey says, in tens: 0 in 0, 1 in 10, 2 in 20."""

    provider = "cpu"

    def __init__(self, kind: Detector, score: float = 1.0) -> None:
        self.kind = kind
        self._score = score

    def find(self, photos: Sequence[UprightPhoto]) -> list[list[DetectedFace] | RejectedError]:
        answers: list[list[DetectedFace] | RejectedError] = []
        for photo in photos:
            try:
                count = round(float(photo.at_least(64).mean()) / 10)
            except RejectedError as error:
                answers.append(error)
                continue
            answers.append([DetectedFace(0, 40 - i, 40 - i, 0, self._score) for i in range(count)])
        return answers


class Encoder:
    id = "test"

    def align(self, photo: UprightPhoto, _face: DetectedFace) -> AlignedFace:
        grey = round(float(photo.at_least(64).mean()))
        chip = np.full((150, 150, 3), grey, np.uint8)
        return AlignedFace(chip, np.array([(1, 0), (5, 0)], dtype=np.float64), np.array([3.0, 3.0]))

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.repeat(chips[:, 0, 0, :1], 128, axis=1).astype(np.float32)


def encoding(kind: Detector = Detector.HOG, score: float = 1.0, **settings: Any) -> Encoding:
    flat = {"minimum_quality": {"sharpness": None, "brightness": None}}  # photos of one grey are neither
    return Encoding(Settings(**(flat | settings)), Faces(kind, score), cast(FaceEncoder, Encoder()))


def intake(
    pool: Detector = Detector.HOG,
    erased: Erased = NOBODY,
    read_photo: Callable[[Photo], bytes] = lambda _: b"photo",
    **settings: Any,
) -> Intake:
    return Intake(Settings(**settings), pool, read_photo, KEY, erased)


Work = tuple[StoredRecord, bytes]


def task_of(record: StoredRecord, photo: bytes) -> Task:
    message = decode(record)
    assert has_event(message, Registration)
    return Task.of(message, photo)


def answers(encoding: Encoding, *works: Work) -> list[Answer]:
    """As the step does it: what a process makes of each task, for the record that it came of."""
    tasks = [task_of(record, photo) for record, photo in works]
    results = encoding.encode(tasks)
    return [answer_to(record, task, result) for (record, _), task, result in zip(works, tasks, results, strict=True)]


def event_of(answer: Answer) -> Event:
    """The event of an answer, which is that of the record that is published."""
    assert answer.message is not None
    assert encode(answer.message) == answer.record
    return decode(answer.record).event


def reason_of(answer: Answer) -> RejectionReason:
    event = event_of(answer)
    assert isinstance(event, EncodingRejected)
    assert (answer.outcome, answer.reason) == (Outcome.REJECTED, event.reason)
    return event.reason


def escalation_of(answer: Answer) -> str:
    assert (answer.outcome, answer.record.topic) == (Outcome.ESCALATED, "escalations")
    reason = (dict(answer.record.headers)[ESCALATION_REASON] or b"").decode()
    assert answer.reason == reason
    return reason


@pytest.mark.parametrize(
    ("settings", "detector", "expected"),
    [
        ({}, None, None),
        ({}, Detector.HOG, None),
        ({}, Detector.CNN, "asked_for_cnn"),
        ({"routing": "cpu"}, None, None),
        ({"routing": "cpu"}, Detector.CNN, "asked_for_cnn"),
        ({"routing": "gpu"}, None, "routed_to_gpu"),
        ({"routing": "gpu"}, Detector.HOG, None),
        ({"collections": {"c": {"routing": "gpu"}}}, None, "routed_to_gpu"),
        ({"routing": "gpu", "collections": {"c": {"routing": "cascade"}}}, None, None),
    ],
)
def test_the_setting_or_the_event_says_which_pool(
    settings: dict[str, Any], detector: Detector | None, expected: str | None
) -> None:
    prepared = intake(**settings).prepare(registration(detector=detector))
    if expected is None:
        assert prepared.task is not None
        assert prepared.answers == []
    else:
        assert prepared.task is None
        assert [escalation_of(answer) for answer in prepared.answers] == [expected]
    assert intake(Detector.CNN, **settings).prepare(registration(detector=detector)).task is not None


@pytest.mark.parametrize(
    ("routing", "detector", "escalates"),
    [("cascade", None, True), ("cascade", Detector.HOG, False), ("cpu", None, False), ("gpu", None, False)],
)
def test_what_hog_finds_no_face_in_is_escalated_only_in_a_cascade(
    routing: str, detector: Detector | None, escalates: bool
) -> None:
    (answer,) = answers(encoding(routing=routing), (registration(detector=detector), jpeg(0)))
    if escalates:
        assert escalation_of(answer) == "no_face_by_hog"
    else:
        assert reason_of(answer) is RejectionReason.NO_FACE
    (answer,) = answers(encoding(Detector.CNN, routing=routing), (registration(detector=detector), jpeg(0)))
    assert reason_of(answer) is RejectionReason.NO_FACE


def test_an_escalation_is_the_event_as_it_came() -> None:
    record = registration()
    (answer,) = answers(encoding(), (record, jpeg(0)))
    assert (answer.record.key, answer.record.value) == (record.key, record.value)
    assert answer.record.headers[:-1] == record.headers


def test_each_task_of_a_batch_has_its_own_answer_in_order() -> None:
    photos = [jpeg(10), b"no photo", jpeg(0), jpeg(20), jpeg(11)]
    found = answers(encoding(), *((registration(f"p{i}"), photo) for i, photo in enumerate(photos)))
    assert [answer.record.key for answer in found] == [f"c/p{i}".encode() for i in range(5)]
    first, last = event_of(found[0]), event_of(found[4])
    assert isinstance(first, EncodingComputed)
    assert isinstance(last, EncodingComputed)
    assert (first.embedding[0], last.embedding[0]) == (10, 11)
    assert reason_of(found[1]) is RejectionReason.PHOTO_UNREADABLE
    assert escalation_of(found[2]) == "no_face_by_hog"
    assert reason_of(found[3]) is RejectionReason.SEVERAL_FACES


def test_a_collection_may_take_the_largest_of_several_faces() -> None:
    settings: dict[str, Any] = {"collections": {"lenient": {"several_faces": "largest"}}}
    (answer,) = answers(encoding(**settings), (registration(collection="lenient"), jpeg(20)))
    event = event_of(answer)
    assert isinstance(event, EncodingComputed)
    assert event.face.right == 40


def test_an_encoding_carries_its_quality_and_a_minimum_rejects() -> None:
    (answer,) = answers(encoding(), (registration(), jpeg(10)))
    event = event_of(answer)
    assert isinstance(event, EncodingComputed)
    assert event.encoder == "test"
    assert event.quality.face_pixels == 40
    assert event.quality.brightness == pytest.approx(10, abs=0.1)
    strict: dict[str, Any] = {"collections": {"c": {"minimum_quality": {"face_pixels": 60}}}}
    (answer,) = answers(encoding(**strict), (registration(), jpeg(10)))
    assert reason_of(answer) is RejectionReason.FACE_TOO_SMALL
    rejection = event_of(answer)
    assert isinstance(rejection, EncodingRejected)
    assert "40 pixels wide; at least 60" in rejection.detail
    (answer,) = answers(encoding(**strict), (registration(collection="other"), jpeg(10)))
    assert answer.record.topic == "encodings"


def test_a_face_that_hog_is_not_sure_of_is_looked_at_by_the_cnn_before_it_is_rejected() -> None:
    (answer,) = answers(encoding(score=0.05), (registration(), jpeg(10)))
    assert escalation_of(answer) == "uncertain_face_by_hog"
    for kind, routing in ((Detector.CNN, "cascade"), (Detector.HOG, "cpu")):
        (answer,) = answers(encoding(kind, 0.05, routing=routing), (registration(), jpeg(10)))
        assert reason_of(answer) is RejectionReason.FACE_UNCERTAIN


def test_where_no_face_is_found_the_rejection_tells_how_large_one_must_be() -> None:
    (answer,) = answers(encoding(Detector.CNN), (registration(), jpeg(0)))
    rejection = event_of(answer)
    assert isinstance(rejection, EncodingRejected)
    assert "a face must be at least 6 pixels wide" in rejection.detail


@pytest.mark.parametrize(
    ("minimum", "reason"),
    [
        ({}, RejectionReason.FACE_TOO_DARK),
        ({"brightness": None}, RejectionReason.FACE_BLURRED),
        ({"brightness": None, "face_pixels": 40}, RejectionReason.FACE_BLURRED),
    ],
)
def test_unless_it_is_set_otherwise_what_matches_nobody_is_rejected(
    minimum: dict[str, float | None], reason: RejectionReason
) -> None:
    (answer,) = answers(encoding(minimum_quality=minimum), (registration(), jpeg(10)))
    assert reason_of(answer) is reason


def test_an_erasure_needs_no_network_and_an_unreadable_record_is_a_dead_letter() -> None:
    event = IndividualDeleted(collection="c", individual_id="x", revision=2)
    prepared = intake().prepare(stored(encode(announce(event, "test"))))
    assert prepared.task is None
    erasure, tombstone = (event_of(answer) for answer in prepared.answers)
    assert erasure == KEY.erasure_of("c", "x", 2)
    assert tombstone == EncodingErased(collection="c", individual_id="x", revision=2)
    (letter,) = intake().prepare(StoredRecord("individuals", b"c/x", b"{}", (), 0, 7, 0)).answers
    assert (letter.outcome, letter.record.topic) == (Outcome.DEAD_LETTER, "dead-letters")


def moved(revision: int = 2) -> StoredRecord:
    photo = Photo(uri="file:///x.jpg")
    event = IndividualUpdated(collection="d", individual_id="x", revision=revision, photo=photo, moved_from="c")
    return stored(encode(announce(event, "test")))


def test_who_moves_to_another_collection_is_erased_from_the_one_before() -> None:
    prepared = intake().prepare(moved())
    assert prepared.task is not None
    assert [event_of(answer) for answer in prepared.answers] == [
        KEY.erasure_of("c", "x", 2),
        EncodingErased(collection="c", individual_id="x", revision=2),
    ]
    erasure, tombstone, escalation = intake(routing="gpu").prepare(moved()).answers
    assert {erasure.record.topic, tombstone.record.topic} == {"erasures", "encodings"}
    assert escalation_of(escalation) == "routed_to_gpu"
    assert intake(Detector.CNN).prepare(moved()).answers == [], "the CPU pool has said so"


@pytest.mark.parametrize("pool", list(Detector))
def test_of_who_was_erased_nothing_up_to_that_revision_is_encoded_again(pool: Detector) -> None:
    erased = Erased(KEY)
    erased.add(announce(KEY.erasure_of("c", "x", 1), "test"))
    prepared = intake(pool, erased).prepare(registration())
    assert (list(prepared.answers), prepared.task) == ([], None)
    assert intake(pool, erased).prepare(registration("y")).task is not None
    assert intake(pool, erased).prepare(registration(collection="other")).task is not None
    assert intake(pool, erased).prepare(moved()).task is not None


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (CrashedError(), RejectionReason.PHOTO_UNREADABLE),
        (OutOfTimeError(), RejectionReason.PHOTO_TOO_LARGE),
        (StuckError(), RejectionReason.PHOTO_UNAVAILABLE),
    ],
)
def test_a_photo_that_its_process_died_of_is_rejected_and_what_is_slow_is_not_unreadable(
    failure: TaskFailedError, reason: RejectionReason
) -> None:
    record = registration()
    assert reason_of(answer_to(record, task_of(record, b""), failure)) is reason


def test_an_inline_photo_travels_to_a_process_once_and_its_escalation_has_it_all_the_same() -> None:
    photo = jpeg(0) + bytes(600_000)
    event = IndividualCreated(
        collection="c", individual_id="x", revision=1, photo=Photo(inline=base64.b64encode(photo).decode())
    )
    record = stored(encode(announce(event, "test")))
    task = intake(read_photo=lambda _: photo).prepare(record).task
    assert task is not None
    assert len(pickle.dumps(task)) < len(photo) + 2_000
    (answer,) = answers(encoding(), (record, task.photo))
    assert escalation_of(answer) == "no_face_by_hog"
    assert answer.record.value == record.value
