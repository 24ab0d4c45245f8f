"""What an encoder worker says of what it has done: in the log, and as spans."""

import logging

import structlog

from consumers.encoder.answers import ESCALATION_REASON
from consumers.encoder.pool.step import Done
from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.tracing import Tracer, trace_id_of
from schemas.envelope import Record, decode
from schemas.events.encodings import EncodingRejected
from schemas.topics import DEAD_LETTERS, ENCODINGS, ESCALATIONS, REJECTIONS

log = structlog.stdlib.get_logger(__name__)

_OUTCOMES = {ENCODINGS.name: "encoded", REJECTIONS.name: "rejected", ESCALATIONS.name: "escalated"}


class Teller:
    """Says of rejections, erasures and dead letters always, of what goes well where it is asked for."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def tell(self, done: Done) -> None:
        """Say what became of a record."""
        for answer in done.answers:
            _say(answer, done.record)
            outcome = _OUTCOMES.get(answer.topic)
            if self._tracer is not None and outcome is not None and trace_id_of(answer.headers) is not None:
                outcome = "erased" if answer.value is None else outcome
                more = {"facematch.outcome": outcome}
                self._tracer.stage("encode", decode(answer), done.begun, done.answered, more)
        if not done.answers:  # of erased people alone nothing is said
            log.info("erased: not encoded", **fields_of(decode(done.record)))


def _say(answer: Record, record: Record) -> None:
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    if answer.topic == DEAD_LETTERS.name:
        log.warning("dead letter", **fields_of_letter(answer))
    elif answer.topic == REJECTIONS.name:
        message = decode(answer)
        assert isinstance(message.event, EncodingRejected)
        reason = {"reason": message.event.reason.value, "detail": message.event.detail}
        log.info("rejected", **fields_of(message), **reason, **place)
    elif answer.topic == ENCODINGS.name and answer.value is None:
        log.info("erased from the collection: tombstone published", **fields_of(decode(answer)), **place)
    elif not log.isEnabledFor(logging.DEBUG):
        return
    elif answer.topic == ENCODINGS.name:
        log.debug("encoded", **fields_of(decode(answer)))
    elif answer.topic == ESCALATIONS.name:
        reason = {"reason": (dict(answer.headers)[ESCALATION_REASON] or b"").decode()}
        log.debug("escalated to the GPU pool", **fields_of(decode(answer)), **reason)
