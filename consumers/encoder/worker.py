"""The encoder pools: `individuals` → CPU pool (HOG), `escalations` → GPU pool (CNN); both → `encodings`."""

from concurrent.futures import ThreadPoolExecutor

import structlog
from arroyo.backends.kafka import KafkaPayload
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing import StreamProcessor
from arroyo.types import Topic

from consumers.encoder.answers import Result, Task, answer_to
from consumers.encoder.intake import Intake
from consumers.encoder.metering import AnswerCounter
from consumers.encoder.pool.consumer import CheckedConsumer
from consumers.encoder.pool.factory import StepFactory
from consumers.encoder.pool.step import AnsweredRecord, Preparation, Work
from consumers.encoder.pool.task_pool import TaskPool
from consumers.encoder.pool.worker_process import Program
from consumers.encoder.process import (
    DETECTOR_OF,
    Pool,
    batch_of,
    encode,
    load,
    longest_batch_s,
    longest_encoding_s,
)
from consumers.encoder.reporting import Reporter
from consumers.faces.networks.stored import weights_path
from consumers.photos.store import PhotoStore, longest_fetch_s
from runtime.process.cores import cores
from runtime.process.stopping import on_stop_signal
from runtime.servers.attempts import Attempts, Reader, attempts_of
from runtime.servers.deployment import ENCODER, read_notes
from runtime.servers.erasures import ErasureLog
from runtime.servers.lag import Positions
from runtime.servers.publisher import Publisher
from runtime.telemetry.metrics import POOL_STARTS
from runtime.telemetry.tracing import tracer_of
from schemas.encoders.known import FACE_RECOGNITION, encoder_named
from schemas.envelope import Source, StoredRecord, full_name
from schemas.settings import Settings
from schemas.thresholds import Thresholds
from schemas.topics import CPU_POOL, GPU_POOL

log = structlog.stdlib.get_logger(__name__)

_CLOSELY = 200  # records, one at a time: more than are begun within the second between two commits
GROUP_OF = {Pool.CPU: CPU_POOL, Pool.GPU: GPU_POOL}


def run(settings: Settings, pool: Pool) -> None:
    """Encode until SIGTERM or SIGINT. Returns when what was under way is committed."""
    group = GROUP_OF[pool].name
    attempts = attempts_of(settings, Reader(group, group, Source.ENCODER, deaths=2, closely=_CLOSELY))
    processor = build_processor(settings, pool, attempts)
    on_stop_signal(processor.signal_shutdown)
    try:
        processor.run()
    finally:
        attempts.close()


def build_processor(settings: Settings, pool: Pool, attempts: Attempts) -> StreamProcessor[KafkaPayload]:
    """The worker's loop, put together from real parts: clients of Kafka, photo stores, threads and processes."""
    processes = settings.encoder_processes or _default_processes(pool)
    group = GROUP_OF[pool]
    encoder = read_notes(settings, group.name).get(ENCODER, FACE_RECOGNITION)
    (source,) = group.reads
    publisher = Publisher(settings, group.name)
    consumer = CheckedConsumer(settings, group, Positions(settings, group.name), attempts)
    erasures = ErasureLog(settings, group.name).follow()
    intake = Intake(settings, DETECTOR_OF[pool], PhotoStore(settings).read, erasures.key, erasures.erased)
    reporter, counter = Reporter(tracer_of(settings, group.name)), AnswerCounter(pool.value, source.name)

    def prepare(record: StoredRecord) -> Preparation[Task]:
        erasures.check()
        return intake.prepare(record)

    def report(answered: AnsweredRecord) -> None:
        reporter.report(answered)
        counter.count(answered.answers)
        consumer.processed(answered.record)

    threads = ThreadPoolExecutor(settings.photo_fetches, thread_name_prefix="fetch")
    steps = StepFactory(
        Work(threads, prepare, start_pool(settings, pool, processes, encoder), answer_to, attempts, report),
        publisher,
        source.name,
        limit=2 * settings.photo_fetches + 4 * processes,
        longest_s=longest_fetch_s(settings) + longest_encoding_s(settings),
    )
    topic = Topic(full_name(source.name, settings.namespace))
    return StreamProcessor(consumer, topic, steps, ONCE_PER_SECOND, join_timeout=10.0)


def start_pool(settings: Settings, pool: Pool, processes: int, encoder: str) -> TaskPool[Task, Result]:
    """Processes that encode photos by the encoder of that name.

    Raises WeightsError and NoThresholdError before one is started.
    """
    manifest = encoder_named(settings.encoders_folder, encoder)
    Thresholds(settings).check(manifest.id)
    for one in manifest.weights:
        weights_path(settings, manifest, one)

    def died() -> None:
        log.warning("a process of the pool died, another takes its place", detector=DETECTOR_OF[pool])
        POOL_STARTS.labels(pool.value).inc()

    program: Program[Task, Result] = Program(load, (settings, pool, encoder), encode)
    started = TaskPool(program, processes, batch_of(settings, pool), longest_batch_s(settings), died)
    POOL_STARTS.labels(pool.value).inc()
    log.info("pool started", processes=processes, encoder=encoder, detector=DETECTOR_OF[pool], runs_on=started.begun[0])
    return started


def _default_processes(pool: Pool) -> int:
    """One for each core; a GPU is fed by one."""
    return cores() if pool is Pool.CPU else 1
