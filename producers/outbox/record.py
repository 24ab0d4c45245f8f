"""A row of the outbox as the record that is published."""

from typing import NamedTuple

from runtime.telemetry.tracing import trace_id_of, traced
from schemas.envelope import SPEC_VERSION, Record, UnreadableError, decode, encode
from schemas.topics import INDIVIDUALS

_TYPES = tuple(event.__name__ for event in INDIVIDUALS.carries)


class OutboxRow(NamedTuple):
    """The columns of a row that are published. `time` is RFC 3339 where it can be written so, `event` is JSON.

    A `traceparent` that names no trace is ignored.
    """

    position: int
    id: str
    type: str
    key: str
    source: str
    time: str
    event: str
    traceparent: str | None = None


def record_from(row: OutboxRow) -> Record:
    """The record of a row.

    The row is decoded as every consumer decodes it, so that no dead letter is published, and encoded as `submit`
    encodes it: fields that the schema does not know are left out. A row without a trace begins one, the same each time.
    Raises UnreadableError: the row is no event; the text says why, without any value of the row.
    """
    if row.type not in _TYPES:
        raise UnreadableError(f"type is none of {', '.join(_TYPES)}")
    attributes = {
        "ce_specversion": SPEC_VERSION,
        "ce_type": row.type,
        "ce_id": row.id,
        "ce_source": row.source,
        "ce_time": row.time,
    }
    headers = tuple((name, value.encode()) for name, value in attributes.items())
    trace = (("traceparent", (row.traceparent or "").encode()),)
    if trace_id_of(trace) is not None:
        headers += trace
    return encode(traced(decode(Record(INDIVIDUALS.name, row.key.encode(), row.event.encode(), headers))))
