"""What happens to events about individuals: the records that follow from them. Pure but for the photo store.

`Intake` is what needs no network: it reads the event, decides who encodes it, and fetches the photo, in a thread of
the worker. `Encoding` is the rest, for several photos at once, in a process of the pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.faces import FaceDetector, FaceEncoder, Found
from consumers.photos import PhotoFile, RejectedError
from consumers.quality import brightness, check, frontality, sharpness
from consumers.task_pool import Taken
from schemas import logs
from schemas.envelope import Message, Record, UnreadableError, decode, encode
from schemas.erased import Erased, ErasureKey
from schemas.events import (
    Detector,
    EncodingComputed,
    EncodingErased,
    EncodingRejected,
    Event,
    IndividualDeleted,
    IndividualEvent,
    IndividualUpdated,
    Photo,
    Quality,
    Registration,
    RejectionReason,
)
from schemas.letters import dead_letter
from schemas.settings import Settings
from schemas.topics import ESCALATIONS

SOURCE = "facematch/encoder"
ESCALATION_REASON = "escalation_reason"

ReadPhoto = Callable[[Photo], bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """A registration whose photo is to be encoded: the record as it came, and the photo file."""

    record: Record
    photo: bytes


class Intake:
    """The part before the networks. `read_photo` raises RejectedError, as everything about a photo does.

    What `erased` forbids is not encoded: it is answered by nothing.
    """

    def __init__(
        self, settings: Settings, pool: Detector, read_photo: ReadPhoto, key: ErasureKey, erased: Erased
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._read_photo = read_photo
        self._key = key
        self._erased = erased

    def take(self, record: Record) -> Taken[Task, Record]:
        """What follows at once (tombstones, a dead letter, an escalation, a rejection), and what is to be encoded."""
        try:
            message = decode(record)
        except UnreadableError as error:
            return Taken([dead_letter(record, error, SOURCE)])
        event = message.event
        if isinstance(event, IndividualDeleted):
            return Taken(self._erasure(message, event.collection))
        assert isinstance(event, Registration)
        left = []
        if isinstance(event, IndividualUpdated) and event.moved_from is not None and self._pool is Detector.HOG:
            left = self._erasure(message, event.moved_from)
        if self._erased.forbids(message):
            return Taken(left)
        escalation = self._escalation(event)
        if escalation is not None:
            return Taken([*left, escalated(record, escalation)])
        try:
            with logs.about(message):
                return Taken(left, Task(record, self._read_photo(event.photo)))
        except RejectedError as error:
            return Taken([*left, rejected(message, error)])

    def _escalation(self, event: Registration) -> str | None:
        """Why the other pool encodes it, None where this one does."""
        if self._pool is Detector.CNN:
            return None
        if event.detector is Detector.CNN:
            return "asked_for_cnn"
        if event.detector is None and self._settings.routing_for(event.collection) == "gpu":
            return "routed_to_gpu"
        return None

    def _erasure(self, message: Message[Event], collection: str) -> list[Record]:
        """The tombstone of an individual of a collection, and what is kept of them when Kafka has dropped that."""
        event = message.event
        assert isinstance(event, IndividualEvent)
        tombstone = EncodingErased(collection=collection, individual_id=event.individual_id, revision=event.revision)
        erasure = self._key.erasure_of(collection, event.individual_id, event.revision)
        return [encode(message.derive(one, SOURCE)) for one in (erasure, tombstone)]


class Encoding:
    """The part with the networks: one pool's detector, and the encoder that all pools share."""

    def __init__(self, settings: Settings, detector: FaceDetector, encoder: FaceEncoder) -> None:
        self._settings = settings
        self._detector = detector
        self._encoder = encoder

    @property
    def provider(self) -> str:
        """What the detector runs on: "cpu" or "cuda"."""
        return self._detector.provider

    def answers(self, tasks: Sequence[Task]) -> list[Record]:
        """The one record that answers each task: an encoding, a rejection, or an escalation to the GPU pool."""
        messages = [decode(task.record) for task in tasks]
        answers: dict[int, Record] = {}
        subjects: dict[int, _Subject] = {}
        photos = [PhotoFile(task.photo, self._settings.max_photo_pixels) for task in tasks]
        for i, faces in enumerate(self._detector.find(photos)):
            event = messages[i].event
            assert isinstance(event, Registration)
            try:
                if faces == [] and self._may_escalate(event):
                    answers[i] = escalated(tasks[i].record, "no_face_by_hog")
                else:
                    subjects[i] = self._subject(event, photos[i], faces)
            except RejectedError as error:
                answers[i] = rejected(messages[i], error)
        if subjects:
            embeddings = self._encoder.embed(np.stack([subject.chip for subject in subjects.values()]))
            for (i, subject), embedding in zip(subjects.items(), embeddings, strict=True):
                answers[i] = self._computed(messages[i], subject, embedding)
        return [answers[i] for i in range(len(tasks))]

    def _may_escalate(self, event: Registration) -> bool:
        routing = self._settings.routing_for(event.collection)
        return self._detector.kind is Detector.HOG and event.detector is None and routing == "cascade"

    def _subject(self, event: Registration, photo: PhotoFile, faces: list[Found] | RejectedError) -> "_Subject":
        """The photo's one face, good enough to be compared. Raises RejectedError."""
        if isinstance(faces, RejectedError):
            raise faces
        if not faces:
            raise RejectedError(
                RejectionReason.NO_FACE,
                "no face was found: take the photo again from the front, in good light, without a mask",
            )
        if len(faces) > 1 and self._settings.several_faces_for(event.collection) == "reject":
            raise RejectedError(
                RejectionReason.SEVERAL_FACES,
                f"{len(faces)} faces of about one size were found: take the photo again with one person in it, or set "
                "several_faces to 'largest' for this collection",
            )
        face = faces[0]
        aligned = self._encoder.align(photo, face)
        quality = Quality(
            face_pixels=face.width,
            detector_score=face.score,
            sharpness=sharpness(aligned.chip),
            brightness=brightness(aligned.chip),
            frontality=frontality(aligned.landmarks),
        )
        check(quality, self._settings.minimum_quality_for(event.collection))
        return _Subject(face, aligned.chip, quality)

    def _computed(self, message: Message[Event], subject: "_Subject", embedding: NDArray[np.float32]) -> Record:
        event = message.event
        assert isinstance(event, Registration)
        computed = EncodingComputed(
            collection=event.collection,
            individual_id=event.individual_id,
            revision=event.revision,
            encoder=self._encoder.id,
            embedding=embedding,
            face=subject.face.box,
            detector=self._detector.kind,
            quality=subject.quality,
        )
        return encode(message.derive(computed, SOURCE))


@dataclass(frozen=True, slots=True)
class _Subject:
    face: Found
    chip: NDArray[np.uint8]
    quality: Quality


def escalated(record: Record, reason: str) -> Record:
    """The event as it came, for the GPU pool, and why."""
    return Record(ESCALATIONS.name, record.key, record.value, (*record.headers, (ESCALATION_REASON, reason.encode())))


def rejected(message: Message[Event], error: RejectedError) -> Record:
    """The rejection of a registration."""
    event = message.event
    assert isinstance(event, Registration)
    rejection = EncodingRejected(
        collection=event.collection,
        individual_id=event.individual_id,
        revision=event.revision,
        reason=error.reason,
        detail=str(error),
        event_id=message.id,
    )
    return encode(message.derive(rejection, SOURCE))


def given_up(task: Task) -> Record:
    """The rejection of a photo that a native library crashed on, or that took too long, twice."""
    return rejected(
        decode(task.record),
        RejectedError(
            RejectionReason.PHOTO_UNREADABLE,
            "reading this photo ended the process that did it, or took too long, twice: send it again as a plain JPEG",
        ),
    )


def too_large_for_memory(task: Task) -> Record:
    """The rejection of a photo that a process has not enough memory for, though it does nothing else."""
    return rejected(
        decode(task.record),
        RejectedError(
            RejectionReason.PHOTO_TOO_LARGE,
            "unpacking this photo takes more memory than a process has: send a smaller copy, or raise "
            "FACEMATCH_ENCODER_MEMORY_MB and replay the event",
        ),
    )
