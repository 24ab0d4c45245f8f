"""Photos → embeddings or rejections, for several at once, in a process of the pool. Pure.

What comes before, in the worker itself, is `consumers.encoder.intake`.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.encoder.answers import Escalation, Result, Task, rejection
from consumers.faces.detected import DetectedFace
from consumers.faces.detectors import FaceDetector
from consumers.faces.encoder import Encoder
from consumers.faces.quality import brightness, check, frontality, sharpness
from consumers.photos.file import Guard, PhotoFile, TurnedPhoto
from consumers.photos.rejected import RejectedError
from schemas.envelope import Message, Source
from schemas.events.base import Detector, Event
from schemas.events.encodings import EncodingComputed, Quality, RejectionReason
from schemas.events.registrations import Registration
from schemas.settings import Settings


class Encoding:
    """The part with the networks: one pool's detector, and the encoder that all pools share."""

    def __init__(self, settings: Settings, detector: FaceDetector, encoder: Encoder) -> None:
        self._settings = settings
        self._detector = detector
        self._encoder = encoder

    @property
    def provider(self) -> str:
        """What the detector runs on: "cpu" or "cuda"."""
        return self._detector.provider

    def encode(self, tasks: Sequence[Task], guards: Sequence[Guard] = ()) -> list[Result]:
        """The result of each task, in their order: an encoding, a rejection, or an escalation to the GPU pool.

        `guards`, one for each task, are around whatever reads the file of its photo.
        """
        results: dict[int, Result] = {}
        subjects: dict[int, _Subject] = {}
        photos = [
            PhotoFile(task.photo, self._settings.max_photo_pixels, guard)
            for task, guard in zip(tasks, guards or [nullcontext] * len(tasks), strict=True)
        ]
        for i, faces in enumerate(self._detector.find(photos)):
            message = tasks[i].message
            event = message.event
            try:
                if faces == [] and self._may_escalate(event):
                    results[i] = Escalation(f"no_face_by_{self._detector.kind}")
                else:
                    subjects[i] = self._subject(event, photos[i], faces)
            except RejectedError as error:
                uncertain = error.reason is RejectionReason.FACE_UNCERTAIN and self._may_escalate(event)
                results[i] = (
                    Escalation(f"uncertain_face_by_{self._detector.kind}") if uncertain else rejection(message, error)
                )
        if subjects:
            embeddings = self._encoder.embed(np.stack([subject.chip for subject in subjects.values()]))
            for (i, subject), embedding in zip(subjects.items(), embeddings, strict=True):
                results[i] = self._computed(tasks[i].message, subject, embedding)
        return [results[i] for i in range(len(tasks))]

    def _may_escalate(self, event: Registration) -> bool:
        routing = self._settings.routing_for(event.collection)
        return self._detector.kind is not Detector.CNN and event.detector is None and routing == "cascade"

    def _subject(self, event: Registration, photo: PhotoFile, faces: list[DetectedFace] | RejectedError) -> "_Subject":
        """The photo's one face, good enough to be compared. Raises RejectedError."""
        if isinstance(faces, RejectedError):
            raise faces
        if not faces:
            raise RejectedError(
                RejectionReason.NO_FACE,
                "no face was found: take the photo again from the front, in good light, without a mask; in this one a "
                f"face must be at least {photo.long_side // 10} pixels wide",
            )
        if len(faces) > 1 and self._settings.several_faces_for(event.collection) == "reject":
            raise RejectedError(
                RejectionReason.SEVERAL_FACES,
                f"{len(faces)} faces were found that may be the subject: take the photo again with one person "
                "in it, or set several_faces to 'largest' for this collection",
            )
        face = faces[0]
        aligned = self._encoder.align(TurnedPhoto(photo, face.turns) if face.turns else photo, face)
        quality = Quality(
            face_pixels=face.width,
            detector_score=face.score,
            sharpness=sharpness(aligned.chip),
            brightness=brightness(aligned.chip),
            frontality=frontality(aligned.eyes, aligned.nose),
        )
        check(quality, self._settings.minimum_quality_for(event.collection))
        return _Subject(face, aligned.chip, quality)

    def _computed(
        self, message: Message[Registration], subject: "_Subject", embedding: NDArray[np.float32]
    ) -> Message[Event]:
        event = message.event
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
        return message.derive(computed, Source.ENCODER)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The face that is encoded of a photo. `chip`: uint8 RGB of shape (side, side, 3)."""

    face: DetectedFace
    chip: NDArray[np.uint8]
    quality: Quality
