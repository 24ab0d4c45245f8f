"""Log lines and spans of a batch that was matched."""

import logging
from collections.abc import Iterable, Sequence

import structlog

from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.tracing import Tracer, trace_id_of
from schemas.envelope import Message, Record, decode
from schemas.events.base import Event
from streams.matching.match import Consequences

log = structlog.stdlib.get_logger(__name__)


def report(partition: int, consequences: Consequences, renewed: Sequence[Record]) -> None:
    """Log dead letters, tombstones and renewed records always, findings and checks at level debug.

    `renewed`: the records that were published again behind stale ones.
    """
    for letter in consequences.letters:
        log.warning("dead letter", **fields_of_letter(letter))
    for tombstone in consequences.tombstones:
        log.info("erased: not matched, tombstone put behind", **fields_of(tombstone))
    if renewed:
        log.info("stale revisions: what counts is published again", partition=partition, records=len(renewed))
    if log.isEnabledFor(logging.DEBUG):
        for message in consequences.messages:
            log.debug(type(message.event).__name__, **fields_of(message))
        for record in renewed:
            log.debug("published again behind a stale revision", **fields_of(decode(record)))


def trace(tracer: Tracer, messages: Iterable[Message[Event]], begun: int, ended: int) -> None:
    """Export a span of each message that belongs to a trace: the batch's time, nanoseconds since 1970."""
    for message in messages:
        if trace_id_of(message.context) is not None:
            tracer.stage("match", message, begun, ended)
