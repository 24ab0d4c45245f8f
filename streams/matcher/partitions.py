"""The partitions of a matcher process, and the batches that Faust hands over."""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TypeVar

import structlog

from runtime.servers.flow import Flow
from runtime.servers.lag import Standing
from runtime.telemetry.health import HEALTH, NO_PARTITIONS
from schemas.envelope import StoredRecord
from schemas.topics import ENCODINGS
from streams.matcher.context import MatcherContext
from streams.matcher.ownership import PartitionLostError
from streams.matcher.partition import PartitionMatcher
from streams.matcher.vitals import PartitionVitals

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


class Matcher:
    """All partitions of this process. Everything but the stream itself runs in one thread."""

    def __init__(self, context: MatcherContext) -> None:
        self._context = context
        self._partitions: dict[int, PartitionMatcher] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="matcher")
        self._flow = Flow(self._is_behind, context.clock)
        HEALTH.not_ready(NO_PARTITIONS)

    def vitals(self) -> list[PartitionVitals]:
        """The vitals last shown of each partition. For any thread."""
        return [one.vitals for one in list(self._partitions.values()) if one.vitals]

    def standings(self) -> list[Standing]:
        """Up to where each partition is matched. For any thread."""
        return [
            Standing((ENCODINGS.name, partition), matcher.position, matcher.matched_at)
            for partition, matcher in list(self._partitions.items())
        ]

    async def give_up(self) -> None:
        """Publish and store nothing more of any partition. Returns once that is so."""
        self._context.ownership.set([])
        HEALTH.not_ready(NO_PARTITIONS)
        await self._in_thread(self._context.attempts.close)

    def close(self) -> None:
        """The process ends: in good order, or by what is no record's fault, unless attempts have noted otherwise."""
        self._context.attempts.close()
        self._context.restoring.close()

    async def take_over(self, partitions: set[int]) -> None:
        """Restore the partitions that this process has now, and drop those that belong to others."""
        self._context.ownership.set(partitions)
        await self._in_thread(lambda: self._take_over(partitions))
        if partitions:
            HEALTH.ready()

    async def process(self, records: list[StoredRecord]) -> set[int]:
        """Match records of any partitions. Returns once the findings are durable.

        Returns the partitions that another process took over meanwhile: their records must not be acknowledged here.
        """
        return await self._in_thread(lambda: self._process(records))

    async def look_after(self) -> None:
        """Tend the partitions. Raises StalledError if the stream hands nothing over although the log has more."""
        await self._in_thread(self._look_after)

    def _look_after(self) -> None:
        HEALTH.beat()
        self._flow.check()
        self._context.erasures.check()
        for matcher in self._partitions.values():
            matcher.tend()

    def _take_over(self, partitions: set[int]) -> None:
        for partition, matcher in list(self._partitions.items()):
            # Another process may have had it meanwhile, and matched more of it.
            if partition not in partitions or (self._context.progress.matched(partition) or 0) > matcher.position:
                del self._partitions[partition]
        kept = {(ENCODINGS.name, partition): matcher.position for partition, matcher in self._partitions.items()}
        self._context.attempts.assigned(kept)
        for partition in sorted(partitions):
            HEALTH.not_ready(f"partition {partition} is being restored")
            HEALTH.beat()  # from this thread: waiting for a server counts as alive in the beating thread alone
            try:
                self._matcher_of(partition)
            except PartitionLostError:
                log.info("gone to another process", partition=partition)
        # The garbage collector skips frozen objects: going through all galleries took a tenth of the time. It collects
        # before that: a dropped gallery in a cycle of references would never be freed once frozen.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _process(self, records: list[StoredRecord]) -> set[int]:
        lost = set()
        records.sort(key=lambda record: record.partition)  # stable: offsets stay in order
        for partition, group in groupby(records, key=lambda record: record.partition):
            try:
                self._context.ownership.check(partition)
                self._process_in(partition, list(group))
            except PartitionLostError:
                log.info("gone to another process", partition=partition)
                lost.add(partition)
        self._flow.moved()
        return lost

    def _process_in(self, partition: int, records: list[StoredRecord]) -> None:
        matcher = self._matcher_of(partition)
        try:
            matcher.process(records)
        except PartitionLostError:
            del self._partitions[partition]  # see PartitionMatcher: it is of no use any more
            self._context.attempts.forget([(ENCODINGS.name, partition)])
            raise

    def _matcher_of(self, partition: int) -> PartitionMatcher:
        matcher = self._partitions.get(partition)
        if matcher is None:
            self._context.erasures.follow()
            matcher = PartitionMatcher(partition, self._context)
            matcher.restore()
            self._partitions[partition] = matcher
            self._flow.moved()
        return matcher

    def _is_behind(self) -> bool:
        return any(
            matcher.position < self._context.log.span(partition).end for partition, matcher in self._partitions.items()
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
