"""Compaction: the index of a collection built anew from the log alone, its pairs put right, and a certificate of it."""

import logging
import resource
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from redis.exceptions import OutOfMemoryError

from schemas.envelope import Record
from schemas.events import CompactionCertified, IndexParameters, MeasuredRecall, PairCounts
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import DUPLICATES, ENCODINGS, matcher_of
from streams.audit import Difference, Due, difference, due
from streams.connection import connect, key
from streams.correction import Correction
from streams.delta import Rows, half_norms, search_block
from streams.findings import Findings
from streams.fold import Census, Fold, falling_to
from streams.inbox import Inbox, LostChunksError
from streams.lease import Lease, LeaseLostError, lease_of
from streams.log import PartitionLog
from streams.manifest import Blob, Compacted, SegmentEntry
from streams.packing import pack_segment
from streams.progress import Progress
from streams.roster import Roster
from streams.segment import Quality, Segment, build_segment

log = logging.getLogger(__name__)

NAME = "compactor"
BYTES_OF_A_RECORD = 4_000  # of memory
BYTES_OF_A_FINDING = 400
BYTES_OF_A_PAIR = 100  # that holds, and 300 more while it is published
_REACH_SAMPLE, _MOST_IN_REACH = 10_000, 5_000
OnProgress = Callable[[str, int, int], None]
"""Told what is under way, how far it is, and to where it goes."""


class UnknownCollectionError(Exception):
    """Nobody was ever registered in that collection."""


class TooManyPairsError(Exception):
    """There are more pairs at the supposed threshold than can be listed. The text says how many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compacted: everything, unless a collection or an encoder is named.

    A dry run publishes and stores nothing; it alone may suppose another threshold or recall floor.
    """

    collection: str | None = None
    encoder: str | None = None
    dry_run: bool = False
    threshold: float | None = None
    recall_floor: float | None = None


class Compactor:
    """Of one shard's partition. Interrupted at any point, it leaves what was there; the next run removes its litter."""

    def __init__(self, settings: Settings, shard: Shard, partition: int, threads: int, progress: OnProgress) -> None:
        self.settings, self.shard, self.partition = settings, shard, partition
        self.threads, self.progress = threads, progress
        self.log = PartitionLog(settings, ENCODINGS, matcher_of(shard).name)
        self.duplicates = PartitionLog(settings, DUPLICATES, NAME)
        self.redis = connect(settings)
        self.inbox = Inbox(settings, self.redis, shard, partition)

    def records(self) -> tuple[int, int]:
        """How many encodings and findings there may be to read; there are fewer where Kafka compacted the topic."""
        bounds = (log.bounds(self.partition) for log in (self.log, self.duplicates))
        encodings, findings = (end - begin for begin, end in bounds)
        return encodings, findings

    def run(self, plan: Plan = Plan()) -> Iterator[CompactionCertified]:
        """Compact each encoder of each collection by itself, and hand out its certificate once that is published.

        Raises HeldError where another compaction is under way, LeaseLostError if another took over,
        LostChunksError where Redis lost what was written, OutOfMemoryError where it is full, UnknownCollectionError.
        """
        if plan.dry_run:
            yield from _Run(self, plan, None).certificates()
            return
        with lease_of(self.redis, key(self.settings, "lease", self.shard, self.partition)) as lease:
            removed = self.inbox.remove_litter()
            if removed:
                log.info("partition %d: %d chunks of one that was cut off are removed", self.partition, removed)
            yield from _Run(self, plan, lease).certificates()
            lease.check()
            self.inbox.remove_litter()  # what was replaced

    def close(self) -> None:
        """Let go of the servers."""
        self.log.close()
        self.duplicates.close()
        self.redis.close()


class _Run:
    """One compaction of a partition, under a lease unless it is a dry run."""

    def __init__(self, compactor: Compactor, plan: Plan, lease: Lease | None) -> None:
        self._compactor, self._plan, self._lease = compactor, plan, lease
        self._settings, self._log = compactor.settings, compactor.log
        self._watch = _Stopwatch(compactor.progress)
        self._findings = Findings(plan.collection, compactor.shard)

    def certificates(self) -> Iterator[CompactionCertified]:
        """See `Compactor.run`."""
        begun = datetime.now(UTC)
        collections = self._read()
        # Those of whom the log knows nobody any more: Kafka has dropped their tombstones.
        gone = self._findings.collections() - {census.collection for census in collections}
        collections += [Census.empty(name) for name in sorted(gone)]
        if self._plan.collection is not None and not collections:
            raise UnknownCollectionError(self._plan.collection)
        self._watch("", 0, 0)
        read_s = dict(self._watch.seconds)
        for census in collections:
            encoders: set[str | None] = {*census.in_use(), *self._findings.encoders(census.collection)} or {None}
            if self._plan.encoder is not None:
                encoders &= {self._plan.encoder} if self._plan.encoder in census.in_use() else set()
            for encoder in sorted(encoders, key=str):
                self._watch.seconds = defaultdict(float, read_s)
                self._watch("preparing", 0, 1)
                yield self._certify(census, encoder, begun)
                begun = datetime.now(UTC)

    def _read(self) -> list[Census]:
        """What the log says, and then what `duplicates` says of it."""
        partition, matcher = self._compactor.partition, Progress(self._settings, self._compactor.shard)
        begin, self._end = self._log.bounds(partition)
        fold = Fold(self._plan.collection)
        for batch in self._log.read(partition, begin, self._end):
            fold.add(batch)
            self._watch("reading", _offset_behind(batch) - begin, self._end - begin)
        # What is matched by now is on `duplicates` already.
        self._matched = matcher.matched(partition) or self._log.committed(partition) or 0
        duplicates = self._compactor.duplicates
        begin, said = duplicates.bounds(partition)
        for batch in duplicates.read(partition, begin, said):
            self._findings.add(batch)
            self._watch("gathering findings", _offset_behind(batch) - begin, said - begin)
        self._read_on, self._since = self._end, Fold(self._plan.collection)
        if self._lease is not None:
            self._correction = Correction(
                self._settings, self._compactor.shard, duplicates, partition, said, self._lease.check
            )
        return list(fold.collections())

    def _certify(self, census: Census, encoder: str | None, begun: datetime) -> CompactionCertified:
        collection, settings, plan = census.collection, self._settings, self._plan
        threshold = plan.threshold or settings.threshold_for(collection)
        floor = plan.recall_floor or settings.recall_floor
        pairs, checked, segment, blob = PairCounts(kept=0, found=0, retracted=0), 0, None, None
        if encoder is not None:
            rows = census.living(encoder)
            segment, must = self._rebuild(census, encoder, rows, threshold, floor)
            judged = difference(
                census,
                encoder,
                rows,
                must,
                self._findings.words(collection, encoder),
                self._findings.checked(collection, encoder),
                threshold,
                self._matched,
                self._changed(collection),
                self._compactor.shard,
            )
            pairs = PairCounts(kept=judged.kept, found=len(judged.found), retracted=len(judged.retracted))
            checked = len(judged.unchecked)
            if self._lease is not None:
                blob = self._put_right(collection, encoder, rows, must, judged, threshold, segment, floor)
        self._watch("", 0, 0)
        quality = None if segment is None else segment.quality
        certificate = CompactionCertified(
            certificate_id=str(uuid.uuid4()),
            collection=collection,
            encoder=encoder,
            shard=self._compactor.shard.number,
            shards=self._compactor.shard.count,
            partition=self._compactor.partition,
            offset=self._end,
            people=0 if segment is None else len(segment),
            threshold=threshold,
            index=None if quality is None else _index_of(quality),
            recall=None if quality is None else _recall_of(quality, floor),
            pairs=pairs,
            checked=checked,
            in_service=blob is not None,
            checksum=None if blob is None else blob.checksum(),
            began_at=begun,
            seconds={name: round(seconds, 3) for name, seconds in self._watch.seconds.items()},
            memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        )
        if self._lease is not None:
            self._correction.publish_certificate(certificate)
        return certificate

    def _rebuild(
        self, census: Census, encoder: str, rows: Rows, threshold: float, floor: float
    ) -> tuple[Segment | None, Due]:
        """A segment of those that fall to the shard, None where nobody does, and the pairs that must hold."""
        ours = np.flatnonzero(falling_to(self._compactor.shard, census.roster.hashes[rows.numbers]))
        if not len(ours):
            return None, Due.nothing(len(rows.ids))
        if self._plan.threshold is not None:
            _check_reach(rows, threshold)
        needed = self._needed_before(census.collection, encoder, len(ours))
        chosen = rows if len(ours) == len(rows.ids) else rows.chosen(ours)
        segment = build_segment(chosen, threshold, floor, self._compactor.threads, needed, self._watch)
        segment.index.set_num_threads(self._compactor.threads)
        del chosen
        people = len(rows.ids)
        must = due(
            segment, ours, rows, threshold, self._settings.findings_limit,
            lambda done: self._watch("comparing", done, people),
        )  # fmt: skip
        return segment, must

    def _put_right(
        self,
        collection: str,
        encoder: str,
        rows: Rows,
        must: Due,
        judged: Difference,
        threshold: float,
        segment: Segment | None,
        floor: float,
    ) -> Blob | None:
        """Publish the difference, and put the segment into service if it is good enough: then returns where it is."""
        assert self._lease is not None
        self._watch("publishing", 0, 1)
        self._correction.publish(collection, encoder, rows, must, judged, threshold, lambda: self._changed(collection))
        self._watch("publishing", 1, 1)
        if segment is None or segment.quality.recall < floor:
            return None
        self._lease.check()
        self._watch("storing", 0, len(segment))
        inbox = self._compactor.inbox
        blob = inbox.chunks.put(pack_segment(segment))
        try:
            self._watch("storing", len(segment), len(segment))
            entry = SegmentEntry(blob=blob, rows=len(segment), quality=segment.quality)
            inbox.put(
                Compacted(
                    collection=collection, encoder=encoder, offset=self._end, made_at=datetime.now(UTC), segment=entry
                ),
                self._lease,
            )
        except (LeaseLostError, LostChunksError, OutOfMemoryError):  # not where it may have been put all the same
            inbox.chunks.remove(blob.chunks())
            raise
        return blob

    def _changed(self, collection: str) -> Roster:
        """Who of a collection came, changed or was erased since the log was read."""
        begin, self._read_on = self._read_on, self._log.end(self._compactor.partition)
        for batch in self._log.read(self._compactor.partition, begin, self._read_on):
            self._since.add(batch)
        return next((one.roster for one in self._since.collections() if one.collection == collection), Roster.empty())

    def _needed_before(self, collection: str, encoder: str, people: int) -> Quality | None:
        """What a segment of about that size needed."""
        manifest = self._compactor.inbox.manifest()
        scopes = () if manifest is None else manifest.scopes
        return next(
            (
                segment.quality
                for scope in scopes
                for segment in scope.segments
                if (scope.collection, scope.encoder) == (collection, encoder)
                and segment.rows / 2 <= people <= 2 * segment.rows
            ),
            None,
        )


class _Stopwatch:
    """Passes progress on, and keeps how many seconds each part took: the first word of what is under way."""

    def __init__(self, progress: OnProgress) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._progress = progress
        self._part, self._since = "reading", time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._part:
            self.seconds[self._part] += now - self._since
        self._part, self._since = what.partition(" ")[0].rstrip(","), now
        if what:
            self._progress(what, done, total)


def _check_reach(rows: Rows, threshold: float) -> None:
    """Raise TooManyPairsError where a threshold that nobody works with leads to more than can be held."""
    people = len(rows.ids)
    random = np.random.default_rng(people)
    some = rows.vectors[random.choice(people, min(people, _REACH_SAMPLE), replace=False)]
    probes = some[: _REACH_SAMPLE // 100]
    share = len(search_block(probes, some, half_norms(some), threshold).rows) / (len(probes) * len(some))
    if share * people > _MOST_IN_REACH:
        raise TooManyPairsError(
            f"at a threshold of {threshold} everyone has about {share * people:.0f} others in reach, too many to list"
        )


def _offset_behind(batch: list[Record]) -> int:
    offset = batch[-1].offset
    assert offset is not None
    return offset + 1


def _index_of(quality: Quality) -> IndexParameters:
    return IndexParameters(m=quality.m, ef_construction=quality.ef_construction, ef=quality.ef)


def _recall_of(quality: Quality, floor: float) -> MeasuredRecall:
    return MeasuredRecall(
        recall=quality.recall,
        low=quality.recall_low,
        high=quality.recall_high,
        people=quality.sample_probes,
        made_up=quality.sample_is_made_up,
        pairs=quality.sample_pairs,
        floor=floor,
    )
