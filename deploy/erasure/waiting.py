"""Waits until every worker has applied erasures, in the order of the flow: encoder, matchers, sink."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Self

from sqlalchemy import select
from sqlalchemy.engine import Engine

from deploy.erasure.topics import Person
from deploy.shards import shard_counts, shards_of
from runtime.servers.erasures import ErasureLog
from runtime.servers.log import Span, TopicLog
from runtime.servers.redis import connect_once
from schemas.envelope import StoredRecord, UnreadableError, decode
from schemas.events.base import individual_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.tables import erased
from schemas.topics import DUPLICATES, ENCODINGS, SINK
from streams.checkpoint.progress import Progress
from streams.matcher.vitals import read_vitals

_ASKED_EVERY_S = 0.1
_AT_ONCE = 5000  # digests in a query
_ENCODER = "the encoder, CPU pool"


class StalledErasureError(Exception):
    """A worker has done nothing for the erasure within the time. The text names the worker."""


class ErasureWait:
    """Waits for the erasures of people, each up to a revision. Made before they are published.

    `report` is called with what is waited for; whoever does nothing for `limit_s` seconds has stalled.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        revisions: Mapping[Person, int],
        report: Callable[[str], None],
        limit_s: float,
    ) -> None:
        self._settings, self._engine, self._revisions = settings, engine, dict(revisions)
        self._report, self._limit_s = report, limit_s
        self._matched_below: dict[int, int] = defaultdict(int)  # by partition, behind the last tombstone
        with ExitStack() as stack:
            self._log = stack.enter_context(TopicLog(settings, ENCODINGS, "erase"))
            self._findings = stack.enter_context(TopicLog(settings, DUPLICATES, "erase", SINK.name))
            self._registry = stack.enter_context(ErasureLog(settings, "erase"))
            self._partitions = sorted({self._log.partition_of(one.collection) for one in revisions})
            self._next = {partition: self._log.span(partition).end for partition in self._partitions}
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self) -> None:
        """Return once all of them are applied everywhere. Raises StalledErasureError."""
        missing = dict(self._revisions)
        self._until(lambda: self._without_tombstone(missing), _ENCODER)
        self._until(self._unregistered, _ENCODER)
        for partition, offset in self._matched_below.items():
            for shard in self._shards(partition):
                with closing(Progress(self._settings, shard)) as progress:
                    self._until(
                        lambda: max(0, offset - (progress.matched(partition) or 0)),  # noqa: B023 - called in the loop
                        f"the matcher, shard {shard}",
                    )
        ends = {partition: self._findings.span(partition).end for partition in self._partitions}
        self._until(
            lambda: sum(max(0, end - (self._findings.committed(partition) or 0)) for partition, end in ends.items()),
            "the sink",
        )
        self._until(self._not_in_table, "the sink")

    def _until(self, left: Callable[[], int], who: str) -> None:
        """Return once nothing is left; what is left may grow less for ever."""
        before, changed_at = None, time.monotonic()
        while count := left():
            if count != before:
                self._report(f"waiting for {who}: {count} to go")
                before, changed_at = count, time.monotonic()
            if time.monotonic() - changed_at > self._limit_s:
                raise StalledErasureError(f"{who} has not done it yet; `facematch status` says whether it runs")
            time.sleep(_ASKED_EVERY_S)

    def _without_tombstone(self, missing: dict[Person, int]) -> int:
        """How many have no tombstone on `encodings` yet. Reads what came, and takes those who have one out."""
        spans = {partition: Span(begin, self._log.span(partition).end) for partition, begin in self._next.items()}
        for batch in self._log.read(spans):
            for record in batch:
                if record.value is not None:
                    continue
                person = Person(*individual_of((record.key or b"").decode(errors="replace")))
                if person in missing and _revision_of(record) >= missing[person]:
                    del missing[person]
                    self._matched_below[record.partition] = record.offset + 1
        self._next = {partition: span.end for partition, span in spans.items()}
        return len(missing)

    def _unregistered(self) -> int:
        registry = self._registry.catch_up().erased
        return sum(not registry.covers(*person, revision) for person, revision in self._revisions.items())

    def _shards(self, partition: int) -> list[Shard]:
        """The shards at work now: matchers of an earlier number of shards would never match it."""
        with closing(connect_once(self._settings)) as redis:
            vitals = list(read_vitals(redis, self._settings))
        return shards_of(vitals, partition, shard_counts(self._settings))

    def _not_in_table(self) -> int:
        wanted = {self._registry.key.digest(*person): revision for person, revision in self._revisions.items()}
        digests, found = sorted(wanted), 0
        with self._engine.connect() as connection:
            for begin in range(0, len(digests), _AT_ONCE):
                some = erased.c.digest.in_(digests[begin : begin + _AT_ONCE])
                rows = connection.execute(select(erased.c.digest, erased.c.revision).where(some))
                found += sum(revision >= wanted[digest] for digest, revision in rows)
        return len(wanted) - found


def _revision_of(record: StoredRecord) -> int:
    """The revision of a tombstone; 0 of a null value that is none."""
    try:
        return decode(record, ENCODINGS).event.revision
    except UnreadableError:
        return 0
