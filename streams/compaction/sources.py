"""What a compaction reads: who is in the log, what was said of them, and who changed since."""

from collections.abc import Iterator
from contextlib import closing

from runtime.servers.erasures import ErasureLog
from runtime.servers.partition_log import PartitionLog
from schemas.envelope import StoredRecord
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import DUPLICATES, ENCODINGS, matcher_of
from streams.checkpoint.progress import Progress
from streams.compaction.census import Census, Fold
from streams.compaction.findings import Findings
from streams.compaction.stopwatch import OnProgress
from streams.gallery.id_table import IdTable


class Sources:
    """One partition of `encodings` and of `duplicates`, of one collection or of all. Read once, by `read`.

    Raises ErasureKeyError where no key is set.

    `end`: the log was read below it. `matched`: everyone below it was compared, and what was found is in `findings`.
    `said`: they are what stands on `duplicates` below it. `in_use`: see `Findings.in_use`.
    """

    def __init__(self, settings: Settings, shard: Shard, partition: int) -> None:
        self._settings, self._shard, self._partition = settings, shard, partition
        self.log = PartitionLog(settings, ENCODINGS, matcher_of(shard).name)
        self.duplicates = PartitionLog(settings, DUPLICATES, "compactor")
        self._erasures = ErasureLog(settings, "compactor")
        self.findings = Findings()
        self.in_use: dict[str, set[str]] = {}
        self.end = self.matched = self.said = 0
        self._since = Fold()
        self._read_on = 0

    def sizes(self) -> tuple[int, int]:
        """How many encodings and findings there may be to read; there are fewer where Kafka compacted the topic."""
        encodings, findings = (end - begin for begin, end in self._bounds())
        return encodings, findings

    def read(self, collection: str | None, progress: OnProgress) -> list[Census]:
        """Read both, and return who is in each collection that either knows of."""
        (begin, self.end), _ = self._bounds()
        erased = self._erasures.catch_up().erased
        fold, self._since, self._read_on = Fold(collection, erased), Fold(collection, erased), self.end
        for batch in self.log.read(self._partition, begin, self.end):
            fold.add(batch)
            progress("reading", _behind(batch) - begin, self.end - begin)
        # What is matched by now is on `duplicates` already.
        with closing(Progress(self._settings, self._shard)) as matcher:
            self.matched = matcher.matched(self._partition) or self.log.committed(self._partition) or 0
        _, (begin, self.said) = self._bounds()
        self.findings = Findings(collection, self._shard)
        for batch in self.duplicates.read(self._partition, begin, self.said):
            self.findings.add(batch)
            progress("gathering findings", _behind(batch) - begin, self.said - begin)
        known = list(fold.collections())
        # Those of whom the log knows nobody any more: Kafka has dropped their tombstones.
        self.in_use = self.findings.in_use()
        gone = self.in_use.keys() - {census.collection for census in known}
        return known + [Census.empty(name) for name in sorted(gone)]

    def changed(self, collection: str) -> IdTable:
        """Who of a collection came, changed or was erased since the log was read."""
        begin, self._read_on = self._read_on, self.log.end(self._partition)
        for batch in self.log.read(self._partition, begin, self._read_on):
            self._since.add(batch)
        return next(
            (one.id_table for one in self._since.collections() if one.collection == collection), IdTable.empty()
        )

    def close(self) -> None:
        """Let go of the broker."""
        self.log.close()
        self.duplicates.close()
        self._erasures.close()

    def _bounds(self) -> Iterator[tuple[int, int]]:
        return (log.bounds(self._partition) for log in (self.log, self.duplicates))


def _behind(batch: list[StoredRecord]) -> int:
    """The offset behind a batch."""
    return batch[-1].offset + 1
