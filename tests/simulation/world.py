"""One run of the matcher and the sink under faults, all of them from one seed, and the judgement at its end.

The code under test is the project's own: PartitionMatcher, Sealer, CheckpointStore, Progress, Ownership, BatchWriter
and what they stand on. Kafka, Redis, Postgres, threads and clocks are parts in memory. At every call into one of them
the seed decides whether others go on first: another matcher to which the partition went, the background, the sink, a
compaction; a process that crashes there, is frozen, loses the partition; a Redis that loses what it had; Kafka's own
compaction. At the end all are started again, without faults, and process what is left. Then the tables, the topics and
the matcher's gallery must have what the oracle has.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from runtime.servers.publisher import PublishError
from schemas.envelope import Message, Record, decode
from schemas.erased import Erased, ErasureKey
from schemas.events.encodings import EncodingErased
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, DUPLICATES, ENCODINGS
from streams.checkpoint.handover import LostChunksError
from streams.checkpoint.lease import LeaseLostError
from streams.matcher.ownership import ProcessWasFrozenError
from tests.conftest import Clock
from tests.encodings import thresholds_of_tests
from tests.simulation import events
from tests.simulation.actors import Actor, Schedule
from tests.simulation.judge import Invariants, problems_of
from tests.simulation.parts import MemoryTopic
from tests.simulation.processes import CompactionProcess, MatcherProcess, Process, SinkProcess
from tests.simulation.redis import MemoryRedis
from tests.simulation.tables import MemoryTables

_SETTINGS = Settings(
    _env_file=None,
    namespace="s",
    thresholds=thresholds_of_tests(events.THRESHOLD),
    erasure_key=SecretStr("of the simulation" * 2),
)
_FAULTS = ("refused", "late", "skipped", "repeated")  # of a record or a batch
_ENDS_OF_A_PROCESS = (PublishError, ProcessWasFrozenError, LostChunksError, LeaseLostError)


class World:
    """Everything that lasts longer than a process, the processes, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.schedule = Schedule(seed)
        random = self.schedule.random
        self.settings = _SETTINGS.model_copy(update={"delta_limit": random.choice((2, 5, 12))})
        self.clock = Clock()
        self.topics = {topic.name: MemoryTopic() for topic in (ENCODINGS, DUPLICATES, DEAD_LETTERS)}
        self.encodings = self.topics[ENCODINGS.name]
        self.redis = MemoryRedis(self.schedule.call)
        key = ErasureKey(self.settings.erasure_key)
        self.key, self.registry = key, Erased(key)
        self.tables = MemoryTables(key, self.registry)
        self.committed: int | None = None  # by the matchers' group, of `encodings`
        self.written = {ENCODINGS.name: 0, DUPLICATES.name: 0}  # by the sink's group
        self.owner: MatcherProcess | None = None
        # Each run has faults of its own: some kinds often, some never.
        self.happens: dict[Callable[[], None], float] = {
            fault: random.choice((0.0, 0.01, 0.04))
            for fault in (
                self._crash_matcher,
                self._crash_sink,
                self._move,
                self._freeze,
                self._lose_redis,
                self._expire,
                self._compact_topics,
                self._start_compaction,
            )
        }
        self.happens[self._freeze_while_it_restores] = random.choice((0.0, 0.1, 0.5))
        self.rates = {name: random.choice((0.0, 0.0, 0.03, 0.1)) for name in _FAULTS}
        self.rates["refused"] /= 10
        self._to_come = events.records(random, random.randint(5, 30))
        self._with_registry = random.random() < 0.5
        self._started = self._batches = 0
        self._processes: list[Process] = []
        self._snapshot = self.redis.snapshot()
        self._guard = Invariants(self)

    def now(self) -> datetime:
        """The time of day: that of two batches is never the same."""
        self._batches += 1
        return datetime(2026, 2, 1, tzinfo=UTC) + timedelta(seconds=self.clock.now, milliseconds=self._batches)

    def run(self) -> None:
        """Until all has been published, and a while longer; then in peace. Raises AssertionError."""
        rounds = 40
        try:
            while self._to_come or rounds:
                rounds -= not self._to_come
                self._round()
                self._guard.check()
        finally:
            for process in list(self._processes):
                self._kill(process)
        self._settle()

    # what happens

    def _round(self) -> None:
        random = self.schedule.random
        self._pass_time(random.random())
        if random.random() < 0.3:
            self._publish(self._to_come[: random.randint(1, 4)])
        if random.random() < 0.1:
            self._snapshot = self.redis.snapshot()
        for fault, rate in self.happens.items():
            if random.random() < rate:
                fault()
        self._start_what_is_missing()
        for _ in range(random.randint(1, 4)):
            running = [one for one in self._processes if not one.is_frozen]
            if actors := [(process, actor) for process in running for actor in process.actors]:
                self._resume(*random.choice(actors))

    def _resume(self, process: Process, actor: Actor) -> None:
        try:
            self.schedule.resume(actor)
        except _ENDS_OF_A_PROCESS as error:
            self.schedule.note(f"{process.name} ends: {type(error).__name__}")
            self._kill(process)
        if actor.is_done and process in self._processes:
            process.actors.remove(actor)
            if not process.actors:
                self._processes.remove(process)

    def _publish(self, records: list[Record]) -> None:
        del self._to_come[: len(records)]
        for record in records:
            self.schedule.note(f"{self.encodings.end}: {(record.key or b'').decode()} {record.headers[2][1]!r}")
            self.encodings.append(record)
            event = decode(record).event
            if self._with_registry and isinstance(event, EncodingErased):
                erasure = self.key.erasure_of(event.collection, event.individual_id, event.revision)
                self.registry.add(Message(erasure, "", decode(record).time, ""))

    def _start_what_is_missing(self) -> None:
        random = self.schedule.random
        for kind, wanted in ((MatcherProcess, 2), (SinkProcess, 1)):
            if sum(isinstance(one, kind) for one in self._processes) < wanted and random.random() < 0.3:
                self._start(kind)
        for process in self._processes:
            if process.is_frozen and random.random() < 0.1:
                self.schedule.note(f"{process.name} goes on")
                process.is_frozen = False
        if self.owner is None:
            # Kafka waits for those that it knows to be alive: they have stopped work on what they had.
            ready = [one for one in self._matchers() if not one.is_frozen]
            if ready and all(one.is_idle for one in ready):
                self.owner = random.choice(ready)
                self.schedule.note(f"{self.owner.name} gets the partition at {self.committed}")
                self.owner.assign()

    def _start(self, kind: type[Process]) -> None:
        self._started += 1
        process = kind(self, f"{kind.__name__.removesuffix('Process').lower()} {self._started}")
        self.schedule.note(f"{process.name} starts")
        self._processes.append(process)
        process.start()

    def _kill(self, process: Process) -> None:
        for actor in process.actors:
            self.schedule.crash(actor)
        self._processes.remove(process)
        if self.owner is process:
            self.owner = None

    def _pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        for matcher in self._matchers():
            if not matcher.is_frozen:
                matcher.ownership.tick()

    def _matchers(self) -> list[MatcherProcess]:
        return [process for process in self._processes if isinstance(process, MatcherProcess)]

    # what befalls it

    def _crash_matcher(self) -> None:
        if matchers := self._matchers():
            matcher = self.schedule.random.choice(matchers)
            self.schedule.note(f"{matcher.name} crashes")
            self._kill(matcher)

    def _crash_sink(self) -> None:
        for process in [one for one in self._processes if not isinstance(one, MatcherProcess)]:
            self.schedule.note(f"{process.name} crashes")
            self._kill(process)

    def _move(self) -> None:
        if self.owner is not None and not self.owner.is_frozen:
            self.schedule.note(f"{self.owner.name} loses the partition")
            self.owner.revoke()
            self.owner = None

    def _freeze(self) -> None:
        if self.owner is not None and not self.owner.is_frozen:
            self.schedule.note(f"{self.owner.name} freezes")
            self.owner.is_frozen = True
            self.owner = None
            for _ in range(4):
                self._pass_time(3)

    def _freeze_while_it_restores(self) -> None:
        """And more comes meanwhile, for another to match."""
        if self.owner is not None and self.owner.is_restoring:
            self._freeze()
            self._publish(self._to_come[: self.schedule.random.randint(1, 4)])

    def _lose_redis(self) -> None:
        is_empty = self.schedule.random.random() < 0.3
        self.schedule.note("Redis loses all" if is_empty else "Redis comes back from an earlier state")
        self.redis.restore({} if is_empty else self._snapshot)
        self._guard.redis_was_lost()

    def _expire(self) -> None:
        self.schedule.note("an hour passes for Redis")
        self.redis.expire()

    def _compact_topics(self) -> None:
        """What is a day old, whether the sink has read it or not."""
        for name, end in zip((ENCODINGS.name, DUPLICATES.name), self._guard.a_day_ago, strict=True):
            self.topics[name].compact(self.schedule.random.randint(0, end))
        self.schedule.note("Kafka compacts")

    def _start_compaction(self) -> None:
        if not any(isinstance(one, CompactionProcess) for one in self._processes):
            self._start(CompactionProcess)

    # in peace

    def _settle(self) -> None:
        self.schedule.note("all are started again, without faults")
        process, sink = MatcherProcess(self, "the last matcher"), SinkProcess(self, "the last sink")
        process.assign()
        matcher = process.restored()
        while matcher.position < self.encodings.end:
            before = process.next
            process.step()
            assert process.next > before, f"nothing comes any more, at {matcher.position} of {self.encodings.end}"
        for _ in range(50):  # batches of 100: what it publishes, it reads
            if all(self.written[name] == self.topics[name].end for name in self.written):
                break
            sink.step()
        else:
            raise AssertionError("the sink publishes again and again what it reads")
        for _ in range(16):  # until its checkpoint is written
            self.clock.now += 4
            process.step()
        again = MatcherProcess(self, "the one after it").restored()
        problems = list(problems_of(self, [matcher.gallery, again.gallery]))
        assert not problems, "\n".join(problems)
