"""The one place where a compaction's real parts are made: clients of Kafka and Redis."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from runtime.servers.attempts import Reader, attempts_of
from runtime.servers.erasures import ErasureLog
from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher
from runtime.servers.redis import connect, key
from runtime.telemetry.tracing import tracer_of
from schemas.attempts import COMPACTION
from schemas.envelope import Source
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from schemas.topics import DUPLICATES, ENCODINGS, MATCHER, matcher_of
from streams.checkpoint.handover import Inbox
from streams.checkpoint.lease import SURE_FOR_S, lease_of
from streams.checkpoint.progress import Progress
from streams.compaction.compactor import Compactor
from streams.compaction.context import CompactionContext
from streams.gallery.build import OnProgress

_CLIENT = "compactor"


@contextmanager
def open_compactor(
    settings: Settings, shard: Shard, partition: int, threads: int, progress: OnProgress
) -> Iterator[Compactor]:
    """The compactor of a shard's partition, connected to Kafka and Redis. Raises ErasureKeyError without a key."""
    group = f"{_CLIENT}{matcher_of(shard).name.removeprefix(MATCHER.name)}"
    attempts = attempts_of(settings, Reader(group, MATCHER.name, Source.COMPACTION, closely=sys.maxsize))
    finding_attempts = attempts_of(settings, Reader(group, COMPACTION, Source.COMPACTION, closely=sys.maxsize))
    with (
        TopicLog(settings, ENCODINGS, _CLIENT, matcher_of(shard).name) as log,
        TopicLog(settings, DUPLICATES, _CLIENT) as duplicates,
        ErasureLog(settings, _CLIENT) as erasures,
        closing(Progress(settings, shard)) as matched,
        closing(connect(settings)) as redis,
    ):
        context = CompactionContext(
            settings,
            Thresholds(settings),
            shard,
            partition,
            threads,
            log,
            duplicates,
            erasures,
            matched,
            # Gives up a record that is still under way when the lease may be another's, and publishes it again only
            # while the lease is certain.
            publisher=Publisher(settings, _CLIENT, give_up_after_s=SURE_FOR_S),
            inbox=Inbox(settings, redis, shard, partition),
            lease=lambda: lease_of(redis, key(settings, "lease", shard, partition)),
            attempts=attempts,
            finding_attempts=finding_attempts,
            tracer=tracer_of(settings, _CLIENT),
        )
        try:
            yield Compactor(context, progress)
        finally:
            attempts.close()
            finding_attempts.close()
