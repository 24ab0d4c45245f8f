"""The partitions that a matcher process holds, and the batches that Faust hands over."""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

import structlog

from runtime.servers.erasures import ErasureLog
from runtime.servers.flow import Flow
from runtime.servers.kafka import SESSION_TIMEOUT_S
from runtime.servers.lag import Ends, Lag, Standing
from runtime.servers.partition_log import PartitionLog
from runtime.servers.publisher import Publisher
from runtime.telemetry.health import HEALTH, NO_PARTITIONS
from runtime.telemetry.tracing import tracer_of
from schemas.envelope import Record
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS, matcher_of
from streams.checkpoint.progress import Progress
from streams.matcher.metering import show_galleries
from streams.matcher.ownership import Ownership, PartitionLostError
from streams.matcher.partition import MatcherContext, PartitionMatcher

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


class Matcher:
    """All partitions that this process is given. Everything but the stream itself runs in one thread."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        group = matcher_of(shard).name
        self._ownership = Ownership()
        self._around = MatcherContext(
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
            except PartitionLostError:
                log.info("gone to another process", partition=partition)
                lost.add(partition)
        self._flow.moved()
        return lost

    def _process_in(self, partition: int, records: list[Record]) -> None:
        matcher = self._matcher_of(partition)
        try:
            matcher.process(records)
        except PartitionLostError:
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
