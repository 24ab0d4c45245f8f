"""The processes of a run: two matchers, of which one has the partition, a sink, and compactions."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar, cast

from consumers.sink.batch import BatchWriter
from runtime.servers.publisher import Publisher
from runtime.servers.redis import key
from schemas.envelope import StoredRecord
from schemas.shard import Shard
from schemas.topics import DUPLICATES, ENCODINGS
from streams.checkpoint.chunks import Chunks
from streams.checkpoint.files import pack_segment
from streams.checkpoint.handover import Inbox
from streams.checkpoint.lease import Lease
from streams.checkpoint.manifest import CompactedSegment, SegmentEntry
from streams.checkpoint.progress import Progress
from streams.checkpoint.store import CheckpointStore
from streams.gallery.build import build_segment
from streams.gallery.gallery import Gallery
from streams.matcher.context import MatcherContext
from streams.matcher.ownership import Ownership, PartitionLostError
from streams.matcher.partition import PartitionMatcher
from streams.matching.match import restore
from tests.memory_journal import MemoryJournal
from tests.simulation.actors import Actor
from tests.simulation.events import THRESHOLD, SteppingThresholds
from tests.simulation.parts import TIMEOUT_S, InlineThreads, MemoryLog, MemoryProducer, Registry, done

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")


def publisher_of(world: "World") -> Publisher:
    """The real one, on a producer in memory."""
    producer: Any = MemoryProducer(world.schedule, world.topics, world.clock, world.rates)
    return Publisher(world.settings, "simulation", TIMEOUT_S, producer=producer)


class Process:
    """What dies at once. Its first actor repeats `step`, and is idle between two of them."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.is_idle = True
        self.is_frozen = False
        self.actors: list[Actor] = []

    def start(self) -> None:
        """Begin to take turns with others."""
        self.actors.append(Actor(self.name, self._run))

    def step(self) -> None:
        """One batch."""
        raise NotImplementedError

    def _run(self) -> None:
        while True:
            self.is_idle = True
            self.actors[0].pause()
            self.is_idle = False
            self.step()


class MatcherProcess(Process):
    """A matcher that has the partition or has not, as `Matcher` and Faust would run it."""

    threads = search_threads = 1

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        schedule, settings, redis = world.schedule, world.settings, cast(Any, world.redis)
        log = MemoryLog(schedule, world.encodings, lambda: world.committed)
        self.ownership = Ownership(world.clock)
        self.matcher: PartitionMatcher | None = None
        self.is_restoring = False
        self.next = 0
        self._is_given = self._is_new = False
        self._context = MatcherContext(
            settings,
            SteppingThresholds(settings),
            Shard(),
            log=log,
            lookup=log,
            publisher=publisher_of(world),
            progress=Progress(settings, redis=redis),
            ownership=self.ownership,
            erasures=Registry(world.registry),
            checkpoints_of=lambda partition: CheckpointStore(settings, redis, Shard(), partition, InlineThreads()),
            background=self,
            attempts=MemoryJournal().attempts(),
            restoring=MemoryJournal().attempts(),
            show=lambda _: None,
            clock=world.clock,
            now=world.now,
        )

    def assign(self) -> None:
        """Kafka gives it the partition: the stream goes on where the group has committed."""
        self.ownership.set([0])
        self.next, self._is_given, self._is_new = self.world.committed or 0, True, True

    def revoke(self) -> None:
        """Kafka takes the partition away, and waits until the process is idle."""
        self.ownership.set([])
        self._is_given = False

    def step(self) -> None:
        if not self._is_given:
            return
        if self._is_new:
            self._is_new = False
            # See `Matcher.take_over`: another may have matched more of it meanwhile.
            if self.matcher and (self._context.progress.matched(0) or 0) > self.matcher.position:
                self.matcher = None
        try:
            self._process(self.matcher or self.restored())
        except PartitionLostError:
            self.matcher = None

    def restored(self) -> PartitionMatcher:
        """A new one, from the checkpoint and the log."""
        matcher = PartitionMatcher(0, self._context)
        self.is_restoring = True
        matcher.restore()
        self.is_restoring = False
        self.matcher = matcher
        return matcher

    def begin(self, work: Callable[[], T]) -> "Future[T]":
        """See `BackgroundWork`: an actor of its own, that may be slow."""
        if self.world.schedule.is_calm:
            return done(work)
        future: Future[T] = Future()

        def run() -> None:
            outcome = done(work)
            if (error := outcome.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome.result())

        self.actors.append(Actor(f"{self.name}'s background", run))
        return future

    def _process(self, matcher: PartitionMatcher) -> None:
        records = self._take()
        if not records:
            matcher.tend()
            return
        self.ownership.check(0)
        matcher.process(records)
        end = records[-1].offset + 1
        is_lazy = self.world.schedule.chance(0.5)  # Faust commits now and then
        if self.world.owner is self and not is_lazy:
            self.world.committed = max(end, self.world.committed or 0)

    def _take(self) -> list[StoredRecord]:
        """What the stream hands over; it may skip records, and may repeat some."""
        schedule, log = self.world.schedule, self.world.encodings
        if schedule.chance(self.world.rates["skipped"]):
            self.next = min(log.end, self.next + schedule.random.randint(1, 5))
            schedule.note(f"the stream skips to {self.next}")
        if schedule.chance(self.world.rates["repeated"]):
            self.next = max(0, self.next - schedule.random.randint(1, 5))
            schedule.note(f"the stream goes back to {self.next}")
        records = log.between(self.next, log.end)[: 100 if schedule.is_calm else schedule.random.randint(1, 8)]
        if records:
            self.next = records[-1].offset + 1
            schedule.note(f"gets {[record.offset for record in records]}")
        return records


class SinkProcess(Process):
    """The sink's step: records from two topics, written, and only then committed."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        self._writer = BatchWriter(world.tables, publisher_of(world).publish_all)

    def step(self) -> None:
        random = self.world.schedule.random
        ends, records = {}, []
        for name in random.sample((ENCODINGS.name, DUPLICATES.name), 2):
            topic, begin = self.world.topics[name], self.world.written[name]
            some = topic.between(begin, topic.end)[: 100 if self.world.schedule.is_calm else random.randint(0, 8)]
            if some:
                ends[name] = some[-1].offset + 1
                records += some
        self.world.schedule.call(f"writes up to {ends}")
        self._writer.write(records)
        self.world.schedule.call("commits")
        self.world.written.update(ends)


class CompactionProcess(Process):
    """Compaction, as far as the matcher meets it: one segment of all, left where the matcher finds it. Once."""

    def _run(self) -> None:
        self.step()

    def step(self) -> None:
        world, redis, shard = self.world, cast(Any, self.world.redis), Shard()
        end, gallery = world.encodings.end, Gallery()
        restore(gallery, world.encodings.between(0, end), world.registry)
        for collection, encoder, scope in gallery.scopes():
            rows = scope.delta.living_rows()
            if not len(rows.ids):
                continue
            segment = build_segment(rows, THRESHOLD, world.settings.recall_floor, 1)
            inbox = Inbox(world.settings, redis, shard, 0)
            chunks = Chunks(redis, key(world.settings, "chunk", shard, 0), "compaction-", InlineThreads())
            entry = SegmentEntry(blob=chunks.put(pack_segment(segment)), rows=len(segment), quality=segment.quality)
            lease = _Lease()
            redis.set(lease.key, lease.token)
            compacted = CompactedSegment(
                collection=collection, encoder=encoder, offset=end, made_at=world.now(), segment=entry
            )
            inbox.put(compacted, cast(Lease, lease))


class _Lease:
    """Of who has it."""

    key, token = "lease", "of the compaction"
