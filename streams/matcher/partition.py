"""One partition of `encodings`: its gallery, how it is restored, and what happens to a batch."""

import logging
import time
from collections.abc import Iterable, Mapping

import structlog

from runtime.servers.log import Span
from runtime.servers.removed import report_removed
from runtime.telemetry.health import HEALTH
from schemas.envelope import UNREADABLE, Headers, Record, StoredRecord, decode, of_replay
from schemas.events.encodings import EncodingComputed
from schemas.topics import ENCODINGS, matcher_of
from streams.checkpoint.state import gallery_of
from streams.gallery.gallery import Gallery
from streams.matcher.candidates import CandidateWatch
from streams.matcher.context import MatcherContext
from streams.matcher.metering import count_matched
from streams.matcher.reporting import report, trace
from streams.matcher.sealer import Sealer
from streams.matcher.vitals import PartitionVitals, vitals_of
from streams.matching.match import Rules, match, restore

log = structlog.stdlib.get_logger(__name__)

_VITALS_EVERY_S = 2.0


class SpentError(Exception):
    """A PartitionMatcher was used after it had failed: its gallery is ahead of what was published."""


class PartitionMatcher:
    """Matches the records of one partition.

    Invariant: every record below `position` is applied to the gallery and its findings are acknowledged by Kafka.
    Records that the stream skipped are read from the log; records that come again are matched again, harmlessly.

    Whatever `process` raises, the matcher is thrown away after it: the gallery may have records whose findings were not
    published. A new one starts from the checkpoint.

    Raises PartitionLostError and ProcessWasFrozenError where the partition belongs to another process: before anything
    is published or stored. Raises SpentError when it is used after it raised.
    """

    def __init__(self, partition: int, context: MatcherContext) -> None:
        self.partition = partition
        self._place = ENCODINGS.name, partition
        self.gallery = Gallery(context.shard, context.settings.max_collections)
        self.position = 0
        self.matched_at: int | None = None  # Kafka's timestamp of the last record matched, milliseconds since 1970
        self.vitals: PartitionVitals | None = None
        self._context = context
        self._checkpoints = context.checkpoints_of(partition)
        self._shown_at = -_VITALS_EVERY_S
        self._is_spent = False
        self._watch = CandidateWatch(context.thresholds)
        self._rules = Rules(
            context.thresholds.of,
            context.settings.findings_limit,
            context.erasures.erased,
            self._encoding_at,
            context.now,
        )

    def restore(self) -> None:
        """Take the state from the checkpoint in Redis, and from the log what was matched since.

        Then match what lies between that and the committed offset, where the stream begins.
        """
        context = self._context
        begun = context.clock()
        # Before the log's end is asked for: while a process was stopped between the two, another may have matched more.
        known = context.progress.matched(self.partition)
        state = self._checkpoints.load(self._log_end)
        log_begin, log_end = context.log.span(self.partition)
        begin = 0
        if state is not None:
            self.gallery = gallery_of(state, context.shard, context.settings.max_collections)
            self.gallery.use_threads(context.background.search_threads)
            begin = state.offset
        in_checkpoint, loaded_s = self.gallery.living, context.clock() - begun
        self.position = matched = self._matched(known, log_end)
        group = matcher_of(context.shard).name
        if matched and (letter := report_removed(group, ENCODINGS.name, self.partition, matched, log_begin)):
            context.publisher.publish_all([letter], self._check_ownership)
            self.position = matched = log_begin
        self._read_again(Span(begin, matched))
        context.attempts.assigned({self._place: matched})
        self._sealer = Sealer(
            context.settings, self.gallery, self._checkpoints, begin, context.background, context.clock
        )
        log.log(
            logging.INFO if log_end else logging.DEBUG,
            "restored",
            partition=self.partition,
            people=self.gallery.living,
            seconds=round(context.clock() - begun, 1),
            people_in_checkpoint=in_checkpoint,
            checkpoint_seconds=round(loaded_s, 1),
            read_from_offset=begin,
            read_to_offset=max(begin, matched),
        )
        # The stream begins at the committed offset. It is ahead of what Redis knows where Redis lost its last writes:
        # what lies between is handed over by nobody, and where nothing comes after it the matcher would stand still.
        committed = min(context.log.committed(self.partition) or 0, log_end)
        if committed > self.position:
            self._catch_up(committed)

    def _read_again(self, span: Span) -> None:
        """Apply records that were matched before."""
        restoring = self._context.restoring
        restoring.assigned({self._place: span.begin})
        with restoring.working():
            for batch in self._context.log.read({self.partition: span}):
                for portion in restoring.portions(batch):
                    restore(self.gallery, portion, self._rules.erased)
                HEALTH.beat()
        restoring.revoked([self._place])

    def process(self, records: Iterable[StoredRecord]) -> None:
        """Match records of this partition, in the order of their offsets. Returns when all findings are durable."""
        self._check_usable()
        try:
            self._process(records)
        except BaseException:
            self._is_spent = True
            raise
        self.tend()

    def tend(self) -> None:
        """Go on with the background work, and show the vitals every 2 s."""
        self._check_usable()
        self._sealer.tend(self.position, lambda: self._context.ownership.owns(self.partition))
        now = self._context.clock()
        if now - self._shown_at >= _VITALS_EVERY_S:
            now_at, thresholds = self._context.now(), self._context.thresholds
            self.vitals = vitals_of(self.gallery, self._watch, thresholds, self.partition, self.position, now_at)
            self._context.show(self.vitals)
            self._shown_at = now

    def _check_usable(self) -> None:
        if self._is_spent:
            raise SpentError(f"the matcher of partition {self.partition} has failed: make a new one")

    def _process(self, records: Iterable[StoredRecord]) -> None:
        pending: list[StoredRecord] = []
        expected = self.position
        for record in records:
            is_missing = any(name == UNREADABLE for name, _ in record.headers)  # see streams.matcher.whole_batches
            if record.offset > expected or is_missing:
                self._match(pending)
                pending = []
                self._catch_up(record.offset + is_missing)
            if not is_missing:
                pending.append(record)
            expected = max(expected, record.offset + 1)
        self._match(pending)

    def _catch_up(self, offset: int) -> None:
        """Match what lies between the position and an offset: Kafka compacted it away, or the stream skipped it."""
        found = 0
        for batch in self._context.log.read({self.partition: Span(self.position, offset)}):
            found += len(batch)
            self._match(batch)
        if found:
            log.warning(
                "the stream skipped records: they were read from the log",
                partition=self.partition,
                records=found,
                offset=offset,
            )

    def _match(self, records: list[StoredRecord]) -> None:
        """Match records that follow each other, what the matcher may die of by itself."""
        with self._context.attempts.working():
            for portion in self._context.attempts.portions(records):
                if portion:
                    self._match_at_once(portion)

    def _match_at_once(self, records: list[StoredRecord]) -> None:
        """Publish what follows from records, check that the partition is still ours, advance."""
        HEALTH.beat()
        begun = time.time_ns()
        consequences = match(self.gallery, records, self._rules)
        renewed = self._renewed(consequences.renew, consequences.replays)
        self._context.publisher.publish_all(consequences.publish + renewed, self._check_ownership)
        last = records[-1].offset
        self._check_ownership()
        self._context.progress.advance(self.partition, last + 1)
        self.position = max(self.position, last + 1)
        self.matched_at = records[-1].timestamp
        if self._context.tracer is not None:
            trace(self._context.tracer, consequences.read, begun, time.time_ns())
        report(self.partition, consequences, renewed)
        self._watch.count(consequences.messages, self.gallery)
        count_matched(consequences.messages, len(consequences.letters))

    def _log_end(self) -> int:
        return self._context.log.span(self.partition).end

    def _check_ownership(self) -> None:
        self._context.ownership.check(self.partition)

    def _renewed(self, offsets: Iterable[int], replays: Mapping[int, Headers]) -> list[Record]:
        """The records at those offsets, to be published again behind stale ones that came after them."""
        renewed = []
        for offset in offsets:
            found = self._records_at(offset)
            if not found:
                log.error(
                    "a record is compacted away and cannot be published again",
                    partition=self.partition,
                    offset=offset,
                )
            renewed += [
                Record(
                    record.topic,
                    record.key,
                    record.value,
                    of_replay(record.headers, replays.get(offset, ())),
                    partition=self.partition,
                )
                for record in found
            ]
        return renewed

    def _encoding_at(self, offset: int) -> EncodingComputed | None:
        """The encoding at an offset of the log, None if Kafka has compacted it away."""
        for record in self._records_at(offset):
            event = decode(record, ENCODINGS).event
            return event if isinstance(event, EncodingComputed) else None
        return None

    def _records_at(self, offset: int) -> list[StoredRecord]:
        """One record, or none if Kafka has compacted it away."""
        span = Span(offset, offset + 1)
        return [record for batch in self._context.lookup.read({self.partition: span}) for record in batch]

    def _matched(self, matched: int | None, log_end: int) -> int:
        """The offset below which everything is matched, as Redis knows it, else the group's committed one."""
        if matched is not None and matched > log_end:
            log.warning(
                "more is matched, by Redis, than the log has: it is another log",
                partition=self.partition,
                matched=matched,
                log_end=log_end,
            )
            self._context.progress.forget(self.partition)
            matched = None
        if matched is None:
            matched = self._context.log.committed(self.partition) or 0
        return matched
