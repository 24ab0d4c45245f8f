"""The second wall between log lines and photos: what is written of any field. Pure.

The first is that nobody puts a photo or an embedding into a field. What is neither a plain value nor a container of
plain values is named by its type alone; rows of numbers and long words are left out of texts, so that neither an array
nor base64 passes, wherever it comes from: an exception's text, a library's line.
"""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from uuid import UUID

LONGEST_TEXT = 2_000
LONGEST_TRACEBACK = 20_000
_MOST_NUMBERS = 8  # of one container: more may be an embedding
_MOST_ITEMS = 100
_DEEPEST = 8
_BYTES = re.compile(r"""(?<!\w)b(['"])(?:\\.|(?!\1).){64,}(?:\1|$)""")
_WORD = re.compile(r"\S{200,}")
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
_NUMBERS = re.compile(rf"(?:{_NUMBER}[\s,;:\[\]()]+){{15,}}(?:{_NUMBER})?")

Plain = str | int | float | bool | None
Redacted = Plain | list["Redacted"] | dict[str, "Redacted"]


def redacted(value: object, depth: int = 0) -> Redacted:
    """The part of a value that may stand in a log line."""
    found: Redacted = f"<{type(value).__name__}>"
    if value is None or isinstance(value, bool):
        found = value
    elif isinstance(value, str | UUID | date | timedelta | PurePath | BaseException):
        found = redacted_text(str(value))
    elif isinstance(value, Integral):
        found = int(value)
    elif isinstance(value, Real):
        found = float(value)
    elif isinstance(value, Enum):
        found = redacted(value.value, depth)
    elif depth < _DEEPEST and isinstance(value, Mapping | list | tuple | set | frozenset):
        found = _redacted_items(value, depth + 1)
    return found


def redacted_text(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text without rows of numbers, bytes and long words, cut at `longest` characters."""
    if len(text) > 30:  # fifteen numbers are
        text = _BYTES.sub("<bytes>", text)
        text = _NUMBERS.sub("<numbers>", _WORD.sub(lambda word: f"<{len(word[0])} characters>", text))
    if len(text) > longest:
        text = f"{text[:longest]} <{len(text) - longest} characters more>"
    return text


def _redacted_items(
    value: Mapping[object, object] | list[object] | tuple[object, ...] | set[object] | frozenset[object], depth: int
) -> Redacted:
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    numbers = sum(isinstance(item, Real) and not isinstance(item, bool) for item in items)
    if numbers > _MOST_NUMBERS or len(items) > _MOST_ITEMS:
        return f"<{type(value).__name__} of {len(items)}>"
    found = [redacted(item, depth) for item in items]
    if isinstance(value, Mapping):
        return {redacted_text(str(name)): item for name, item in zip(value, found, strict=True)}
    return found
