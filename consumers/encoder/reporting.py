"""Log lines and spans of the encoder's answers."""

import logging

import structlog

from consumers.encoder.answers import Answer, Outcome
from consumers.encoder.pool.step import AnsweredRecord
from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.tracing import Tracer, trace_id_of
from schemas.envelope import StoredRecord
from schemas.events.encodings import EncodingRejected

log = structlog.stdlib.get_logger(__name__)


class Reporter:
    """Logs rejections, erasures and dead letters always, encodings and escalations at level debug."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def report(self, answered: AnsweredRecord) -> None:
        """Log the answers to a record, and export a span of each that belongs to a trace."""
        for answer in answered.answers:
            _log(answer, answered.record)
            message = answer.message
            if self._tracer is None or message is None or trace_id_of(message.context) is None:
                continue
            if answer.outcome is not Outcome.ERASURE_NOTED:
                more = {"facematch.outcome": answer.outcome.value}
                self._tracer.stage("encode", message, answered.begun, answered.answered, more)


def _log(answer: Answer, record: StoredRecord) -> None:
    position = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    if answer.message is None:
        log.warning("dead letter", **fields_of_letter(answer.record))
        return
    event = answer.message.event
    if isinstance(event, EncodingRejected):
        reason = {"reason": event.reason.value, "detail": event.detail}
        log.info("rejected", **fields_of(answer.message), **reason, **position)
    elif answer.outcome is Outcome.ERASED:
        log.info("erased from the collection: tombstone published", **fields_of(answer.message), **position)
    elif not log.isEnabledFor(logging.DEBUG):
        return
    elif answer.outcome is Outcome.ENCODED:
        log.debug("encoded", **fields_of(answer.message))
    elif answer.outcome is Outcome.ESCALATED:
        log.debug("escalated to the GPU pool", **fields_of(answer.message), reason=answer.reason)
