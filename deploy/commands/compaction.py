"""`facematch compact` and the worker `facematch compactor`, which does the same at set times."""

import os
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.commands.app import (
    OPERATE,
    WORK,
    Collection,
    app,
    parse_shard,
    read_settings,
    ready,
    servers_expected,
    settings_with_key,
)
from deploy.terminal import Terminal
from runtime.telemetry import logs
from schemas.shard import Shard

if TYPE_CHECKING:
    from streams.compaction.compactor import CompactionPlan


@app.command(rich_help_panel=OPERATE)
def compact(
    collection: Collection = None,
    encoder: Annotated[str | None, typer.Option(help="Only embeddings of this encoder.")] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=parse_shard, metavar="NUMBER/COUNT", help="Only this shard. Default: every shard of the matchers."
        ),
    ] = None,
) -> None:
    """Build the index of every collection anew from the log alone, correct its pairs, and certify it.

    The matchers take the index up without stopping. What it would do: [bold]facematch what-if --whole[/]
    """
    from streams.compaction.compactor import CompactionPlan

    run_plan(Terminal(), CompactionPlan(collection, encoder), shard)


@app.command(rich_help_panel=WORK)
def compactor(
    once: Annotated[bool, typer.Option("--once", help="Compact now, and end.")] = False,
) -> None:
    """The compactor: runs a compaction of everything at FACEMATCH_COMPACT_AT, and makes up for one that it missed."""
    from deploy.compaction.schedule import Schedule
    from deploy.compaction.worker import run_scheduled
    from streams.compaction.compactor import CompactionPlan

    settings = read_settings()
    if once:
        logs.become_worker("compactor", settings.namespace)
        run_plan(Terminal(quiet=True), CompactionPlan())
        return
    schedule = Schedule.parse(settings.compact_at, settings.time_zone)
    run_scheduled(ready("compactor", redis=True), schedule)


def run_plan(console: Console, plan: "CompactionPlan", shard: Shard | None = None) -> None:
    """Run a compaction at a low priority, once Kafka is there. Exit status 1 where it failed.

    SIGTERM ends it and gives its lease back.
    """
    from deploy.compaction.run import run_compaction
    from deploy.setup.topics import wait_for_topics
    from runtime.process.stopping import exit_within

    os.nice(10)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        exit_within()
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    settings = settings_with_key()
    wait_for_topics(settings)
    with servers_expected():
        is_done = run_compaction(console, settings, plan, shard, stopping)
    if not is_done:
        raise typer.Exit(1)
