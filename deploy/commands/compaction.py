"""`facematch compact`: once, as a dry run, or as a worker that keeps to a schedule."""

import os
import signal
import threading
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.app import (
    OPERATE,
    Collection,
    UserError,
    app,
    kafka_expected,
    parse_shard,
    read_settings,
    ready,
    servers_expected,
    settings_with_key,
)
from runtime.telemetry import logs
from schemas.shard import Shard


@app.command(rich_help_panel=OPERATE)
def compact(
    collection: Collection = None,
    encoder: Annotated[str | None, typer.Option(help="Only embeddings of this encoder.")] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=parse_shard, metavar="NUMBER/COUNT", help="Only this shard. Default: all that matchers speak of."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come of it, and change nothing.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="With --dry-run: suppose this threshold, above 0 and below 2.")
    ] = None,
    recall_floor: Annotated[
        float | None, typer.Option(help="With --dry-run: suppose this recall floor, above 0 and below 1.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="CRON", help='Stay, and compact at these times: "0 2 * * *" is every night at two.'),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Of the schedule, as the tz database names it.")] = "UTC",
    threads: Annotated[int, typer.Option(help="Threads that build; 0: one for each core.", min=0)] = 0,
    as_worker: Annotated[bool, typer.Option("--as-worker", help="Say it in log lines, as workers do.")] = False,
) -> None:
    """Build the index of every collection anew from the log alone, put its pairs right, and certify it.

    The matchers take the index up without stopping.
    """
    from deploy.compaction.keeper import keep
    from deploy.compaction.run import UnknownEncoderError, run_compaction
    from deploy.compaction.schedule import Schedule, ScheduleError
    from runtime.process.stopping import exit_within
    from streams.compaction.compactor import CompactionPlan, UnknownCollectionError

    if threshold is not None and not 0 < threshold < 2:
        raise UserError(f"--threshold {threshold}: a threshold is above 0 and below 2")
    if recall_floor is not None and not 0 < recall_floor < 1:
        raise UserError(f"--recall-floor {recall_floor}: a recall floor is above 0 and below 1")
    if (threshold is not None or recall_floor is not None) and not dry_run:
        raise UserError(
            "--threshold and --recall-floor are for --dry-run: what matchers and compactions go by is set by "
            "FACEMATCH_THRESHOLD, FACEMATCH_COLLECTIONS and FACEMATCH_RECALL_FLOOR"
        )
    if schedule is not None:
        if dry_run or collection or encoder or shard:
            raise UserError("--schedule compacts everything: it goes with --time-zone and --threads alone")
        try:
            when = Schedule.parse(schedule, time_zone)
        except ScheduleError as error:
            raise UserError(str(error)) from None
        keep(ready("compactor", redis=True), when, threads)
        return
    if as_worker:
        logs.become_worker("compactor", read_settings().namespace)
    plan = CompactionPlan(collection, encoder, dry_run, threshold, recall_floor)
    os.nice(10)  # whatever else runs on the machine goes first
    stopping = threading.Event()

    def stop(*_: object) -> None:
        exit_within()
        stopping.set()  # so that the lease is given back

    signal.signal(signal.SIGTERM, stop)
    try:
        with servers_expected():
            found = kafka_expected(settings_with_key())
            is_done = run_compaction(Console(quiet=as_worker), found, plan, shard, threads, stopping)
    except UnknownCollectionError as error:
        raise UserError(f"nobody was ever registered in collection {error}; `facematch status` lists them") from None
    except UnknownEncoderError as error:
        where = f"in collection {collection}" if collection else "anywhere"
        raise UserError(f"nobody has an embedding of encoder {error} {where}; `facematch status` lists them") from None
    if not is_done:
        raise typer.Exit(1)
