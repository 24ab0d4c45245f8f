"""`facematch replay`."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.app import (
    OPERATE,
    Collection,
    UserError,
    app,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.commands.times import TIME_HELP, parse_period
from deploy.terminal import Terminal
from schemas.events.encodings import RejectionReason

_FROM = "What to choose from: individuals, encodings, or a file that --write wrote."


@app.command(rich_help_panel=OPERATE)
def replay(
    source: Annotated[str, typer.Option("--from", metavar="TOPIC|FILE", help=_FROM)] = "individuals",
    since: Annotated[
        str | None, typer.Option(help=f"Published then or later; with an outcome, when that was. {TIME_HELP}")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Published before then.")] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option(metavar="P:FROM-TO", help="Offsets of a partition: 3:100-200, 3:100- or 3:100. May be repeated."),
    ] = None,
    collection: Collection = None,
    individual: Annotated[list[str] | None, typer.Option(help="Only this id. May be repeated.")] = None,
    reason: Annotated[
        RejectionReason | None,
        typer.Option(help="An outcome: whose latest revision was rejected for this reason, and not encoded since."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="An outcome: whose latest encoding is of this encoder.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send them. Without it: only print what would be sent.")] = False,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them into a new file, a line of JSON each.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many events a second.")] = None,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Don't look whether live events are delayed, or anybody is at work.")
    ] = False,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Go on with a replay that was interrupted.")] = None,
) -> None:
    """Send events again, as they were. Without --yes: print which, and what would change.

    An event must match every option. One that has no effect any more (erased, encoded since) is left out. Live events
    go first: it sends only while no consumer is half a second behind.

    What a photo store kept out since Monday: [bold]facematch replay --reason photo_unavailable --since 2026-11-23[/]

    All that an encoder encoded, to move to another: [bold]facematch replay --encoder dlib-resnet-v1-db0eeebc.1[/]
    """
    from deploy.replay import run
    from producers.replay.plan import find
    from producers.replay.selection import Offsets, Selection

    if rate is not None and rate <= 0:
        raise UserError(f"--rate {rate}: events a second are more than 0")
    console, speed = Terminal(), run.Speed(rate, at_once)
    settings = settings_with_key()
    choices = (since, until, offsets, collection, individual, reason, encoder, write)
    if resume is not None:
        if any(choices) or source != "individuals":
            raise UserError("--resume goes on with what was chosen then: it goes with --rate and --at-once alone")
        plan = find(settings.data_folder, resume)
        with servers_expected():
            done = run.resume(console, topics_expected(settings), plan, speed)
        raise typer.Exit(0 if done else 1)
    if write is not None and (yes or write.exists()):
        raise UserError("--write sends nothing: leave out --yes" if yes else f"{write} is there already")
    begin, end = parse_period(since, until)
    selection = Selection(
        topic="encodings" if source == "encodings" else "individuals",
        file=None if source in ("individuals", "encodings") else Path(source),
        since=begin,
        until=end,
        offsets=tuple(map(Offsets.parse, offsets or ())),
        collection=collection,
        individuals=tuple(individual or ()),
        reason=reason,
        encoder=encoder,
    )
    with servers_expected():
        topics_expected(settings)
        if write is not None:
            run.write(console, settings, selection, write)
        elif not yes:
            run.dry_run(console, settings, selection)
        elif not run.send(console, settings, selection, speed):
            raise typer.Exit(1)
