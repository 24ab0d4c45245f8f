"""The worker's own part, before a process encodes: records decoded, routed to a pool, and their photos fetched."""

from collections.abc import Callable

import structlog

from consumers.encoder.answers import Answer, Task, erased, escalated, rejected, unreadable
from consumers.encoder.pool.step import Preparation
from consumers.photos.rejected import RejectedError
from runtime.telemetry.log_fields import about, fields_of
from schemas.envelope import Message, StoredRecord, UnreadableError, as_erasure, decode, has_event, is_set_aside
from schemas.erased import Erased, ErasureKey
from schemas.events.base import Detector
from schemas.events.registrations import IndividualDeleted, IndividualUpdated, Photo, Registration
from schemas.settings import Settings
from schemas.topics import ESCALATIONS, INDIVIDUALS, Topic

log = structlog.stdlib.get_logger(__name__)
ReadPhoto = Callable[[Photo], bytes]
_READ: dict[str, Topic[Registration | IndividualDeleted]] = {topic.name: topic for topic in (INDIVIDUALS, ESCALATIONS)}


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

    def prepare(self, record: StoredRecord) -> Preparation[Task]:
        """The answers that need no process (tombstones, a dead letter, an escalation, a rejection), and the task."""
        try:
            message = decode(record, _READ[record.topic])
        except UnreadableError as error:
            return Preparation() if is_set_aside(record) else Preparation([unreadable(record, error)])
        if has_event(message, Registration):
            return self._prepare(record, message)
        leaving = as_erasure(message, record.timestamp)
        return Preparation(erased(leaving, message.event.collection, self._key))

    def _prepare(self, record: StoredRecord, message: Message[Registration]) -> Preparation[Task]:
        event = message.event
        left: list[Answer] = []
        if isinstance(event, IndividualUpdated) and event.moved_from is not None and self._pool is Detector.HOG:
            left = erased(as_erasure(message, record.timestamp), event.moved_from, self._key)
        if self._erased.forbids(message):
            log.info("erased: not encoded", **fields_of(message))
            return Preparation(left)
        escalation = self._escalation(event)
        if escalation is not None:
            return Preparation([*left, escalated(record, message, escalation)])
        try:
            with about(message):
                return Preparation(left, Task.of(message, self._read_photo(event.photo)))
        except RejectedError as error:
            return Preparation([*left, rejected(message, error)])

    def _escalation(self, event: Registration) -> str | None:
        """Why the other pool encodes it, None where this one does."""
        if self._pool is Detector.CNN:
            return None
        if event.detector is Detector.CNN:
            return "asked_for_cnn"
        if event.detector is None and self._settings.routing_for(event.collection) == "gpu":
            return "routed_to_gpu"
        return None
