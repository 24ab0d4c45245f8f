"""A file that names people to be erased: a line each, `collection/individual` or CSV. Pure."""

import csv
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from deploy.erasure.topics import Person
from schemas.events.registrations import IndividualDeleted
from schemas.faults import UserFault

_HEADERS = (["collection", "individual_id"], ["collection", "individual_id", "revision"])
_SHOWN = 20


class BadLinesError(UserFault):
    """Lines that name nobody. The text names them."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        super().__init__("nobody is erased. " + "; ".join([*problems[:_SHOWN], *more]))


class Leaving(NamedTuple):
    """Who is to be erased, up to which revision (None: one more than is known), and in which line that stands."""

    person: Person
    revision: int | None = None
    line: int = 0


def read_lines(lines: Iterable[str]) -> list[Leaving]:
    """The people of a file; of one who is named twice the first line. Raises BadLinesError, with every bad line.

    A line is collection/individual, and may be CSV: collection,individual or collection,individual,revision. A
    collection has neither slash nor comma, so the first of them decides. Empty lines and a header of CSV are skipped.
    """
    found: dict[Person, Leaving] = {}
    problems = []
    for number, text in enumerate(lines, 1):
        line = text.rstrip("\r\n")
        if not line.strip():
            continue
        try:
            if (one := _read(line, number)) is not None:
                found.setdefault(one.person, one)
        except (ValueError, csv.Error) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise BadLinesError(problems)
    return list(found.values())


def _read(line: str, number: int) -> Leaving | None:
    revision: int | None = None
    collection, slash, individual_id = line.partition("/")
    if not slash or "," in collection or line.startswith('"'):
        fields = next(csv.reader([line], strict=True))
        if fields in _HEADERS:
            return None
        if len(fields) not in (2, 3):
            raise ValueError("is neither collection/individual nor collection,individual[,revision]")
        collection, individual_id = fields[:2]
        revision = _revision(fields[2]) if len(fields) == 3 and fields[2] else None
    try:
        IndividualDeleted(collection=collection, individual_id=individual_id, revision=revision or 1)
    except ValidationError as error:
        raise ValueError("; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())) from None
    return Leaving(Person(collection, individual_id), revision, number)


def _revision(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise ValueError("a revision is a whole number from 1 on")
    return int(text)
