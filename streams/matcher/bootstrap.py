"""The one place where a matcher's real parts are made: clients of Kafka and Redis, background threads."""

import sys
import time

from redis import Redis

from runtime.process.cores import cores
from runtime.servers.attempts import Reader, attempts_of
from runtime.servers.erasures import ErasureLog
from runtime.servers.kafka import SESSION_TIMEOUT_S
from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher
from runtime.servers.redis import connect, connect_patiently
from runtime.telemetry.tracing import tracer_of
from schemas.envelope import Source
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from schemas.topics import ENCODINGS, MATCHER, matcher_of
from streams.checkpoint.progress import Progress
from streams.checkpoint.retired import remove_retired
from streams.checkpoint.store import CheckpointStore
from streams.matcher.background import BackgroundThreads
from streams.matcher.context import MatcherContext
from streams.matcher.ownership import Ownership, PartitionLostError, ProcessWasFrozenError
from streams.matcher.vitals import PartitionVitals, write_vitals

_RETIRES_EVERY_S = 300.0


class _Reports:
    """Writes vitals, and now and then removes what matchers of an earlier number of shards left behind."""

    def __init__(self, redis: Redis, settings: Settings, shard: Shard) -> None:
        self._redis, self._settings, self._shard = redis, settings, shard
        self._retire_not_before: dict[int, float] = {}  # by partition: each is looked at once it has reported

    def show(self, vitals: PartitionVitals) -> None:
        """Replace the vitals of a partition in Redis."""
        write_vitals(self._redis, self._settings, self._shard, vitals)
        if time.monotonic() >= self._retire_not_before.get(vitals.partition, 0.0):
            remove_retired(self._redis, self._settings, vitals=True)
            self._retire_not_before[vitals.partition] = time.monotonic() + _RETIRES_EVERY_S


def context_of(settings: Settings, shard: Shard) -> MatcherContext:
    """The parts of a matcher process. Its ownership is not ticking yet.

    Raises ErasureKeyError, MissingTopicsError, NoSuchEncoderError.
    """
    group = matcher_of(shard).name
    redis, patient_redis = connect(settings), connect_patiently(settings)
    innocent = (PartitionLostError, ProcessWasFrozenError)
    reader = Reader(group, MATCHER.name, Source.MATCHER, innocent=innocent)
    restorer = Reader(f"{group}-restoring", MATCHER.name, Source.MATCHER, closely=sys.maxsize, innocent=innocent)
    return MatcherContext(
        settings,
        Thresholds(settings),
        shard,
        log=TopicLog(settings, ENCODINGS, group, group),
        lookup=TopicLog(settings, ENCODINGS, group, group),
        # A record that is not acknowledged in time is published again if the partition is still ours. A process that
        # was stopped finds its unsent records too old to be sent.
        publisher=Publisher(settings, group, give_up_after_s=SESSION_TIMEOUT_S / 2),
        progress=Progress(settings, shard, patient_redis),
        ownership=Ownership(),
        erasures=ErasureLog(settings, group),
        checkpoints_of=lambda partition: CheckpointStore(settings, redis, shard, partition),
        background=BackgroundThreads(cores()),
        attempts=attempts_of(settings, reader),
        restoring=attempts_of(settings, restorer),
        show=_Reports(patient_redis, settings, shard).show,
        tracer=tracer_of(settings, group),
    )
