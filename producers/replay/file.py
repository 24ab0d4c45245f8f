"""Records as lines of JSON, as `facematch replay --write` writes them and `--from` reads them. Pure.

One object a line: topic, key, value and headers, as text; a value is text too, so that it stays what it was to the
byte. What is not UTF-8 is kept by lone surrogates (Python's surrogateescape).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from schemas.envelope import Headers, Readable, UnreadableError, decode, decode_as_sent
from schemas.topics import ENCODINGS, INDIVIDUALS

_TOPICS = (INDIVIDUALS.name, ENCODINGS.name)


@dataclass(frozen=True, slots=True, repr=False)
class FileRecord:
    """A record that stands in a line of a file: nobody knows where it stood, or when it was published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    line: int

    @property
    def position(self) -> str:
        """Where it stands, in words."""
        return f"line/{self.line}"


class BrokenLineError(Exception):
    """A line that is no record of a topic that can be replayed. Its text holds nothing of a photo or an embedding."""


def line_of(record: Readable) -> str:
    """A record as a line."""
    headers = [[name, _text(value)] for name, value in record.headers]
    return json.dumps(
        {"topic": record.topic, "key": _text(record.key), "headers": headers, "value": _text(record.value)}
    )


def records_in(lines: Iterable[str]) -> Iterator[FileRecord | BrokenLineError]:
    """The record in each line, or what is wrong with it. Empty lines are none."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = _record(json.loads(line), number)
                decode_as_sent(record) if record.topic == ENCODINGS.name else decode(record)
            except (BrokenLineError, UnreadableError) as error:
                yield BrokenLineError(f"line {number}: {error}")
            except ValueError:
                yield BrokenLineError(f"line {number}: it is no JSON")
            else:
                yield record


def _record(line: Any, number: int) -> FileRecord:
    if not isinstance(line, dict) or not line.keys() >= {"topic", "key", "headers", "value"}:
        raise BrokenLineError("it is no JSON object with topic, key, headers and value")
    if line["topic"] not in _TOPICS:
        raise BrokenLineError(f"its topic is none of {', '.join(_TOPICS)}")
    try:
        headers = tuple((str(name), _bytes(value)) for name, value in line["headers"])
        return FileRecord(line["topic"], _bytes(line["key"]), _bytes(line["value"]), headers, number)
    except (TypeError, ValueError):
        raise BrokenLineError("headers are pairs of a name and a text; key and value are texts, or null") from None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="surrogateescape")


def _bytes(text: Any) -> bytes | None:
    if text is not None and not isinstance(text, str):
        raise TypeError
    return None if text is None else text.encode(errors="surrogateescape")
