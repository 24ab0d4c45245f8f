"""`facematch erase`: publishes an erasure, waits until every worker has applied it, and makes the receipt."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection

from deploy.erasure.places import Footprint, PlaceContent
from deploy.shards import shard_counts, shards_of
from runtime.servers.erasures import ErasureLog
from runtime.servers.log import Span, TopicLog
from runtime.servers.postgres import postgres_engine
from runtime.servers.publisher import Publisher
from runtime.servers.redis import connect_once
from schemas.envelope import Source, announce, decode, encode
from schemas.erased import ErasureKey
from schemas.events.base import individual_key
from schemas.events.registrations import IndividualDeleted
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.tables import erased, individuals
from schemas.topics import DUPLICATES, ENCODINGS, SINK
from streams.checkpoint.progress import Progress
from streams.matcher.vitals import read_vitals

REMARKS = (
    "Kept for good: a keyed hash, the collection, the revision and the time (topic erasures, table erased).",
    "An embedding in Redis is masked: nobody is compared with it. One that is not sealed yet is gone with the next "
    "checkpoint; a hash of the id stays while Kafka has the tombstone. Redis' append-only file and snapshots keep what "
    "was removed until they are rewritten (BGREWRITEAOF).",
    "Postgres' files keep rows that were removed until vacuum and until its log is recycled (VACUUM, CHECKPOINT).",
    "Backups, log lines, the photo in its own store, and what others copied from the topics are theirs to erase.",
)

OnStep = Callable[[str], None]
T = TypeVar("T")


class UnknownIndividualError(UserFault):
    """Nobody with that id is known: the revision must be given."""


class NotErasedError(Exception):
    """Nobody with that id was erased."""


class StalledErasureError(Exception):
    """A worker did not apply the erasure within the time. The text names the worker."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The places' content before the erasure and now. Every revision up to `revision` is erased."""

    revision: int
    erased_at: datetime
    before: list[PlaceContent]
    now: list[PlaceContent]


class ErasureRun:
    """The erasure of one individual. Raises ErasureKeyError, and what clients raise where a server is away."""

    def __init__(self, settings: Settings, collection: str, individual_id: str, report: OnStep) -> None:
        self._settings, self._collection, self._individual_id, self._report = (
            settings,
            collection,
            individual_id,
            report,
        )
        self._key = ErasureKey(settings.erasure_key)
        self._digest = self._key.digest(collection, individual_id)
        with TopicLog(settings, ENCODINGS, "erase") as log:
            self._partition = log.partition_of(collection)
        self._engine = postgres_engine(settings)

    def erase(self, revision: int | None, limit_s: float) -> Receipt:
        """Publish the erasure and wait for it. Raises UnknownIndividualError, StalledErasureError."""
        with self._engine.connect() as connection:
            revision = revision or self._next_revision(connection)
            survey = Footprint(self._settings, self._collection, self._individual_id)
            before = survey.places(connection, self._report)
        with TopicLog(self._settings, ENCODINGS, "erase") as log:
            begin = log.span(self._partition).end
        event = IndividualDeleted(collection=self._collection, individual_id=self._individual_id, revision=revision)
        self._report("publishing IndividualDeleted")
        Publisher(self._settings, "erase").publish_all([encode(announce(event, Source.ERASE))])
        self._wait(begin, revision, time.monotonic() + limit_s)
        with self._engine.begin() as connection:
            row = update(erased).where(erased.c.digest == self._digest)
            connection.execute(row.values(receipt=[asdict(place) for place in before]))
        return self._receipt(before, survey)

    def again(self) -> Receipt:
        """The receipt of an earlier erasure, with the places as they are now. Raises NotErasedError."""
        with self._engine.connect() as connection:
            row = connection.execute(select(erased.c.receipt).where(erased.c.digest == self._digest)).one_or_none()
        if row is None:
            raise NotErasedError
        before = [PlaceContent(**place) for place in row.receipt or []]
        return self._receipt(before, Footprint(self._settings, self._collection, self._individual_id))

    def _receipt(self, before: list[PlaceContent], survey: Footprint) -> Receipt:
        with self._engine.connect() as connection:
            row = connection.execute(select(erased).where(erased.c.digest == self._digest)).mappings().one()
            return Receipt(row["revision"], row["erased_at"], before, survey.places(connection, self._report))

    def _next_revision(self, connection: Connection) -> int:
        columns = (column for name, column in individuals.c.items() if name.endswith("_revision"))
        query = select(func.greatest(*columns)).where(
            individuals.c.collection == self._collection, individuals.c.individual_id == self._individual_id
        )
        known = connection.scalar(query)
        gone = connection.scalar(select(erased.c.revision).where(erased.c.digest == self._digest))
        if known is None and gone is None:
            raise UnknownIndividualError(
                f"nobody of id {self._individual_id} is known in collection {self._collection}. If events about them "
                "may be under way or come again, say up to which revision they are to be erased: --revision"
            )
        return int(max((known or 0) + 1, gone or 0))

    def _wait(self, begin: int, revision: int, deadline: float) -> None:
        """Wait for the workers in the order of the flow: encoder, matchers, sink."""
        partition = self._partition
        with (
            TopicLog(self._settings, ENCODINGS, "erase") as log,
            TopicLog(self._settings, DUPLICATES, "erase", SINK.name) as findings,
            ErasureLog(self._settings, "erase") as registry,
        ):
            tombstone = self._until(lambda: self._tombstone(log, begin, revision), "the encoder, CPU pool", deadline)
            self._until(lambda: self._is_registered(registry, revision), "the encoder, CPU pool", deadline)
            for shard in self._shards():
                self._until(partial(self._is_matched, shard, tombstone), f"the matcher, shard {shard}", deadline)
            end = findings.span(partition).end
            self._until(lambda: (findings.committed(partition) or 0) >= end, "the sink", deadline)
            self._until(lambda: self._is_in_table(revision), "the sink", deadline)

    def _shards(self) -> list[Shard]:
        """The shards at work now: matchers of an earlier number of shards would never match it."""
        with closing(connect_once(self._settings)) as redis:
            vitals = list(read_vitals(redis, self._settings))
        return shards_of(vitals, self._partition, shard_counts(self._settings))

    def _until(self, seen: Callable[[], T | None], who: str, deadline: float) -> T:
        self._report(f"waiting for {who}")
        while not (found := seen()):
            if time.monotonic() > deadline:
                raise StalledErasureError(f"{who} has not done it yet; `facematch status` says whether it runs")
            time.sleep(0.1)
        return found

    def _tombstone(self, log: TopicLog, begin: int, revision: int) -> int | None:
        """The offset behind the individual's tombstone on `encodings`, None while there is none."""
        key = individual_key(self._collection, self._individual_id).encode()
        for batch in log.read({self._partition: Span(begin, log.span(self._partition).end)}):
            for record in batch:
                is_tombstone = record.key == key and record.value is None
                if is_tombstone and decode(record, ENCODINGS).event.revision >= revision:
                    return record.offset + 1
        return None

    def _is_registered(self, registry: ErasureLog, revision: int) -> bool:
        found = registry.catch_up().erased.find(self._collection, self._individual_id)
        return found is not None and found.revision >= revision

    def _is_matched(self, shard: Shard, offset: int) -> bool:
        with closing(Progress(self._settings, shard)) as progress:
            return (progress.matched(self._partition) or 0) >= offset

    def _is_in_table(self, revision: int) -> bool:
        with self._engine.connect() as connection:
            found = connection.scalar(select(erased.c.revision).where(erased.c.digest == self._digest))
        return found is not None and found >= revision


def print_receipt(console: Console, receipt: Receipt) -> None:
    """Print a row for each place that held or holds something, and remarks on what cannot be searched."""
    console.print(f"erased at {receipt.erased_at:%Y-%m-%d %H:%M:%S %Z}, revisions up to {receipt.revision}")
    was = {place.name: place.there for place in receipt.before}
    table = Table("place", "before", "now", "the rest expires", title="receipt", title_justify="left")
    for place in receipt.now:
        if place.there or was.get(place.name):
            table.add_row(place.name, was.get(place.name) or "-", place.there or "-", place.until)
    console.print(table)
    for remark in REMARKS:
        console.print(f"· {remark}", soft_wrap=True)
