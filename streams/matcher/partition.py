"""One partition of `encodings`: its gallery, how it is restored, and what happens to a batch."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from runtime.servers.erasures import ErasureLog
from runtime.servers.partition_log import PartitionLog
from runtime.servers.publisher import Publisher
from runtime.servers.redis import connect, connect_patiently
from runtime.telemetry.health import HEALTH
from runtime.telemetry.tracing import Tracer
from schemas.envelope import Headers, Record, decode, of_replay
from schemas.events.encodings import EncodingComputed
from schemas.settings import Settings
from schemas.shard import Shard
from streams.checkpoint.progress import Progress
from streams.checkpoint.state import gallery_of
from streams.checkpoint.store import CheckpointStore
from streams.gallery.gallery import Gallery
from streams.matcher.metering import count_matched
from streams.matcher.ownership import Ownership
from streams.matcher.reporting import say, trace
from streams.matcher.sealer import Sealer
from streams.matcher.vitals import PartitionVitals, vitals_of, write_vitals
from streams.matching.match import Rules, match, restore

log = structlog.stdlib.get_logger(__name__)

_VITALS_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class MatcherContext:
    """What the matchers of a process's partitions share."""

    settings: Settings
    shard: Shard
    log: PartitionLog
    publisher: Publisher
    progress: Progress
    ownership: Ownership
    erasures: ErasureLog
    tracer: Tracer | None = None


class PartitionMatcher:
    """Whatever part of the log a batch hands over, everything before it has been applied and matched.

    `position` is the offset up to which records are matched. The state is that of the log: what the stream skips is
    read from it, what it repeats is matched again, harmlessly. Raises PartitionLostError and ProcessWasFrozenError
    where the partition is another process's: before it says or stores anything.
    """

    def __init__(self, partition: int, around: MatcherContext) -> None:
        self.partition = partition
        self._around = around
        self._redis = connect_patiently(around.settings)
        self._checkpoints = CheckpointStore(around.settings, connect(around.settings), around.shard, partition)
        self._said_at = -_VITALS_EVERY_S
        self._rules = Rules(
            around.settings.threshold_for, around.settings.findings_limit, around.erasures.erased, self._encoding_at
        )
        self.gallery = Gallery(around.shard)
        self.position = 0
        self.matched_at: int | None = None  # Kafka's timestamp of the last that was matched, in milliseconds
        self.vitals: PartitionVitals | None = None

    def restore(self) -> None:
        """Take the state from the checkpoint in Redis, and what was matched since from the log."""
        begun = time.monotonic()
        log_end = self._around.log.end(self.partition)
        state = self._checkpoints.load(log_end)
        begin = 0
        if state is not None:
            self.gallery = gallery_of(state, self._around.shard)
            begin = state.offset
        in_checkpoint, loaded_s = self.gallery.living, time.monotonic() - begun
        self.position = matched = self._matched(log_end)
        for batch in self._around.log.read(self.partition, begin, matched):
            restore(self.gallery, batch, self._rules.erased)
            HEALTH.beat()
        self._sealer = Sealer(self._around.settings, self.gallery, self._checkpoints, begin)
        log.log(
            logging.INFO if log_end else logging.DEBUG,
            "restored",
            partition=self.partition,
            people=self.gallery.living,
            seconds=round(time.monotonic() - begun, 1),
            people_in_checkpoint=in_checkpoint,
            checkpoint_seconds=round(loaded_s, 1),
            read_from_offset=begin,
            read_to_offset=max(begin, matched),
        )

    def process(self, records: list[Record]) -> None:
        """Match records of this partition, in the order of their offsets; return when all findings are durable."""
        pending: list[Record] = []
        expected = self.position
        for record in records:
            assert record.offset is not None
            if record.offset > expected:
                self._match(pending)
                pending = []
                self._catch_up(record.offset)
            pending.append(record)
            expected = max(expected, record.offset + 1)
        self._match(pending)
        self.tend()

    def tend(self) -> None:
        """Take over what was sealed in the background, have sealed what is due, and say how things stand."""
        self._sealer.tend(self.position, lambda: self._around.ownership.owns(self.partition))
        if time.monotonic() - self._said_at >= _VITALS_EVERY_S:
            self.vitals = vitals_of(self.gallery, self.partition, self.position)
            write_vitals(self._redis, self._around.settings, self._around.shard, self.vitals)
            self._said_at = time.monotonic()

    def _catch_up(self, offset: int) -> None:
        """Match what lies between the position and an offset: compaction left a gap, or the stream skipped it."""
        found = 0
        for batch in self._around.log.read(self.partition, self.position, offset):
            found += len(batch)
            self._match(batch)
        self.position = offset
        if found:
            log.warning(
                "the stream skipped records: they were read from the log",
                partition=self.partition,
                records=found,
                offset=offset,
            )

    def _match(self, records: list[Record]) -> None:
        if not records:
            return
        HEALTH.beat()
        begun = time.time_ns()
        consequences = match(self.gallery, records, self._rules)
        renewed = self._renewed(consequences.renew, consequences.replays)
        self._around.publisher.publish_all(consequences.publish + renewed, self._check_ownership)
        last = records[-1].offset
        assert last is not None
        self._check_ownership()
        self._around.progress.advance(self.partition, last + 1)
        self.position = max(self.position, last + 1)
        if self._around.tracer is not None:
            trace(self._around.tracer, records, begun, time.time_ns())
        say(self.partition, consequences.publish, renewed)
        self.matched_at = records[-1].timestamp
        count_matched(consequences.said, consequences.letters)

    def _check_ownership(self) -> None:
        self._around.ownership.check(self.partition)

    def _renewed(self, offsets: list[int], replays: Mapping[int, Headers]) -> list[Record]:
        """The records at those offsets, to be published again behind stale ones that came after them."""
        renewed = []
        for offset in offsets:
            found = self._at(offset)
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
        for record in self._at(offset):
            event = decode(record).event
            assert isinstance(event, EncodingComputed)
            return event
        return None

    def _at(self, offset: int) -> list[Record]:
        return [record for batch in self._around.log.read(self.partition, offset, offset + 1) for record in batch]

    def _matched(self, log_end: int) -> int:
        progress = self._around.progress
        matched = progress.matched(self.partition)
        if matched is not None and matched > log_end:
            log.warning(
                "Redis says that more is matched than the log has: it is another log",
                partition=self.partition,
                matched=matched,
                log_end=log_end,
            )
            progress.forget(self.partition)
            matched = None
        if matched is None:
            matched = self._around.log.committed(self.partition) or 0
        return matched
