"""Answers of the encoder to a record: what became of it, and the record that is published about that. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from consumers.encoder.pool.task_pool import CrashedError, OutOfTimeError, TaskFailedError
from consumers.photos.rejected import RejectedError
from schemas.envelope import Message, Record, Source, StoredRecord, UnreadableError, encode
from schemas.erased import ErasureKey
from schemas.events.base import Event, IndividualEvent
from schemas.events.encodings import EncodingErased, EncodingRejected, RejectionReason
from schemas.events.registrations import Photo, Registration
from schemas.letters import dead_letter
from schemas.topics import ESCALATIONS

ESCALATION_REASON = "escalation_reason"
_PHOTO_ELSEWHERE = Photo(uri="about:blank")


class Outcome(StrEnum):
    """What became of a record."""

    ENCODED = "encoded"
    REJECTED = "rejected"
    ESCALATED = "escalated"
    ERASED = "erased"
    ERASURE_NOTED = "erasure_noted"
    """Beside ERASED: the keyed hash on `erasures`, by which later workers know."""
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """One answer to a record, as it is published.

    `message` is what `record` holds: of an escalation the registration without its photo, of a dead letter nothing.
    `reason` says why something was rejected, escalated or not readable.
    """

    outcome: Outcome
    message: Message[Event] | None
    record: Record
    reason: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """A photo to be encoded: the file, and the registration, whose event no longer holds it."""

    message: Message[Registration]
    photo: bytes

    @classmethod
    def of(cls, message: Message[Registration], photo: bytes) -> Self:
        """A task for a process: an inline photo is not sent there twice."""
        event = message.event
        if event.photo.inline is None:
            return cls(message, photo)
        return cls(replace(message, event=event.model_copy(update={"photo": _PHOTO_ELSEWHERE})), photo)


@dataclass(frozen=True, slots=True)
class Escalation:
    """The GPU pool is to look at the photo, and why."""

    reason: str


Result = Message[Event] | Escalation
"""What a process makes of a task: an EncodingComputed, an EncodingRejected, or an escalation."""


def answer_to(record: StoredRecord, task: Task, result: Result | TaskFailedError) -> Answer:
    """The answer to a record whose task a process has done, or has died of."""
    if isinstance(result, TaskFailedError):
        result = rejection(task.message, _rejection_for(result))
    if isinstance(result, Escalation):
        return escalated(record, task.message, result.reason)
    if isinstance(result.event, EncodingRejected):
        return Answer(Outcome.REJECTED, result, encode(result), result.event.reason)
    return Answer(Outcome.ENCODED, result, encode(result))


def escalated(record: StoredRecord, message: Message[Event], reason: str) -> Answer:
    """The event as it came, for the GPU pool, and why."""
    headers = (*record.headers, (ESCALATION_REASON, reason.encode()))
    return Answer(Outcome.ESCALATED, message, Record(ESCALATIONS.name, record.key, record.value, headers), reason)


def rejection(message: Message[Registration], error: RejectedError) -> Message[Event]:
    """The rejection of a registration."""
    event = message.event
    rejected = EncodingRejected(
        collection=event.collection,
        individual_id=event.individual_id,
        revision=event.revision,
        reason=error.reason,
        detail=str(error),
        event_id=message.id,
    )
    return message.derive(rejected, Source.ENCODER)


def rejected(message: Message[Registration], error: RejectedError) -> Answer:
    """The answer to a registration that no process has to look at."""
    derived = rejection(message, error)
    return Answer(Outcome.REJECTED, derived, encode(derived), error.reason)


def erased(message: Message[IndividualEvent], collection: str, key: ErasureKey) -> list[Answer]:
    """The individual of a message leaves a collection: a tombstone, and what stays known when Kafka has dropped that.

    The hash is published first: nothing can bring somebody back whose tombstone is there.
    """
    event = message.event
    noted = message.derive(key.erasure_of(collection, event.individual_id, event.revision), Source.ENCODER)
    tombstone = message.derive(
        EncodingErased(collection=collection, individual_id=event.individual_id, revision=event.revision),
        Source.ENCODER,
    )
    return [
        Answer(Outcome.ERASURE_NOTED, noted, encode(noted)),
        Answer(Outcome.ERASED, tombstone, encode(tombstone)),
    ]


def unreadable(record: StoredRecord, error: UnreadableError) -> Answer:
    """The dead letter of a record that cannot be decoded."""
    return Answer(Outcome.DEAD_LETTER, None, dead_letter(record, error, Source.ENCODER), str(error))


def _rejection_for(failure: TaskFailedError) -> RejectedError:
    if isinstance(failure, OutOfTimeError):
        return RejectedError(
            RejectionReason.PHOTO_TOO_LARGE,
            "reading this photo takes more processor time than a photo is given: send a smaller copy, or one saved as "
            "a plain JPEG, or raise FACEMATCH_ENCODER_PHOTO_S and replay the event",
        )
    if isinstance(failure, CrashedError):
        return RejectedError(
            RejectionReason.PHOTO_UNREADABLE,
            "reading this photo ended the process that did it, twice: send it again as a plain JPEG",
        )
    return RejectedError(
        RejectionReason.PHOTO_UNAVAILABLE,
        "encoding this photo came to no end, twice, on a machine that is too busy, or hangs: replay the event",
    )


def too_large_for_memory(task: Task) -> Message[Event]:
    """The rejection of a photo that a process has not enough memory for, though it does nothing else."""
    return rejection(
        task.message,
        RejectedError(
            RejectionReason.PHOTO_TOO_LARGE,
            "unpacking this photo takes more memory than a process has: send a smaller copy, or raise "
            "FACEMATCH_ENCODER_MEMORY_MB and replay the event",
        ),
    )
