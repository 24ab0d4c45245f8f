"""The encoder pools: `individuals` → CPU pool (HOG), `escalations` → GPU pool (CNN); both → `encodings`."""

import logging
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC
from enum import StrEnum
from types import FrameType

from arroyo.backends.kafka import KafkaPayload
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Partition, Topic

from consumers.checked_consumer import CheckedConsumer
from consumers.encoding import Encoding
from consumers.faces import DlibFaceEncoder, has_gpu
from consumers.photo_store import PhotoStore
from consumers.pool_step import AnswerInPool, process_pool
from schemas.envelope import Record, full_name
from schemas.events import Detector
from schemas.kafka import Publisher, consumer_config
from schemas.settings import Settings
from schemas.topics import CPU_POOL, GPU_POOL

log = logging.getLogger(__name__)


class Pool(StrEnum):
    """Which pool a worker belongs to."""

    CPU = "cpu"
    GPU = "gpu"


GROUP_OF = {Pool.CPU: CPU_POOL, Pool.GPU: GPU_POOL}
DETECTOR_OF = {Pool.CPU: Detector.HOG, Pool.GPU: Detector.CNN}

_encoding: Encoding | None = None  # of this process of the pool


def _load(settings: Settings, pool: Pool) -> None:
    global _encoding  # noqa: PLW0603 - models are loaded once per process of the pool
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _encoding = Encoding(settings, DlibFaceEncoder(DETECTOR_OF[pool]), PhotoStore(settings).read)


def _handle(record: Record) -> Record:
    assert _encoding is not None
    return _encoding.handle(record)


def run(settings: Settings, pool: Pool) -> None:
    """Encode until SIGTERM or SIGINT. Returns when what was under way is committed."""
    processes = settings.encoder_processes or _default_processes(pool)
    where = "GPU" if pool is Pool.GPU and has_gpu() else "CPU"
    log.info("%s pool: detector %s on the %s, %d processes", pool, DETECTOR_OF[pool], where, processes)
    group = GROUP_OF[pool]
    (source,) = group.reads
    executor = process_pool(processes, _load, settings, pool)
    publisher = Publisher(settings, group.name)
    consumer = CheckedConsumer(
        consumer_config(settings, group.name) | {"arroyo.enable.auto.commit": True, "arroyo.strict.offset.reset": False}
    )
    processor = StreamProcessor(
        consumer,
        Topic(full_name(source.name, settings.namespace)),
        _Steps(executor, publisher, source.name, limit=4 * processes),
        ONCE_PER_SECOND,
        join_timeout=10.0,
    )

    def stop(_number: int, _frame: FrameType | None) -> None:
        processor.signal_shutdown()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    processor.run()


def _default_processes(pool: Pool) -> int:
    """One for each core; the CNN needs a gigabyte each, and a GPU is fed by one."""
    return len(os.sched_getaffinity(0)) if pool is Pool.CPU else 1


class _Steps(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, executor: ProcessPoolExecutor, publisher: Publisher, topic: str, limit: int) -> None:
        self._executor = executor
        self._publisher = publisher
        self._topic = topic
        self._limit = limit

    def create_with_partitions(
        self,
        commit: Commit,
        partitions: Mapping[Partition, int],  # noqa: ARG002
    ) -> ProcessingStrategy[KafkaPayload]:
        return AnswerInPool(self._executor, _handle, self._publisher, self._record, CommitOffsets(commit), self._limit)

    def shutdown(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _record(self, value: BrokerValue[KafkaPayload]) -> Record:
        payload = value.payload
        return Record(
            topic=self._topic,
            key=payload.key,
            value=payload.value,
            headers=tuple(payload.headers),
            partition=value.partition.index,
            offset=value.offset,
            timestamp=int(value.timestamp.replace(tzinfo=UTC).timestamp() * 1000),  # arroyo's is naive UTC
        )
