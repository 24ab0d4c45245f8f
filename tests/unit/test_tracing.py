"""A trace begins with the producer, and travels unchanged."""

import pytest

from schemas.envelope import Message, announce, decode, encode
from schemas.events import Event, IndividualCreated, IndividualDeleted, Photo
from schemas.tracing import trace_id_of, traced

GIVEN = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
STATE = ("tracestate", b"vendor=1")


def created(who: str = "a") -> Message[Event]:
    photo = Photo(uri="file:///a.jpg")
    return announce(IndividualCreated(collection="c", individual_id=who, revision=3, photo=photo), "t")


def test_a_message_begins_the_same_trace_whenever_it_is_published() -> None:
    message = created()
    assert traced(message) == traced(message)
    assert trace_id_of(traced(message).context) != trace_id_of(traced(created()).context)
    assert decode(encode(traced(message))) == traced(message)


def test_a_trace_that_is_given_goes_on() -> None:
    event = created().event
    message = Message(event, "id", created().time, "t", (GIVEN, STATE))
    assert traced(message) == message
    assert trace_id_of(message.context) == "0af7651916cd43dd8448eb211c80319c"
    assert trace_id_of(message.derive(event, "t").context) == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"00-0-0-01", GIVEN[1] + b"\n", GIVEN[1].upper(), None])
def test_a_header_that_names_no_trace_is_none(garbage: bytes | None) -> None:
    assert trace_id_of((("traceparent", garbage),)) is None


def test_a_deletion_is_traced_too() -> None:
    message = traced(announce(IndividualDeleted(collection="c", individual_id="a", revision=4), "t"))
    assert trace_id_of(encode(message).headers) == trace_id_of(message.context)
