"""What comes in: records read, and their photos fetched, before a process encodes them."""

from collections.abc import Callable

from consumers.encoder.answers import SOURCE, Task, escalated, rejected
from consumers.encoder.pool.task_pool import Taken
from consumers.photos.rejected import RejectedError
from runtime.telemetry.log_fields import about
from schemas.envelope import Message, Record, UnreadableError, decode, encode
from schemas.erased import Erased, ErasureKey
from schemas.events.base import Detector, Event, IndividualEvent
from schemas.events.encodings import EncodingErased
from schemas.events.registrations import IndividualDeleted, IndividualUpdated, Photo, Registration
from schemas.letters import dead_letter
from schemas.settings import Settings

ReadPhoto = Callable[[Photo], bytes]


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
            with about(message):
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
