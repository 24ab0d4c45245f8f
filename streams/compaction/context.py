"""The parts that a compaction is put together of."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from runtime.servers.attempts import Attempts
from runtime.servers.erasures import ErasureLog
from runtime.servers.log import TopicLog
from runtime.servers.publisher import Publisher
from runtime.telemetry.tracing import Tracer
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.thresholds import Thresholds
from streams.checkpoint.handover import Inbox
from streams.checkpoint.lease import Lease
from streams.checkpoint.progress import Progress


@dataclass(frozen=True, slots=True)
class CompactionContext:
    """The servers of one shard's partition, as a compaction uses them.

    `log` reads `encodings`, `duplicates` the topic of that name. `progress` knows up to where the matcher has matched.
    `lease` takes the partition's lease and raises HeldError where another compaction has it. A compaction uses
    `threads` processor threads. `attempts` knows what must not be died of again in `encodings`, `finding_attempts` in
    `duplicates`.
    """

    settings: Settings
    thresholds: Thresholds
    shard: Shard
    partition: int
    threads: int
    log: TopicLog
    duplicates: TopicLog
    erasures: ErasureLog
    progress: Progress
    publisher: Publisher
    inbox: Inbox
    lease: Callable[[], AbstractContextManager[Lease]]
    attempts: Attempts
    finding_attempts: Attempts
    tracer: Tracer | None = None
