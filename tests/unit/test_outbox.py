"""A row of the outbox becomes the record that every consumer reads, or says what is wrong and no more."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from deploy.status.settings import print_settings
from producers.outbox.record import OutboxRow, record_from
from runtime.telemetry.tracing import traced
from schemas.envelope import Message, UnreadableError, decode
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import Settings

SECRET = "QUJD" * 100
EVENT = {"collection": "c", "individual_id": "a", "revision": 1, "photo": {"inline": SECRET}}
ROW = OutboxRow(7, "id-7", "IndividualCreated", "c/a", "camp", "2026-01-31T09:30:00.5Z", json.dumps(EVENT))


def test_a_row_becomes_the_event_in_its_envelope() -> None:
    event = IndividualCreated(collection="c", individual_id="a", revision=1, photo=Photo(inline=SECRET))
    time = datetime(2026, 1, 31, 9, 30, 0, 500_000, UTC)
    assert decode(record_from(ROW)) == traced(Message(event, "id-7", time, "camp"))
    assert record_from(ROW) == record_from(ROW), "the same record, however often it is published"


def test_a_row_may_have_a_trace_of_its_own_and_what_is_none_does_not_count() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    assert decode(record_from(ROW._replace(traceparent=parent))).context == (("traceparent", parent.encode()),)
    assert record_from(ROW._replace(traceparent=SECRET)) == record_from(ROW)


def test_what_the_schema_does_not_know_is_not_published() -> None:
    more = ROW._replace(event=json.dumps(EVENT | {"passport": "X1"}))
    assert record_from(more) == record_from(ROW)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": SECRET}, "type is none of IndividualCreated, IndividualUpdated, IndividualDeleted"),
        ({"type": "EncodingErased"}, "type is none of"),
        ({"event": json.dumps([SECRET])}, "should be an object"),
        ({"event": json.dumps(EVENT | {"revision": SECRET})}, "revision: Input should be a valid integer"),
        ({"event": json.dumps(EVENT | {"photo": SECRET})}, "photo: "),
        ({"event": json.dumps(EVENT | {"attributes": {SECRET: [1]}})}, "attributes.QUJD"),
        ({"key": "c/b"}, "key"),
        ({"source": ""}, "ce_source"),
        ({"time": "infinityZ"}, "ce_time"),
    ],
)
def test_what_is_wrong_is_said_without_a_value(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableError, match=message) as raised:
        record_from(ROW._replace(**wrong))
    assert SECRET not in str(raised.value)


def test_the_password_of_the_outbox_is_not_shown() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_settings(
        console, Settings(_env_file=None, outbox="postgresql+psycopg2://relay:hunter2@db.example.org/registration")
    )
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "postgresql+psycopg2://relay:***@db.example.org/registration" in printed
    assert "hunter2" not in printed
