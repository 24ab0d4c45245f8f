"""The input of a compaction: who is in the log, what is published about them, who changed meanwhile."""

from collections.abc import Callable, Sequence

import structlog

from runtime.servers.attempts import INNOCENT, Attempts
from runtime.servers.log import Span
from schemas.envelope import StoredRecord
from schemas.topics import DUPLICATES, ENCODINGS
from streams.compaction.census import Census, Fold
from streams.compaction.context import CompactionContext
from streams.compaction.findings import Findings
from streams.gallery.build import OnProgress
from streams.gallery.id_table import IdTable

log = structlog.stdlib.get_logger(__name__)

_MOST_READINGS = 10  # a record is set aside in the fifth


class CompactionInput:
    """One partition of `encodings` and of `duplicates`, of one collection or of all. Read once, by `read`.

    `end`: the offset below which the log was read. `matched_offset`: the offset below which everyone was compared with
    everyone before, as `findings` has it. `findings_end`: the offset of `duplicates` below which `findings` was read.
    `in_use`: see `Findings.in_use`.
    """

    def __init__(self, context: CompactionContext) -> None:
        self._context = context
        self.findings = Findings()
        self.in_use: dict[str, set[str]] = {}
        self.end = self.matched_offset = self.findings_end = 0
        self._since = Fold()
        self._read_on = 0

    def sizes(self) -> tuple[int, int]:
        """The most encodings and findings that there are to read; fewer where Kafka compacted the topic."""
        context = self._context
        return context.log.span(context.partition).size, context.duplicates.span(context.partition).size

    def read(self, collection: str | None, progress: OnProgress) -> list[Census]:
        """Read both topics, and return the census of each collection that either has.

        Where a record ends that, it is read again, until the record is known and set aside.
        """
        for _ in range(_MOST_READINGS - 1):
            try:
                return self._read(collection, progress)
            except INNOCENT:
                raise
            except Exception as error:
                log.exception("a record cannot be compacted: reading again", error=type(error).__name__)
        return self._read(collection, progress)

    def _read(self, collection: str | None, progress: OnProgress) -> list[Census]:
        context = self._context
        begin, self.end = context.log.span(context.partition)
        erased = context.erasures.catch_up().erased
        fold, self._since, self._read_on = Fold(collection, erased), Fold(collection, erased), self.end
        context.attempts.assigned({(ENCODINGS.name, context.partition): begin})
        for batch in context.log.read({context.partition: Span(begin, self.end)}):
            _add(context.attempts, batch, fold.add)
            progress("reading", _behind(batch) - begin, self.end - begin)
        # The findings of everyone matched by now are on `duplicates` already.
        matched = context.progress.matched(context.partition)
        self.matched_offset = matched or context.log.committed(context.partition) or 0
        begin, self.findings_end = context.duplicates.span(context.partition)
        self.findings = Findings(collection, context.shard, erased)
        context.finding_attempts.assigned({(DUPLICATES.name, context.partition): begin})
        for batch in context.duplicates.read({context.partition: Span(begin, self.findings_end)}):
            _add(context.finding_attempts, batch, self.findings.add)
            progress("gathering", _behind(batch) - begin, self.findings_end - begin, "findings")
        known = list(fold.collections())
        # Collections without anybody in the log: Kafka has dropped the tombstones of all.
        self.in_use = self.findings.in_use()
        gone = self.in_use.keys() - {census.collection for census in known}
        return known + [Census.empty(name) for name in sorted(gone)]

    def changed(self, collection: str) -> IdTable:
        """The individuals of a collection that came, changed or were erased since `read`, by what is there now."""
        context = self._context
        begin, self._read_on = self._read_on, context.log.span(context.partition).end
        for batch in context.log.read({context.partition: Span(begin, self._read_on)}):
            _add(context.attempts, batch, self._since.add)
        return next(
            (one.id_table for one in self._since.collections() if one.collection == collection), IdTable.empty()
        )


def _add(attempts: Attempts, batch: list[StoredRecord], add: Callable[[Sequence[StoredRecord]], None]) -> None:
    with attempts.working():
        for portion in attempts.portions(batch):
            add(portion)


def _behind(batch: list[StoredRecord]) -> int:
    """The offset after a batch."""
    return batch[-1].offset + 1
