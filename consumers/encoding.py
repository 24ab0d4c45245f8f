"""What happens to one event about an individual: the records that follow from it. Pure but for the photo store."""

from collections.abc import Callable

from consumers.faces import FaceEncoder, largest
from consumers.photos import RejectedError, decode_photo
from schemas.envelope import Message, Record, UnreadableError, dead_letter, decode, encode
from schemas.events import (
    Detector,
    EncodingComputed,
    EncodingErased,
    EncodingRejected,
    Event,
    FaceBox,
    IndividualDeleted,
    Photo,
    Registration,
    RejectionReason,
)
from schemas.settings import Settings
from schemas.topics import ESCALATIONS

SOURCE = "facematch/encoder"
ESCALATION_REASON = "escalation_reason"

ReadPhoto = Callable[[Photo], bytes]


class EscalatedError(Exception):
    """The CPU pool cannot encode this photo, the GPU pool may. The text says why."""


class Encoding:
    """One pool's handling of events. `read_photo` raises RejectedError, as everything about a photo does."""

    def __init__(self, settings: Settings, encoder: FaceEncoder, read_photo: ReadPhoto) -> None:
        self._settings = settings
        self._encoder = encoder
        self._read_photo = read_photo

    def handle(self, record: Record) -> Record:
        """The one record that answers this one.

        An encoding or its tombstone, a rejection, an escalation to the GPU pool, or a dead letter.
        """
        try:
            message = decode(record)
        except UnreadableError as error:
            return dead_letter(record, error, SOURCE)
        if isinstance(message.event, IndividualDeleted):
            return encode(message.derive(_erased(message.event), SOURCE))
        assert isinstance(message.event, Registration)
        try:
            return encode(message.derive(self._encode(message.event), SOURCE))
        except RejectedError as rejected:
            return encode(message.derive(_rejection(message, message.event, rejected), SOURCE))
        except EscalatedError as reason:
            headers = (*record.headers, (ESCALATION_REASON, str(reason).encode()))
            return Record(ESCALATIONS.name, record.key, record.value, headers)

    def _encode(self, registration: Registration) -> EncodingComputed:
        in_cpu_pool = self._encoder.detector is Detector.HOG
        if in_cpu_pool and registration.detector is Detector.CNN:
            raise EscalatedError("asked_for_cnn")
        photo = decode_photo(self._read_photo(registration.photo), self._settings.max_photo_pixels)
        faces = self._encoder.find(photo)
        if not faces and in_cpu_pool and registration.detector is None:
            raise EscalatedError("no_face_by_hog")
        face = self._subject(registration.collection, faces)
        return EncodingComputed(
            collection=registration.collection,
            individual_id=registration.individual_id,
            revision=registration.revision,
            encoder=self._encoder.id,
            embedding=self._encoder.embed(photo, face),
            face=face,
            detector=self._encoder.detector,
        )

    def _subject(self, collection: str, faces: list[FaceBox]) -> FaceBox:
        if not faces:
            raise RejectedError(
                RejectionReason.NO_FACE,
                "no face was found: take the photo again from the front, in good light, without a mask",
            )
        if len(faces) > 1 and self._settings.several_faces_for(collection) == "reject":
            raise RejectedError(
                RejectionReason.SEVERAL_FACES,
                f"{len(faces)} faces were found: take the photo again with one person in it, or set "
                "several_faces to 'largest' for this collection",
            )
        return largest(faces)


def _erased(event: IndividualDeleted) -> EncodingErased:
    return EncodingErased(collection=event.collection, individual_id=event.individual_id, revision=event.revision)


def _rejection(message: Message[Event], registration: Registration, rejected: RejectedError) -> EncodingRejected:
    return EncodingRejected(
        collection=registration.collection,
        individual_id=registration.individual_id,
        revision=registration.revision,
        reason=rejected.reason,
        detail=str(rejected),
        event_id=message.id,
    )
