"""What a matcher says of what it has published: in the log, and as spans."""

import logging
from collections.abc import Iterable

import structlog

from runtime.telemetry.log_fields import fields_of, fields_of_letter
from runtime.telemetry.tracing import Tracer, trace_id_of
from schemas.envelope import Record, UnreadableError, decode
from schemas.topics import DEAD_LETTERS, ENCODINGS

log = structlog.stdlib.get_logger(__name__)


def say(partition: int, published: Iterable[Record], renewed: list[Record]) -> None:
    """Say what followed from a batch: of dead letters and the erased always, of all else where it is asked for."""
    is_verbose = log.isEnabledFor(logging.DEBUG)
    for record in published:
        if record.topic == DEAD_LETTERS.name:
            log.warning("dead letter", **fields_of_letter(record))
        elif record.topic == ENCODINGS.name:
            log.info("erased: not matched, tombstone put behind", **fields_of(decode(record)))
        elif is_verbose:
            _say_in_full(record)
    if renewed:
        log.info("stale revisions: what counts is published again", partition=partition, records=len(renewed))
    if is_verbose:
        for record in renewed:
            log.debug("published again behind a stale revision", **fields_of(decode(record)))


def trace(tracer: Tracer, records: Iterable[Record], begun: int, ended: int) -> None:
    """The spans of a batch: each record's is the batch's time."""
    for record in records:
        if trace_id_of(record.headers) is None:
            continue
        try:
            message = decode(record)
        except UnreadableError:
            continue  # a dead letter
        tracer.stage("match", message, begun, ended)


def _say_in_full(record: Record) -> None:
    message = decode(record)
    log.debug(type(message.event).__name__, **fields_of(message))
