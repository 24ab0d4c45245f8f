"""A row of the outbox as the record that is published."""

from typing import NamedTuple

from runtime.telemetry.tracing import trace_id_of, traced
from schemas.envelope import SPEC_VERSION, Record, UnreadableError, decode, encode
from schemas.topics import INDIVIDUALS

_TYPES = tuple(event.__name__ for event in INDIVIDUALS.carries)


class OutboxRow(NamedTuple):
    """What of a row is published. `time` is RFC 3339 where the time has such a form, `event` is JSON.

    A `traceparent` that names no trace does not count.
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
    """The record of a row. Raises UnreadableError, with what is wrong and no value of the row.

    It is read as every consumer reads it, so that what is published is never a dead letter, and written as `submit`
    writes it: what the schema does not know stays behind. One without a trace begins one, the same however often it is
    published.
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
