"""A dead letter → the message that is sent again: its bytes as they came, or put right. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jsonpatch import InvalidJsonPatch, JsonPatch, JsonPatchException, JsonPatchTestFailed
from jsonpointer import JsonPointerException

from schemas.clocks import at_the_latest_on_arrival
from schemas.envelope import REDRIVE, REPLAY_ID, Headers, Record, UnreadableError, decode, key_of
from schemas.erased import NOBODY, Erased
from schemas.faults import UserFault
from schemas.letters import REDRIVEN, Letter
from schemas.topics import TOPICS, topic_named

_NAMES = {topic.name for topic in TOPICS}


class FixError(UserFault):
    """What is given to put letters right is wrong in itself. The text says how."""


class FixRefusedError(Exception):
    """The message would be a dead letter again, or must not be sent. The text says why; it holds no value of it."""


@dataclass(frozen=True, slots=True)
class LetterFix:
    """How messages are put right: values by a patch, headers that are set, the key that follows from the event."""

    patch: tuple[dict[str, Any], ...] = ()
    headers: Headers = ()
    rekey: bool = False

    @classmethod
    def of(cls, patch: str | None, headers: Sequence[str], rekey: bool) -> "LetterFix":
        """From a JSON Patch (RFC 6902) as text, and NAME=VALUE of each header. Raises FixError."""
        return cls(() if patch is None else _operations(patch), tuple(map(_header, headers)), rekey)

    def message(self, letter: Letter, erased: Erased = NOBODY) -> Record:
        """What is sent: it can be read, and goes to where its event belongs on the topic that it came from.

        Its header `redriven` says how often it was sent again, and it counts as a replay: who is registered by it has
        waited for days, and that is no slowness. Raises FixRefusedError.
        """
        came = letter.record
        if came.topic not in _NAMES:
            raise FixRefusedError(f"{came.topic} is no topic of facematch")
        given = dict(self.headers) | {
            REDRIVEN: str(letter.redriven + 1).encode(),
            REPLAY_ID: dict(came.headers).get(REPLAY_ID) or REDRIVE,
        }
        headers = tuple((name, value) for name, value in came.headers if name not in given)
        record = Record(came.topic, came.key, self._patched(came.value), (*headers, *given.items()))
        try:
            if self.rekey:
                record = replace(record, key=key_of(record))
            message = decode(record)
        except UnreadableError as error:
            raise FixRefusedError(str(error)) from None
        came_at = at_the_latest_on_arrival(message.time, came.timestamp)
        if erased.forbids(replace(message, time=came_at)):
            raise FixRefusedError("it is about somebody who was erased: discard the letter")
        by_collection = topic_named(came.topic).partitioned_by_collection
        return replace(record, partition_by=message.event.collection if by_collection else None)

    def _patched(self, value: bytes | None) -> bytes | None:
        if not self.patch:
            return value
        try:
            document = json.loads(value or b"", parse_constant=_refuse)
        except (ValueError, RecursionError):  # what is no UTF-8 either
            raise FixRefusedError("its value is not JSON: no patch applies to it") from None
        for number, operation in enumerate(self.patch, 1):
            what = f"operation {number} of the patch, {operation['op']} {operation['path']}"
            try:
                document = JsonPatch([operation]).apply(document, in_place=True)
            except InvalidJsonPatch:
                raise FixRefusedError(f"{what}, lacks what RFC 6902 asks of it") from None
            except JsonPatchTestFailed:
                raise FixRefusedError(f"{what}, fails") from None
            except (JsonPatchException, JsonPointerException):  # their texts hold values
                raise FixRefusedError(f"{what}, does not apply") from None
        try:
            return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        except ValueError:
            raise FixRefusedError("its value holds a number that JSON has not") from None


def _operations(text: str) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(JsonPatch.from_string(text, loads=_loads).patch)
    except (ValueError, JsonPatchException, JsonPointerException) as error:
        raise FixError(f"this is no JSON Patch (RFC 6902): {error}") from None


def _loads(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _header(text: str) -> tuple[str, bytes | None]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise FixError(f"{text!r}: a header is given as NAME=VALUE")
    return name, value.encode()
