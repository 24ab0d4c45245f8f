"""The trace that a record belongs to.

A record names its trace (`traceparent`, https://www.w3.org/TR/trace-context), and whatever follows from it carries that
on unchanged, so that what is derived twice is the same record.
"""

import hashlib
import re
from dataclasses import replace
from typing import TypeVar

from schemas.envelope import Headers, Message
from schemas.events import Event

_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

E = TypeVar("E", bound=Event)


def traced(message: Message[E]) -> Message[E]:
    """The message as the beginning of a trace, unless it belongs to one.

    The ids follow from the message's id: whoever publishes it again says the same.
    """
    if trace_id_of(message.context) is not None:
        return message
    digest = hashlib.blake2b(message.id.encode(), digest_size=24).hexdigest()
    parent = f"00-{digest[:32]}-{digest[32:]}-01"  # sampled: stages may leave out some, by the trace's id
    return replace(message, context=(*message.context, ("traceparent", parent.encode())))


def trace_id_of(context: Headers) -> str | None:
    """The trace that a record belongs to."""
    for name, value in context:
        if name == "traceparent" and (found := _PARENT.fullmatch(value or b"")):
            return found[1].decode()
    return None
