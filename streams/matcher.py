"""The matcher: Faust hands over `encodings`, a thread matches them, and only then are they acknowledged."""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, TypeVar

import faust
import mode
import structlog

from schemas.envelope import Record, full_name
from schemas.erasures import ErasureLog
from schemas.flow import Flow
from schemas.health import HEALTH, NO_PARTITIONS
from schemas.kafka import COMMIT_EVERY_S, SESSION_TIMEOUT_S, Publisher
from schemas.lag import Ends, Lag, Standing
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.stopping import stop_in_any_case
from schemas.topics import ENCODINGS, matcher_of
from schemas.tracing import tracer_of
from streams.credentials import credentials
from streams.log import PartitionLog
from streams.metering import show_galleries
from streams.ownership import LostError, Ownership
from streams.partition import PartitionMatcher, Surroundings
from streams.progress import Progress

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


class Matcher:
    """All partitions that this process is given. Everything but the stream itself runs in one thread."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        group = matcher_of(shard).name
        self._ownership = Ownership()
        self._around = Surroundings(
            settings,
            shard,
            PartitionLog(settings, ENCODINGS, group),
            # What is given up for the time is published again if the partition is still ours. A process that was
            # stopped finds what it had under way too old to be sent.
            Publisher(settings, group, give_up_after_s=SESSION_TIMEOUT_S / 2),
            Progress(settings, shard),
            self._ownership,
            ErasureLog(settings, group),
            tracer_of(settings, group),
        )
        self._partitions: dict[int, PartitionMatcher] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="matcher")
        self._flow = Flow(self._is_behind)
        self._ownership.start()
        Lag(group, self._standings, Ends(settings, group).of).show()
        show_galleries(settings, lambda: [one.vitals for one in list(self._partitions.values()) if one.vitals])
        HEALTH.not_ready(NO_PARTITIONS)

    async def give_up(self) -> None:
        """Say and store nothing more of any partition; return once that is so."""
        self._ownership.set([])
        HEALTH.not_ready(NO_PARTITIONS)
        await self._in_thread(lambda: None)

    async def take_over(self, partitions: set[int]) -> None:
        """Restore the partitions that this process now has, and forget those that went to others."""
        self._ownership.set(partitions)
        await self._in_thread(lambda: self._take_over(partitions))
        if partitions:
            HEALTH.ready()

    async def process(self, records: list[Record]) -> set[int]:
        """Match records of any partitions; return when what follows from them is durable.

        Returns the partitions that went to another process meanwhile: their records must not be acknowledged here.
        """
        return await self._in_thread(lambda: self._process(records))

    async def look_after(self) -> None:
        """Raise StalledError if the stream hands nothing over although the log has more; tend the partitions."""
        await self._in_thread(self._look_after)

    def _look_after(self) -> None:
        HEALTH.beat()
        self._flow.check()
        self._around.erasures.check()
        for matcher in self._partitions.values():
            matcher.tend()

    def _take_over(self, partitions: set[int]) -> None:
        for partition, matcher in list(self._partitions.items()):
            # One that comes back may have been another's meanwhile, who matched more of it.
            if partition not in partitions or (self._around.progress.matched(partition) or 0) > matcher.position:
                del self._partitions[partition]
        for partition in sorted(partitions):
            HEALTH.not_ready(f"partition {partition} is being restored")
            HEALTH.beat()  # from this thread: that it waits for a server is believed of the loop's alone
            self._matcher_of(partition)
        # What was restored stays: collections that go through all of it would take a tenth of the time. What was given
        # up goes before: frozen, a gallery that something still refers to in a circle would never be freed.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _process(self, records: list[Record]) -> set[int]:
        lost = set()
        records.sort(key=lambda record: record.partition or 0)  # stable: offsets stay in order
        for partition, group in groupby(records, key=lambda record: record.partition):
            assert partition is not None
            try:
                self._ownership.check(partition)
                self._process_in(partition, list(group))
            except LostError:
                log.info("gone to another process", partition=partition)
                lost.add(partition)
        self._flow.moved()
        return lost

    def _process_in(self, partition: int, records: list[Record]) -> None:
        matcher = self._matcher_of(partition)
        try:
            matcher.process(records)
        except LostError:
            del self._partitions[partition]  # it has applied what it has not said the consequences of
            raise

    def _matcher_of(self, partition: int) -> PartitionMatcher:
        matcher = self._partitions.get(partition)
        if matcher is None:
            self._around.erasures.follow()
            matcher = PartitionMatcher(partition, self._around)
            matcher.restore()
            self._partitions[partition] = matcher
            self._flow.moved()
        return matcher

    def _is_behind(self) -> bool:
        return any(
            matcher.position < self._around.log.end(partition) for partition, matcher in self._partitions.items()
        )

    def _standings(self) -> list[Standing]:
        return [
            Standing((ENCODINGS.name, partition), matcher.position, matcher.matched_at)
            for partition, matcher in list(self._partitions.items())
        ]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def build_app(settings: Settings, shard: Shard) -> "faust.App":
    """The Faust application: one topic in, one agent, one batch at a time."""
    settings.data_folder.mkdir(parents=True, exist_ok=True)  # Faust makes a folder there, and leaves it empty
    app = faust.App(
        full_name(matcher_of(shard).name, settings.namespace),
        broker=";".join(f"kafka://{address.strip()}" for address in settings.kafka.split(",")),
        broker_credentials=credentials(settings),
        store="memory://",
        datadir=settings.data_folder / "faust",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=COMMIT_EVERY_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        agent_supervisor=mode.CrashingSupervisor,
        worker_redirect_stdouts=False,
    )
    topic = app.topic(
        full_name(ENCODINGS.name, settings.namespace),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )
    matcher = Matcher(settings, shard)

    async def on_partitions_revoked(*_: Any, **__: Any) -> None:
        await matcher.give_up()

    async def on_rebalance_complete(*_: Any, **__: Any) -> None:
        await matcher.take_over({place.partition for place in app.consumer.assignment()})

    app.on_partitions_revoked.connect(on_partitions_revoked, weak=False)
    app.on_rebalance_complete.connect(on_rebalance_complete, weak=False)

    # What arrives while a batch is matched is the next one: alone if it comes alone, many where there is much to do.
    arrived: asyncio.Queue[Any] = asyncio.Queue(settings.match_batch)

    @app.agent(topic, concurrency=1, name="match")
    async def match(stream: Any) -> None:
        async for event in stream.noack().events():
            await arrived.put(event)

    @app.task  # type: ignore[untyped-decorator] # Faust's
    async def work() -> None:
        while True:
            events = [await arrived.get()]
            while len(events) < settings.match_batch and not arrived.empty():
                events.append(arrived.get_nowait())
            lost = await matcher.process([_record(event.message) for event in events])
            for event in events:
                if event.message.partition not in lost:
                    event.ack()

    @app.timer(interval=2.0, name="look after")  # type: ignore[untyped-decorator] # Faust's
    async def look_after(*_: Any) -> None:
        try:
            await matcher.look_after()
        except Exception as error:
            await app.crash(error)
            raise

    return app


class _Worker(faust.Worker):
    def _schedule_shutdown(self, number: Any) -> None:
        stop_in_any_case()
        super()._schedule_shutdown(number)

    def _crash(self, reason: BaseException) -> None:
        stop_in_any_case()  # one of its threads may end while the others wait for it: then it would never end
        super()._crash(reason)


def run(settings: Settings, shard: Shard = Shard()) -> None:
    """Match until SIGTERM or SIGINT, then raise SystemExit. What is not acknowledged by then comes again."""
    app = build_app(settings, shard)
    worker = _Worker(app, override_logging=False, redirect_stdouts=False, quiet=True, loglevel=None)
    worker.spinner = None
    worker.execute_from_commandline()


def _record(message: Any) -> Record:
    return Record(
        topic=ENCODINGS.name,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
        partition=message.partition,
        offset=message.offset,
        timestamp=int(message.timestamp * 1000),
    )
