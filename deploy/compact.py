"""`facematch compact`: what is going to be rebuilt, how far it is, and what came of it."""

import os

from redis import Redis
from redis.exceptions import OutOfMemoryError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from schemas.kafka import partition_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS
from streams.compactor import BYTES_OF_A_RECORD, Compactor, Result
from streams.inbox import LostChunksError
from streams.lease import HeldError, LeaseLostError
from streams.segment import cores
from streams.vitals import PartitionVitals, read_vitals


def run_compaction(
    console: Console, settings: Settings, collection: str | None, shard: Shard | None, threads: int
) -> bool:
    """Rebuild all, one collection, or one shard, one after the other, and print a table of what was built.

    Whatever else runs on the machine goes first. False where something is not in service: the others are.
    """
    problems = []
    os.nice(10)
    partitions = range(ENCODINGS.partitions)
    if collection is not None:
        partitions = range(at := partition_of(collection, ENCODINGS.partitions), at + 1)
    said = list(read_vitals(Redis.from_url(settings.redis), settings))
    table = Table(title="compacted", title_justify="left")
    for name in ("collection", "people", "recall", "M", "ef_construction", "ef", "built in", "stored in"):
        table.add_column(name, overflow="fold")
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(what: str, done: int, total: int) -> None:
            if bar.tasks[0].description != what:
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done)

        for partition in partitions:
            for one in [shard] if shard is not None else shards_of(said, partition):
                compactor = Compactor(settings, one, partition, threads or cores(), progress)
                records = compactor.records()
                if not records and collection is None:
                    continue
                console.print(
                    f"partition {partition}: {records} records or fewer, "
                    f"{records * BYTES_OF_A_RECORD / 1e6:.0f} MB of memory at most"
                )
                try:
                    for result in compactor.run(collection):
                        table.add_row(*_row(result, one))
                        if not result.is_put_into_service:
                            problems.append(
                                f"{result.collection}: what is in service stays, since an index with a recall of "
                                f"{result.quality.recall:.4f} is below the floor of {settings.recall_floor}"
                            )
                except (HeldError, LeaseLostError, LostChunksError, OutOfMemoryError) as error:
                    problems.append(f"partition {partition}: {_explain(error)}")
    if table.row_count or problems:
        console.print(table)
    else:
        console.print("nobody is registered: there is nothing to compact")
    for problem in problems:
        console.print(f"[bold red]failed:[/] {escape(problem)}", soft_wrap=True)
    return not problems


def _explain(error: Exception) -> str:
    if isinstance(error, HeldError):
        return f"a compaction is under way: {error}"
    if isinstance(error, OutOfMemoryError):
        return "Redis has no memory left for another index; raise maxmemory"
    return f"{error}; run it again"


def _row(result: Result, shard: Shard) -> tuple[str, ...]:
    name = escape(result.collection) if shard.count == 1 else f"{escape(result.collection)}\n[dim]shard {shard}[/]"
    quality = result.quality
    return (
        f"{name}\n[dim]{result.encoder}[/]",
        str(result.people),
        f"{quality.recall:.4f}",
        *map(str, (quality.m, quality.ef_construction, quality.ef)),
        f"{result.built_s:.1f} s",
        f"{result.stored_s:.1f} s",
    )


def shards_of(said: list[PartitionVitals], partition: int) -> list[Shard]:
    """Those that matchers divide a partition into, by what they said last; one where they said nothing."""
    last = max((one for one in said if one.partition == partition), key=lambda one: one.at, default=None)
    count = 1 if last is None else Shard.parse(last.shard).count
    return [Shard(number, count) for number in range(1, count + 1)]
