"""The fields of a log line about an event or a record: never anything of a photo or an embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from structlog.contextvars import bound_contextvars

from runtime.telemetry.tracing import trace_id_of
from schemas.envelope import Message, Record
from schemas.events.base import Event
from schemas.letters import Origin, times_redriven


@contextmanager
def about(message: Message[Event]) -> Iterator[None]:
    """Add the fields of a message to everything that this thread logs meanwhile."""
    with bound_contextvars(**fields_of(message)):
        yield


def fields_of(message: Message[Event]) -> dict[str, Any]:
    """The individual or pair of a message, and its trace."""
    event = message.event
    fields: dict[str, Any] = {"collection": event.collection}
    match event.subjects():
        case [one]:
            fields |= {"individual_id": one.individual_id, "revision": one.revision}
        case [a, b]:
            fields |= {"pair_id": event.key, "individual_a": a.individual_id, "individual_b": b.individual_id}
    trace_id = trace_id_of(message.context)
    return fields if trace_id is None else {**fields, "trace_id": trace_id}


def fields_of_letter(letter: Record) -> dict[str, Any]:
    """The name of a dead letter, its error, and how often it was redriven."""
    found = Origin.split(letter.headers)
    if found is None:
        raise ValueError("this is no dead letter")
    origin, came = found
    return {"letter": origin.name, "error": origin.error, "redriven": times_redriven(came)}
