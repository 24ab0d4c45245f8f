"""The encoder pools: `individuals` → CPU pool (HOG), `escalations` → GPU pool (CNN); both → `encodings`."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC

import structlog
from arroyo.backends.kafka import KafkaPayload
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Partition, Topic

from consumers.encoder.answers import Task, given_up
from consumers.encoder.intake import Intake
from consumers.encoder.metering import Answers
from consumers.encoder.pool.consumer import CheckedConsumer
from consumers.encoder.pool.step import AnswerInPool, Done, Work
from consumers.encoder.pool.task_pool import Taken, TaskPool, process_pool
from consumers.encoder.process import DETECTOR_OF, Pool, answers, batch_of, load, longest_encoding_s, provider
from consumers.encoder.reporting import Teller
from consumers.photos.store import PhotoStore, longest_fetch_s
from runtime.process.cores import cores
from runtime.process.stopping import on_stop_signal
from runtime.servers.erasures import ErasureLog
from runtime.servers.publisher import Publisher
from runtime.telemetry.metrics import POOL_STARTS
from runtime.telemetry.tracing import tracer_of
from schemas.envelope import Record, full_name
from schemas.settings import Settings
from schemas.topics import CPU_POOL, GPU_POOL

log = structlog.stdlib.get_logger(__name__)

GROUP_OF = {Pool.CPU: CPU_POOL, Pool.GPU: GPU_POOL}


def start_pool(settings: Settings, pool: Pool, processes: int) -> TaskPool[Task, Record]:
    """Processes that encode; what the answers are is Encoding's business."""

    def start() -> ProcessPoolExecutor:
        executor = process_pool(processes, load, settings, pool)
        where = executor.submit(provider).result()
        log.info("pool started", processes=processes, detector=DETECTOR_OF[pool], runs_on=where)
        POOL_STARTS.labels(pool.value).inc()
        return executor

    return TaskPool(start, answers, processes, batch_of(settings, pool))


def run(settings: Settings, pool: Pool) -> None:
    """Encode until SIGTERM or SIGINT. Returns when what was under way is committed."""
    processes = settings.encoder_processes or _default_processes(pool)
    group = GROUP_OF[pool]
    (source,) = group.reads
    publisher = Publisher(settings, group.name)
    erasures = ErasureLog(settings, group.name).follow()
    intake = Intake(settings, DETECTOR_OF[pool], PhotoStore(settings).read, erasures.key, erasures.erased)

    teller, answers = Teller(tracer_of(settings, group.name)), Answers(pool.value, source.name)
    consumer = CheckedConsumer(settings, group)

    def take(record: Record) -> Taken[Task, Record]:
        erasures.check()
        return intake.take(record)

    def tell(done: Done) -> None:
        teller.tell(done)
        answers.count(done.answers)
        consumer.processed(done.record)

    work = Work(
        ThreadPoolExecutor(settings.photo_fetches, thread_name_prefix="fetch"),
        take,
        start_pool(settings, pool, processes),
        given_up,
        tell,
    )
    processor = StreamProcessor(
        consumer,
        Topic(full_name(source.name, settings.namespace)),
        _Steps(
            work,
            publisher,
            source.name,
            limit=2 * settings.photo_fetches + 4 * processes,
            longest_s=longest_fetch_s(settings) + longest_encoding_s(settings, pool),
        ),
        ONCE_PER_SECOND,
        join_timeout=10.0,
    )
    on_stop_signal(processor.signal_shutdown)
    processor.run()


def _default_processes(pool: Pool) -> int:
    """One for each core; a GPU is fed by one."""
    return cores() if pool is Pool.CPU else 1


class _Steps(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, work: Work[Task], publisher: Publisher, topic: str, limit: int, longest_s: float) -> None:
        self._work = work
        self._publisher = publisher
        self._topic = topic
        self._limit = limit
        self._longest_s = longest_s

    def create_with_partitions(
        self,
        commit: Commit,
        partitions: Mapping[Partition, int],  # noqa: ARG002
    ) -> ProcessingStrategy[KafkaPayload]:
        return AnswerInPool(
            self._work, self._publisher, self._record, CommitOffsets(commit), self._limit, self._longest_s
        )

    def shutdown(self) -> None:
        self._work.threads.shutdown(wait=False, cancel_futures=True)
        self._work.pool.close()

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
