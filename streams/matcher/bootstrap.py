"""The one place where a matcher's real parts are made: clients of Kafka and Redis, background threads."""

from runtime.process.cores import cores
from runtime.servers.erasures import ErasureLog
from runtime.servers.kafka import SESSION_TIMEOUT_S
from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher
from runtime.servers.redis import connect, connect_patiently
from runtime.telemetry.tracing import tracer_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS, matcher_of
from streams.checkpoint.progress import Progress
from streams.checkpoint.store import CheckpointStore
from streams.matcher.background import BackgroundThreads
from streams.matcher.context import MatcherContext
from streams.matcher.ownership import Ownership
from streams.matcher.vitals import write_vitals


def context_of(settings: Settings, shard: Shard) -> MatcherContext:
    """The parts of a matcher process. Its ownership is not ticking yet. Raises ErasureKeyError, MissingTopicsError."""
    group = matcher_of(shard).name
    redis, patient_redis = connect(settings), connect_patiently(settings)
    return MatcherContext(
        settings,
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
        background=BackgroundThreads(max(1, cores() - 1)),  # one core is left to matching
        show=lambda vitals: write_vitals(patient_redis, settings, shard, vitals),
        tracer=tracer_of(settings, group),
    )
