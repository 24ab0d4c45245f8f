"""One compaction of all partitions and shards: its progress bar, its certificates, its problems."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import structlog
from redis.exceptions import OutOfMemoryError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeRemainingColumn

from deploy.compaction.certificates import certificate_table, problem_of
from deploy.shards import shard_counts, shards_of
from runtime.process.cores import cores
from runtime.servers.log import TopicLog
from runtime.servers.redis import connect_once
from schemas.events.certificates import CompactionCertified
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS
from streams.checkpoint.handover import LostChunksError
from streams.checkpoint.lease import HeldError, LeaseLostError
from streams.checkpoint.retired import remove_retired
from streams.compaction.bootstrap import open_compactor
from streams.compaction.compactor import (
    BYTES_OF_A_FINDING,
    BYTES_OF_A_NUMBER,
    BYTES_OF_A_PAIR,
    BYTES_OF_A_RECORD,
    CompactionPlan,
)
from streams.gallery.build import OnProgress
from streams.gallery.reach import TooManyPairsError
from streams.matcher.vitals import read_vitals

log = structlog.stdlib.get_logger(__name__)


class UnknownEncoderError(UserFault):
    """Nobody has an embedding of that encoder."""


def run_compaction(
    console: Console,
    settings: Settings,
    plan: CompactionPlan,
    shard: Shard | None = None,
    stopping: threading.Event | None = None,
) -> bool:
    """Run a plan partition by partition, shard by shard, and print the certificates.

    With a quiet console the problems are logged instead. A problem of one shard does not stop the others. Returns
    whether there was none. Raises SystemExit at the next step once `stopping` is set; UnknownCollectionError;
    UnknownEncoderError.
    """
    certificates: list[CompactionCertified] = []
    problems: list[str] = []
    with closing(connect_once(settings)) as redis:
        vitals = list(read_vitals(redis, settings))
    counts = shard_counts(settings)
    with _bar_on(console, stopping) as progress:
        for partition in _partitions(settings, plan):
            for one in [shard] if shard is not None else shards_of(vitals, partition, counts):
                with open_compactor(settings, one, partition, cores(), progress) as compactor:
                    records, findings = compactor.input.sizes()
                    if not records + findings and plan.collection is None:
                        continue
                    console.print(_expected_memory(partition, records, findings), soft_wrap=True)
                    try:
                        for certificate in compactor.run(plan):
                            certificates.append(certificate)
                            _log_certificate(certificate)
                            if problem := problem_of(certificate):
                                problems.append(problem)
                    except (HeldError, TooManyPairsError, LeaseLostError, LostChunksError, OutOfMemoryError) as error:
                        problems.append(f"partition {partition}: {_explain(error)}")
                    if compactor.unknown:
                        problems.append(
                            f"partition {partition}: {compactor.unknown} pairs stay though topic encodings has no "
                            "record of one of the two, who was never erased"
                        )
    if not plan.dry_run:
        with closing(connect_once(settings)) as redis:
            remove_retired(redis, settings)
    if plan.encoder is not None and not certificates and not problems:
        where = f"in collection {plan.collection}" if plan.collection else "anywhere"
        raise UnknownEncoderError(
            f"nobody has an embedding of encoder {plan.encoder} {where}; `facematch status` lists them"
        )
    _print_outcome(console, plan, certificates, problems)
    return not problems


def _partitions(settings: Settings, plan: CompactionPlan) -> list[int]:
    with TopicLog(settings, ENCODINGS, "compactor") as log:
        return list(log.spans()) if plan.collection is None else [log.partition_of(plan.collection)]


@contextmanager
def _bar_on(console: Console, stopping: threading.Event | None) -> Iterator[OnProgress]:
    """A progress bar that is gone afterwards, as the callback that moves it."""
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(stage: str, done: int, total: int, detail: str = "") -> None:
            if stopping is not None and stopping.is_set():
                raise SystemExit(128 + signal.SIGTERM)
            what = f"{stage}, {detail}" if detail else stage
            if bar.tasks[0].description != what:
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done)

        yield progress


def _expected_memory(partition: int, records: int, findings: int) -> str:
    memory = records * BYTES_OF_A_RECORD + findings * BYTES_OF_A_FINDING
    return (
        f"partition {partition}: {records} encodings and {findings} findings or fewer; memory: "
        f"{max(1, memory / 1e6):.0f} MB or less, {BYTES_OF_A_NUMBER} bytes for each number of an embedding beyond 128, "
        f"{BYTES_OF_A_PAIR} bytes a pair, and the program's own"
    )


def _print_outcome(
    console: Console, plan: CompactionPlan, certificates: list[CompactionCertified], problems: list[str]
) -> None:
    if certificates:
        title = "what a compaction would do; nothing is changed" if plan.dry_run else "certificates"
        console.print(certificate_table(certificates, title))
    elif not problems:
        console.print("nobody is registered: there is nothing to compact")
    for problem in problems:
        console.print(f"[bold red]failed:[/] {escape(problem)}", soft_wrap=True)
        if console.quiet:
            log.error("compaction failed", problem=problem)


def _log_certificate(certificate: CompactionCertified) -> None:
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
        return str(error)
    if isinstance(error, OutOfMemoryError):
        return "Redis has no memory left for another index; raise maxmemory"
    return f"{error}; run it again"
