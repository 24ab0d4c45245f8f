"""Compaction: builds the index of a collection anew from the log alone, corrects its pairs, and certifies it."""

import resource
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import structlog
from redis.exceptions import OutOfMemoryError

from schemas.events.certificates import CompactionCertified, IndexParameters, MeasuredRecall, PairCounts
from schemas.faults import UserFault
from schemas.thresholds import Thresholds, no_threshold
from streams.checkpoint.files import pack_segment
from streams.checkpoint.handover import LostChunksError
from streams.checkpoint.lease import Lease, LeaseLostError
from streams.checkpoint.manifest import Blob, CompactedSegment, SegmentEntry
from streams.compaction.audit import AuditInput, RequiredPairs, compare, required_pairs
from streams.compaction.census import Census
from streams.compaction.context import CompactionContext
from streams.compaction.correction import Correction, ScopeCorrections
from streams.compaction.input import CompactionInput
from streams.compaction.stopwatch import Stopwatch
from streams.gallery.build import OnProgress, build_segment
from streams.gallery.exact import VectorRows
from streams.gallery.id_table import falling_to
from streams.gallery.reach import check_reach, others_in_reach
from streams.gallery.segment import IndexQuality, Segment

log = structlog.stdlib.get_logger(__name__)

# Upper bounds of the memory that a compaction takes: it is printed before one begins.
BYTES_OF_A_RECORD = 4_000  # with an embedding of 128 numbers
BYTES_OF_A_NUMBER = 25  # of an embedding, beyond these
BYTES_OF_A_FINDING = 400
BYTES_OF_A_PAIR = 100  # a pair that holds, and 300 more while it is published


_MUCH_LARGER = 2  # times the rows: what such a segment needed says nothing about a smaller one


class UnknownCollectionError(UserFault):
    """Nobody was ever registered in that collection."""


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    """What to compact: everything, unless a collection or an encoder is named.

    A dry run publishes and stores nothing. Only a dry run may have another threshold, other thresholds than those of
    the settings, or another recall floor.
    """

    collection: str | None = None
    encoder: str | None = None
    dry_run: bool = False
    threshold: float | None = None
    recall_floor: float | None = None
    thresholds: Thresholds | None = None


class Compactor:
    """Compacts one shard's partition.

    Interrupted at any point, it leaves what was there; the next run removes the chunks that nothing names.
    """

    def __init__(self, context: CompactionContext, progress: OnProgress) -> None:
        """`unknown` counts the pairs that `run` left as they are though the log has nothing of a member."""
        self.context, self.progress = context, progress
        self.input = CompactionInput(context)
        self.unknown = 0

    def run(self, plan: CompactionPlan = CompactionPlan()) -> Iterator[CompactionCertified]:
        """Compact each encoder of each collection by itself, and hand out its certificate once that is published.

        Raises HeldError where another compaction is under way, LeaseLostError if another took over,
        LostChunksError where Redis lost what was written, OutOfMemoryError where it is full, UnknownCollectionError,
        TooManyPairsError.
        """
        if plan.dry_run:
            yield from _Run(self, plan, None).certificates()
            return
        context = self.context
        with context.lease() as lease:
            removed = context.inbox.remove_litter()
            if removed:
                log.info("chunks of one that was cut off are removed", partition=context.partition, chunks=removed)
            yield from _Run(self, plan, lease).certificates()
            lease.check()
            context.inbox.remove_litter()  # the segments that were replaced


class _Run:
    """One compaction of a partition, under a lease unless it is a dry run."""

    def __init__(self, compactor: Compactor, plan: CompactionPlan, lease: Lease | None) -> None:
        self._context, self._plan, self._lease = compactor.context, plan, lease
        self._settings, self._input, self._compactor = compactor.context.settings, compactor.input, compactor
        self._watch = Stopwatch(compactor.progress)

    def certificates(self) -> Iterator[CompactionCertified]:
        """See `Compactor.run`."""
        begun, plan = datetime.now(UTC), self._plan
        collections = self._input.read(plan.collection, self._watch)
        self._watch.pause()
        if plan.collection is not None and not collections:
            raise UnknownCollectionError(
                f"nobody was ever registered in collection {plan.collection}; `facematch status` lists them"
            )
        if self._lease is not None:
            self._correction = Correction(self._context, self._input, self._lease.check)
        reading = dict(self._watch.seconds)
        for census in collections:
            known = self._input.in_use.get(census.collection, set())
            encoders: set[str | None] = {*census.in_use(), *known} or {None}
            if plan.encoder is not None:
                encoders &= {plan.encoder} if plan.encoder in census.in_use() else set()
            for encoder in sorted(encoders, key=str):
                if encoder is not None and encoder in census.in_use() and not self._threshold(census, encoder):
                    log.warning("not compacted", collection=census.collection, why=no_threshold(encoder))
                    continue
                self._watch.seconds = defaultdict(float, reading)
                yield self._certify(census, encoder, begun)
                begun = datetime.now(UTC)

    def _certify(self, census: Census, encoder: str | None, begun: datetime) -> CompactionCertified:
        context, plan = self._context, self._plan
        threshold = self._threshold(census, encoder) or 0.0  # nobody is living by the encoder
        floor = plan.recall_floor or self._settings.recall_floor
        done = _ScopeResult()
        if encoder is not None:
            done = self._compact(census, encoder, threshold, floor)
        self._watch.pause()
        certificate = CompactionCertified(
            certificate_id=str(uuid.uuid4()),
            collection=census.collection,
            encoder=encoder,
            shard=context.shard.number,
            shards=context.shard.count,
            partition=context.partition,
            offset=self._input.end,
            people=done.people,
            threshold=threshold,
            index=None if done.quality is None else _index_of(done.quality),
            recall=None if done.quality is None else _recall_of(done.quality, floor),
            pairs=done.pairs,
            checked=done.checked,
            in_service=done.blob is not None,
            checksum=None if done.blob is None else done.blob.checksum(),
            began_at=begun,
            seconds={name: round(seconds, 3) for name, seconds in self._watch.seconds.items()},
            memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
        )
        if self._lease is not None:
            self._correction.publish_certificate(certificate)
        return certificate

    def _threshold(self, census: Census, encoder: str | None) -> float | None:
        thresholds = self._plan.thresholds or self._context.thresholds
        return self._plan.threshold or thresholds.of(census.collection, encoder or "", census.people)

    def _compact(self, census: Census, encoder: str, threshold: float, floor: float) -> "_ScopeResult":
        rows, findings = census.living(encoder), self._input.findings
        segment, required = self._rebuild(census, encoder, rows, threshold, floor)
        self._watch("comparing", len(rows.ids), len(rows.ids))
        corrections = compare(
            AuditInput(
                census,
                encoder,
                rows,
                required,
                findings.statements(census.collection, encoder),
                findings.checked(census.collection, encoder),
                threshold,
                self._input.matched_offset,
                self._input.changed(census.collection),
                self._context.shard,
            )
        )
        self._compactor.unknown += corrections.unknown
        blob = None
        if self._lease is not None:
            self._watch("publishing", 0, 1)
            self._correction.publish(
                ScopeCorrections(census.collection, encoder, rows, required, corrections, threshold)
            )
            self._watch("publishing", 1, 1)
            if segment is not None and segment.quality.recall >= floor:
                blob = self._put_into_service(census.collection, encoder, segment, self._lease)
        return _ScopeResult(
            0 if segment is None else len(segment),
            None if segment is None else segment.quality,
            PairCounts(kept=corrections.kept, found=len(corrections.found), retracted=len(corrections.retracted)),
            len(corrections.unchecked),
            blob,
        )

    def _rebuild(
        self, census: Census, encoder: str, rows: VectorRows, threshold: float, floor: float
    ) -> tuple[Segment | None, RequiredPairs]:
        """A segment of the rows that fall to the shard, None if there is none, and the pairs that must hold."""
        ours = np.flatnonzero(falling_to(self._context.shard, census.id_table.hashes[census.positions(encoder)]))
        people, threads = len(rows.ids), self._context.threads
        if not len(ours):
            return None, RequiredPairs.nothing(people)
        if self._plan.dry_run:
            check_reach(threshold, others_in_reach(rows, threshold))
        needed = self._needed_before(census.collection, encoder, len(ours))
        chosen = rows if len(ours) == people else rows.chosen(ours)
        segment = build_segment(chosen, threshold, floor, threads, needed, self._watch)
        segment.use_threads(threads)
        del chosen

        def compared(count: int) -> None:
            self._watch("comparing", count, people)

        return segment, required_pairs(segment, ours, rows, threshold, self._settings.findings_limit, compared)

    def _put_into_service(self, collection: str, encoder: str, segment: Segment, lease: Lease) -> Blob:
        lease.check()
        self._watch("storing", 0, len(segment))
        inbox = self._context.inbox
        blob = inbox.chunks.put(pack_segment(segment))
        try:
            self._watch("storing", len(segment), len(segment))
            compacted = CompactedSegment(
                collection=collection,
                encoder=encoder,
                offset=self._input.end,
                made_at=datetime.now(UTC),
                segment=SegmentEntry(blob=blob, rows=len(segment), quality=segment.quality),
            )
            inbox.put(compacted, lease)
        except (LeaseLostError, LostChunksError, OutOfMemoryError):  # not where it may have been put all the same
            inbox.chunks.remove(blob.chunks())
            raise
        return blob

    def _needed_before(self, collection: str, encoder: str, people: int) -> IndexQuality | None:
        """The quality of the densest segment that is not much larger."""
        manifest = self._context.inbox.manifest()
        scopes = () if manifest is None else manifest.scopes
        needed = (
            segment.quality
            for scope in scopes
            for segment in scope.segments
            if (scope.collection, scope.encoder) == (collection, encoder) and segment.rows <= _MUCH_LARGER * people
        )
        return max(needed, key=lambda quality: quality.m, default=None)


_NO_PAIRS = PairCounts(kept=0, found=0, retracted=0)


@dataclass(frozen=True, slots=True)
class _ScopeResult:
    """What came of one encoder in one collection; empty where nobody ever had an embedding by it."""

    people: int = 0
    quality: IndexQuality | None = None
    pairs: PairCounts = _NO_PAIRS
    checked: int = 0
    blob: Blob | None = None


def _index_of(quality: IndexQuality) -> IndexParameters:
    return IndexParameters(m=quality.m, ef_construction=quality.ef_construction, ef=quality.ef)


def _recall_of(quality: IndexQuality, floor: float) -> MeasuredRecall:
    return MeasuredRecall(
        recall=quality.recall,
        low=quality.recall_low,
        high=quality.recall_high,
        people=quality.sample_probes,
        made_up=quality.sample_is_made_up,
        pairs=quality.sample_pairs,
        floor=floor,
    )
