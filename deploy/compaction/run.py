"""`facematch compact`: what is going to be done, how far it is, and the certificates of it."""

import signal
import threading
from contextlib import closing

import structlog
from redis.exceptions import OutOfMemoryError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeRemainingColumn

from deploy.compaction.certificates import certificate_table, problem_of
from deploy.shards import shard_counts, shards_of
from runtime.process.cores import cores
from runtime.servers.redis import connect_once
from schemas.events.certificates import CompactionCertified
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS, partition_of
from streams.checkpoint.handover import LostChunksError
from streams.checkpoint.lease import HeldError, LeaseLostError
from streams.compaction.compactor import (
    BYTES_OF_A_FINDING,
    BYTES_OF_A_PAIR,
    BYTES_OF_A_RECORD,
    CompactionPlan,
    Compactor,
)
from streams.gallery.reach import TooManyPairsError
from streams.matcher.vitals import read_vitals

log = structlog.stdlib.get_logger(__name__)


class UnknownEncoderError(Exception):
    """Nobody's embedding is of that encoder."""


def run_compaction(
    console: Console,
    settings: Settings,
    plan: CompactionPlan,
    shard: Shard | None = None,
    threads: int = 0,
    stopping: threading.Event | None = None,
) -> bool:
    """Compact all, one collection, or one shard, one after the other, and print the certificates.

    Where nobody looks at the console (`quiet`), they go to the log. Once `stopping` is set, the next step raises
    SystemExit.
    False where something went wrong: the rest is done. Raises UnknownCollectionError, UnknownEncoderError.
    """
    problems: list[str] = []
    certificates: list[CompactionCertified] = []
    partitions = range(ENCODINGS.partitions)
    if plan.collection is not None:
        partitions = range(at := partition_of(plan.collection, ENCODINGS.partitions), at + 1)
    with closing(connect_once(settings)) as redis:
        said = list(read_vitals(redis, settings))
    counts = shard_counts(settings)
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(what: str, done: int, total: int) -> None:
            if stopping is not None and stopping.is_set():
                raise SystemExit(128 + signal.SIGTERM)
            if bar.tasks[0].description != what:
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done)

        for partition in partitions:
            for one in [shard] if shard is not None else shards_of(said, partition, counts):
                with closing(Compactor(settings, one, partition, threads or cores(), progress)) as compactor:
                    records, findings = compactor.sources.sizes()
                    if not records + findings and plan.collection is None:
                        continue
                    memory = records * BYTES_OF_A_RECORD + findings * BYTES_OF_A_FINDING
                    console.print(
                        f"partition {partition}: {records} encodings and {findings} findings or fewer; memory: "
                        f"{max(1, memory / 1e6):.0f} MB or less, {BYTES_OF_A_PAIR} bytes a pair, and the program's own",
                        soft_wrap=True,
                    )
                    try:
                        for certificate in compactor.run(plan):
                            certificates.append(certificate)
                            _say(certificate)
                            if problem := problem_of(certificate):
                                problems.append(problem)
                    except (HeldError, TooManyPairsError, LeaseLostError, LostChunksError, OutOfMemoryError) as error:
                        problems.append(f"partition {partition}: {_explain(error)}")
    if plan.encoder is not None and not certificates and not problems:
        raise UnknownEncoderError(plan.encoder)
    if certificates:
        title = "what a compaction would do; nothing is changed" if plan.dry_run else "certificates"
        console.print(certificate_table(certificates, title))
    elif not problems:
        console.print("nobody is registered: there is nothing to compact")
    for problem in problems:
        console.print(f"[bold red]failed:[/] {escape(problem)}", soft_wrap=True)
        if console.quiet:
            log.error("compaction failed", problem=problem)
    return not problems


def _say(certificate: CompactionCertified) -> None:
    log.info(
        "compacted",
        certificate=certificate.certificate_id,
        collection=certificate.collection,
        encoder=certificate.encoder,
        partition=certificate.partition,
        shard=f"{certificate.shard}/{certificate.shards}",
        people=certificate.people,
        recall=None if certificate.recall is None else round(certificate.recall.recall, 4),
        pairs_kept=certificate.pairs.kept,
        pairs_found=certificate.pairs.found,
        pairs_retracted=certificate.pairs.retracted,
        in_service=certificate.in_service,
        seconds=round(sum(certificate.seconds.values()), 1),
    )


def _explain(error: Exception) -> str:
    if isinstance(error, HeldError):
        return f"a compaction is under way: {error}"
    if isinstance(error, TooManyPairsError):
        return f"{error}; suppose a lower one"
    if isinstance(error, OutOfMemoryError):
        return "Redis has no memory left for another index; raise maxmemory"
    return f"{error}; run it again"
