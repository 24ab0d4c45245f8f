"""One partition of `encodings`: its gallery, how it is restored from the log, and what happens to a batch."""

import logging
import time

from schemas.envelope import Record
from schemas.kafka import Publisher
from schemas.settings import Settings
from streams.gallery import Gallery
from streams.log import PartitionLog
from streams.matching import match, restore
from streams.progress import Progress

log = logging.getLogger(__name__)


class PartitionMatcher:
    """Whatever part of the log a batch hands over, everything before it has been applied and matched.

    `position` is the offset up to which records are applied to the gallery. The state is that of the log: what the
    stream skips is read from it, what it repeats is matched again, harmlessly.
    """

    def __init__(
        self,
        partition: int,
        settings: Settings,
        encodings: PartitionLog,
        publisher: Publisher,
        progress: Progress,
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._log = encodings
        self._publisher = publisher
        self._progress = progress
        self._gallery = Gallery()
        self.position = 0

    def restore(self) -> None:
        """Apply what was matched before: the log from its beginning up to the matched offset."""
        begun = time.monotonic()
        matched = self._matched()
        for batch in self._log.read(self._partition, 0, matched):
            restore(self._gallery, batch)
        self.position = matched
        log.info(
            "partition %d: %d people restored from %d records in %.1f s",
            self._partition,
            self._gallery.living,
            matched,
            time.monotonic() - begun,
        )

    def process(self, records: list[Record]) -> None:
        """Match records of this partition, in the order of their offsets; return when all findings are durable."""
        pending: list[Record] = []
        for record in records:
            assert record.offset is not None
            if record.offset > self.position:
                self._match(pending)
                pending = []
                self._catch_up(record.offset)
            pending.append(record)
            self.position = max(self.position, record.offset + 1)
        self._match(pending)

    def _catch_up(self, offset: int) -> None:
        """Match what lies between the position and an offset: compaction left a gap, or the stream skipped it."""
        found = 0
        for batch in self._log.read(self._partition, self.position, offset):
            found += len(batch)
            self._match(batch)
        self.position = offset
        if found:
            log.warning(
                "partition %d: the stream skipped %d records before offset %d; they were read from the log",
                self._partition,
                found,
                offset,
            )

    def _match(self, records: list[Record]) -> None:
        if not records:
            return
        consequences = match(self._gallery, records, self._settings.threshold_for)
        self._publisher.publish_all(consequences.publish + self._renewed(consequences.renew))
        last = records[-1].offset
        assert last is not None
        self._progress.advance(self._partition, last + 1)

    def _renewed(self, offsets: list[int]) -> list[Record]:
        """The records at those offsets, to be published again behind stale ones that came after them."""
        renewed = []
        for offset in offsets:
            found = [record for batch in self._log.read(self._partition, offset, offset + 1) for record in batch]
            if not found:
                log.error(
                    "partition %d: the record at offset %d is compacted away and cannot be renewed",
                    self._partition,
                    offset,
                )
            renewed += [
                Record(record.topic, record.key, record.value, record.headers, partition=self._partition)
                for record in found
            ]
        return renewed

    def _matched(self) -> int:
        matched = self._progress.matched(self._partition)
        if matched is not None and matched > self._log.end(self._partition):
            log.warning(
                "partition %d: Redis says that %d records are matched, the log has fewer: it is another log",
                self._partition,
                matched,
            )
            self._progress.forget(self._partition)
            matched = None
        if matched is None:
            matched = self._log.committed(self._partition) or 0
        return matched
