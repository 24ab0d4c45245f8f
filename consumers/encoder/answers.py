"""The encoder's answers that hold no embedding: escalations and rejections. Pure."""

from dataclasses import dataclass

from consumers.photos.rejected import RejectedError
from schemas.envelope import Message, Record, decode, encode
from schemas.events.base import Event
from schemas.events.encodings import EncodingRejected, RejectionReason
from schemas.events.registrations import Registration
from schemas.topics import ESCALATIONS

SOURCE = "facematch/encoder"
ESCALATION_REASON = "escalation_reason"


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """A registration whose photo is to be encoded: the record as it came, and the photo file."""

    record: Record
    photo: bytes


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
