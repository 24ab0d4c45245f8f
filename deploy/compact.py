"""`facematch compact`: what is going to be rebuilt, how far it is, and what came of it."""

import os

from redis import Redis
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from schemas.kafka import partition_of
from schemas.settings import Settings
from schemas.shard import Shard
from schemas.topics import ENCODINGS
from streams.compactor import BYTES_OF_A_RECORD, Compactor
from streams.segment import cores
from streams.vitals import read_vitals


def run_compaction(
    console: Console, settings: Settings, collection: str | None, shard: Shard | None, threads: int
) -> None:
    """Rebuild all, one collection, or one shard, one after the other, and print a table of what was built.

    Whatever else runs on the machine goes first.
    """
    os.nice(10)
    partitions = range(ENCODINGS.partitions)
    if collection is not None:
        partitions = range(at := partition_of(collection, ENCODINGS.partitions), at + 1)
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
            for one in [shard] if shard is not None else shards_of(settings, partition):
                compactor = Compactor(settings, one, partition, threads or cores(), progress)
                records = compactor.records()
                if not records and collection is None:
                    continue
                console.print(
                    f"partition {partition}: {records} records or fewer, "
                    f"{records * BYTES_OF_A_RECORD / 1e6:.0f} MB of memory at most"
                )
                for result in compactor.run(collection):
                    quality = result.quality
                    numbers = (quality.m, quality.ef_construction, quality.ef)
                    name = result.collection if one.count == 1 else f"{result.collection}\n[dim]shard {one}[/]"
                    table.add_row(
                        f"{name}\n[dim]{result.encoder}[/]",
                        str(result.people),
                        f"{quality.recall:.4f}",
                        *map(str, numbers),
                        f"{result.built_s:.1f} s",
                        f"{result.stored_s:.1f} s",
                    )
    console.print(table if table.row_count else "nobody is registered: there is nothing to compact")


def shards_of(settings: Settings, partition: int) -> list[Shard]:
    """Those that matchers divide a partition into, by what they said last; one where they said nothing."""
    said = [one for one in read_vitals(Redis.from_url(settings.redis), settings) if one.partition == partition]
    count = Shard.parse(max(said, key=lambda one: one.at).shard).count if said else 1
    return [Shard(number, count) for number in range(1, count + 1)]
