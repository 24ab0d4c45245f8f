"""`facematch erase`: publishes erasures, waits until every worker has applied them, and makes the receipts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import bindparam, func, select, tuple_, update
from sqlalchemy.engine import Connection

from deploy.erasure.file import BadLinesError, Leaving
from deploy.erasure.places import Footprints
from deploy.erasure.topics import Person, PlaceContent
from deploy.erasure.waiting import ErasureWait
from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from schemas.envelope import Source, announce, encode
from schemas.erased import ErasureKey
from schemas.events.registrations import IndividualDeleted
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.tables import erased, individuals

REMARKS = (
    "Kept for good: a keyed hash, the collection, the revision and the time (topic erasures, table erased).",
    "An embedding in Redis is masked: nobody is compared with it. One that is not sealed yet is gone with the next "
    "checkpoint; a hash of the id stays while Kafka has the tombstone. Redis' append-only file and snapshots keep what "
    "was removed until they are rewritten (BGREWRITEAOF).",
    "Postgres' files keep rows that were removed until vacuum and until its log is recycled (VACUUM, CHECKPOINT).",
    "Backups, log lines, the photo in its own store, and what others copied from the topics are theirs to erase.",
)
_AT_ONCE = 500  # people in a query

OnStep = Callable[[str], None]


class UnknownIndividualError(UserFault):
    """Nobody with that id is known: the revision must be given."""


class NotErasedError(Exception):
    """Nobody with that id was erased."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The places' content before the erasure and now. Every revision up to `revision` is erased."""

    person: Person
    revision: int
    erased_at: datetime
    before: list[PlaceContent]
    now: list[PlaceContent]


class ErasureRun:
    """The erasure of people. Raises ErasureKeyError, and what clients raise where a server is away.

    `report` is called with what is being done.
    """

    def __init__(self, settings: Settings, people: Sequence[Leaving], report: OnStep) -> None:
        self._settings, self._leaving, self._report = settings, list(people), report
        self._people = [one.person for one in self._leaving]
        key = ErasureKey(settings.erasure_key)
        self._digests = {person: key.digest(*person) for person in self._people}
        self._engine = postgres_engine(settings)

    def erase(self, limit_s: float) -> list[Receipt]:
        """Publish the erasures and wait for them. Raises UnknownIndividualError, BadLinesError, StalledErasureError.

        Nothing is published unless the revision of each is known, or given.
        """
        with self._engine.connect() as connection:
            revisions = self._revisions(connection)
            survey = Footprints(self._settings, self._people)
            before = survey.places(connection, self._report)
        events = [
            IndividualDeleted(collection=who.collection, individual_id=who.individual_id, revision=revision)
            for who, revision in revisions.items()
        ]
        with ErasureWait(self._settings, self._engine, revisions, self._report, limit_s) as wait:
            self._report("publishing IndividualDeleted")
            Publisher(self._settings, "erase").publish_all(encode(announce(event, Source.ERASE)) for event in events)
            wait.run()
        with self._engine.begin() as connection:
            row = update(erased).where(erased.c.digest == bindparam("of")).values(receipt=bindparam("seen"))
            connection.execute(
                row,
                [
                    {"of": self._digests[person], "seen": [asdict(place) for place in places]}
                    for person, places in before.items()
                ],
            )
        return list(self._receipts(before, survey))

    def again(self) -> list[Receipt]:
        """The receipts of earlier erasures, with the places as they are now. Raises NotErasedError."""
        with self._engine.connect() as connection:
            rows = self._rows(connection)
        if len(rows) < len(self._people):
            raise NotErasedError
        before = {
            person: [PlaceContent(**place) for place in rows[self._digests[person]]["receipt"] or []]
            for person in self._people
        }
        return list(self._receipts(before, Footprints(self._settings, self._people)))

    def _receipts(self, before: dict[Person, list[PlaceContent]], survey: Footprints) -> Iterator[Receipt]:
        with self._engine.connect() as connection:
            rows, now = self._rows(connection), survey.places(connection, self._report)
        for person in self._people:
            row = rows[self._digests[person]]
            yield Receipt(person, row["revision"], row["erased_at"], before[person], now[person])

    def _rows(self, connection: Connection) -> dict[str, Any]:
        """The rows of `erased`, by digest."""
        found: dict[str, Any] = {}
        digests = list(self._digests.values())
        for begin in range(0, len(digests), _AT_ONCE):
            query = select(erased).where(erased.c.digest.in_(digests[begin : begin + _AT_ONCE]))
            found |= {row["digest"]: row for row in connection.execute(query).mappings()}
        return found

    def _revisions(self, connection: Connection) -> dict[Person, int]:
        """Up to which revision each is erased: that which is given, or one more than is known."""
        known, rows = self._known(connection), self._rows(connection)
        found: dict[Person, int] = {}
        unknown = []
        for person, revision, line in self._leaving:
            gone = rows.get(self._digests[person])
            if revision is None and person not in known and gone is None:
                unknown.append((person, line))
            else:
                found[person] = revision or max(known.get(person, 0) + 1, gone["revision"] if gone else 0)
        if unknown and unknown[0][1]:
            raise BadLinesError([f"line {line}: nobody is known as {who}" for who, line in unknown])
        if unknown:
            who = unknown[0][0]
            raise UnknownIndividualError(
                f"nobody of id {who.individual_id} is known in collection {who.collection}. If events about them "
                "may be under way or come again, say up to which revision they are to be erased: --revision"
            )
        return found

    def _known(self, connection: Connection) -> dict[Person, int]:
        """The highest revision that Postgres knows of each."""
        highest = func.greatest(*(column for name, column in individuals.c.items() if name.endswith("_revision")))
        whose = tuple_(individuals.c.collection, individuals.c.individual_id)
        found: dict[Person, int] = {}
        for begin in range(0, len(self._people), _AT_ONCE):
            query = select(individuals.c.collection, individuals.c.individual_id, highest)
            some = query.where(whose.in_(self._people[begin : begin + _AT_ONCE]))
            found |= {Person(*who): revision for *who, revision in connection.execute(some)}
        return found


def print_receipts(console: Console, receipts: Sequence[Receipt]) -> None:
    """Print for each a row for each place that held or holds something, and remarks on what cannot be searched."""
    for receipt in receipts:
        name = f"{receipt.person}: " if len(receipts) > 1 else ""
        console.print(
            f"{name}erased at {receipt.erased_at:%Y-%m-%d %H:%M:%S %Z}, revisions up to {receipt.revision}",
            markup=False,
        )
        was = {place.name: place.there for place in receipt.before}
        table = Table("place", "before", "now", "the rest expires", title="receipt", title_justify="left")
        for place in receipt.now:
            if place.there or was.get(place.name):
                table.add_row(place.name, was.get(place.name) or "-", place.there or "-", place.until)
        console.print(table)
    for remark in REMARKS:
        console.print(f"· {remark}", soft_wrap=True)
