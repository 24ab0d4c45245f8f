"""Which pool encodes, what is rejected and why, and that every task of a batch has its own answer."""

import io
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import SecretStr

from consumers.encoder.answers import ESCALATION_REASON, Task, given_up
from consumers.encoder.encoding import Encoding
from consumers.encoder.intake import Intake
from consumers.faces.encoder import Aligned, FaceEncoder
from consumers.faces.found import FoundFace
from consumers.photos.file import PhotoFile
from consumers.photos.rejected import RejectedError
from schemas.envelope import Record, announce, decode, encode
from schemas.erased import NOBODY, Erased, ErasureKey
from schemas.events.base import Detector
from schemas.events.encodings import EncodingComputed, EncodingErased, EncodingRejected, RejectionReason
from schemas.events.registrations import IndividualCreated, IndividualDeleted, IndividualUpdated, Photo
from schemas.settings import Settings

KEY = ErasureKey(SecretStr("0123456789abcdef" * 2))


def jpeg(grey: int) -> bytes:
    """A photo whose brightness is known by its grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (grey, grey, grey)).save(buffer, "JPEG")
    return buffer.getvalue()


def registration(who: str = "x", collection: str = "c", detector: Detector | None = None) -> Record:
    photo = Photo(uri="file:///x.jpg")
    event = IndividualCreated(collection=collection, individual_id=who, revision=1, photo=photo, detector=detector)
    return encode(announce(event, "test"))


class Faces:
    """A detector that finds as many faces as the photo's grey says, in tens: 0 in 0, 1 in 10, 2 in 20."""

    provider = "cpu"

    def __init__(self, kind: Detector) -> None:
        self.kind = kind

    def find(self, photos: Sequence[PhotoFile]) -> list[list[FoundFace] | RejectedError]:
        answers: list[list[FoundFace] | RejectedError] = []
        for photo in photos:
            try:
                count = round(float(photo.at_least(64).mean()) / 10)
            except RejectedError as error:
                answers.append(error)
                continue
            answers.append([FoundFace(0, 40 - i, 40 - i, 0, 1.0) for i in range(count)])
        return answers


class Encoder:
    id = "test"

    def align(self, photo: PhotoFile, _face: FoundFace) -> Aligned:
        grey = round(float(photo.at_least(64).mean()))
        chip = np.full((150, 150, 3), grey, np.uint8)
        return Aligned(chip, np.array([(0, 0), (2, 0), (4, 0), (6, 0), (3, 3)], dtype=np.float64))

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.repeat(chips[:, 0, 0, :1], 128, axis=1).astype(np.float32)


def encoding(kind: Detector = Detector.HOG, **settings: Any) -> Encoding:
    return Encoding(Settings(**settings), Faces(kind), cast(FaceEncoder, Encoder()))


def intake(pool: Detector = Detector.HOG, erased: Erased = NOBODY, **settings: Any) -> Intake:
    return Intake(Settings(**settings), pool, lambda _: b"photo", KEY, erased)


def reason_of(record: Record) -> RejectionReason:
    event = decode(record).event
    assert isinstance(event, EncodingRejected)
    return event.reason


def escalation_of(record: Record) -> str:
    assert record.topic == "escalations"
    return (dict(record.headers)[ESCALATION_REASON] or b"").decode()


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
    taken = intake(**settings).take(registration(detector=detector))
    if expected is None:
        assert taken.task is not None
        assert taken.answers == []
    else:
        assert taken.task is None
        assert [escalation_of(answer) for answer in taken.answers] == [expected]
    assert intake(Detector.CNN, **settings).take(registration(detector=detector)).task is not None


@pytest.mark.parametrize(
    ("routing", "detector", "escalates"),
    [("cascade", None, True), ("cascade", Detector.HOG, False), ("cpu", None, False), ("gpu", None, False)],
)
def test_what_hog_finds_no_face_in_is_escalated_only_in_a_cascade(
    routing: str, detector: Detector | None, escalates: bool
) -> None:
    (answer,) = encoding(routing=routing).answers([Task(registration(detector=detector), jpeg(0))])
    if escalates:
        assert escalation_of(answer) == "no_face_by_hog"
    else:
        assert reason_of(answer) is RejectionReason.NO_FACE
    (answer,) = encoding(Detector.CNN, routing=routing).answers([Task(registration(detector=detector), jpeg(0))])
    assert reason_of(answer) is RejectionReason.NO_FACE


def test_an_escalation_is_the_event_as_it_came() -> None:
    record = registration()
    (answer,) = encoding().answers([Task(record, jpeg(0))])
    assert (answer.key, answer.value) == (record.key, record.value)
    assert answer.headers[:-1] == record.headers


def test_each_task_of_a_batch_has_its_own_answer_in_order() -> None:
    photos = [jpeg(10), b"no photo", jpeg(0), jpeg(20), jpeg(11)]
    tasks = [Task(registration(f"p{i}"), photo) for i, photo in enumerate(photos)]
    answers = encoding().answers(tasks)
    assert [answer.key for answer in answers] == [f"c/p{i}".encode() for i in range(5)]
    first, last = decode(answers[0]).event, decode(answers[4]).event
    assert isinstance(first, EncodingComputed)
    assert isinstance(last, EncodingComputed)
    assert (first.embedding[0], last.embedding[0]) == (10, 11)
    assert reason_of(answers[1]) is RejectionReason.PHOTO_UNREADABLE
    assert escalation_of(answers[2]) == "no_face_by_hog"
    assert reason_of(answers[3]) is RejectionReason.SEVERAL_FACES


def test_a_collection_may_take_the_largest_of_several_faces() -> None:
    settings: dict[str, Any] = {"collections": {"lenient": {"several_faces": "largest"}}}
    (answer,) = encoding(**settings).answers([Task(registration(collection="lenient"), jpeg(20))])
    event = decode(answer).event
    assert isinstance(event, EncodingComputed)
    assert event.face.right == 40


def test_an_encoding_carries_its_quality_and_a_minimum_rejects() -> None:
    (answer,) = encoding().answers([Task(registration(), jpeg(10))])
    event = decode(answer).event
    assert isinstance(event, EncodingComputed)
    assert event.encoder == "test"
    assert event.quality.face_pixels == 40
    assert event.quality.brightness == pytest.approx(10, abs=0.1)
    strict: dict[str, Any] = {"collections": {"c": {"minimum_quality": {"face_pixels": 60}}}}
    (answer,) = encoding(**strict).answers([Task(registration(), jpeg(10))])
    assert reason_of(answer) is RejectionReason.FACE_TOO_SMALL
    rejection = decode(answer).event
    assert isinstance(rejection, EncodingRejected)
    assert "40 pixels wide; at least 60" in rejection.detail
    (answer,) = encoding(**strict).answers([Task(registration(collection="other"), jpeg(10))])
    assert answer.topic == "encodings"


def test_an_erasure_needs_no_network_and_an_unreadable_record_is_a_dead_letter() -> None:
    event = IndividualDeleted(collection="c", individual_id="x", revision=2)
    taken = intake().take(encode(announce(event, "test")))
    assert taken.task is None
    erasure, tombstone = (decode(answer).event for answer in taken.answers)
    assert erasure == KEY.erasure_of("c", "x", 2)
    assert tombstone == EncodingErased(collection="c", individual_id="x", revision=2)
    (letter,) = intake().take(Record("individuals", b"c/x", b"{}", partition=0, offset=7)).answers
    assert letter.topic == "dead-letters"


def moved(revision: int = 2) -> Record:
    photo = Photo(uri="file:///x.jpg")
    event = IndividualUpdated(collection="d", individual_id="x", revision=revision, photo=photo, moved_from="c")
    return encode(announce(event, "test"))


def test_who_moves_to_another_collection_is_erased_from_the_one_before() -> None:
    taken = intake().take(moved())
    assert taken.task is not None
    assert [decode(answer).event for answer in taken.answers] == [
        KEY.erasure_of("c", "x", 2),
        EncodingErased(collection="c", individual_id="x", revision=2),
    ]
    erasure, tombstone, escalation = intake(routing="gpu").take(moved()).answers
    assert {erasure.topic, tombstone.topic} == {"erasures", "encodings"}
    assert escalation_of(escalation) == "routed_to_gpu"
    assert intake(Detector.CNN).take(moved()).answers == [], "the CPU pool has said so"


@pytest.mark.parametrize("pool", list(Detector))
def test_of_who_was_erased_nothing_up_to_that_revision_is_encoded_again(pool: Detector) -> None:
    erased = Erased(KEY)
    erased.add(announce(KEY.erasure_of("c", "x", 1), "test"))
    taken = intake(pool, erased).take(registration())
    assert (list(taken.answers), taken.task) == ([], None)
    assert intake(pool, erased).take(registration("y")).task is not None
    assert intake(pool, erased).take(registration(collection="other")).task is not None
    assert intake(pool, erased).take(moved()).task is not None


def test_a_photo_that_ended_its_process_twice_is_unreadable() -> None:
    assert reason_of(given_up(Task(registration(), b""))) is RejectionReason.PHOTO_UNREADABLE
