"""Commands for who puts individuals in."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.app import PRODUCE, app, kafka_expected, read_settings, servers_expected
from deploy.terminal import Terminal


@app.command(rich_help_panel=PRODUCE)
def submit(
    paths: Annotated[
        list[Path], typer.Argument(help="Photos, folders of photos, .csv and .jsonl files.", metavar="PATH…")
    ],
    collection: Annotated[str, typer.Option(help="Of those that name none themselves.")] = "default",
    inline: Annotated[bool, typer.Option("--inline", help="Send the photos inside the events.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until what is not acknowledged has failed.")] = 60.0,
) -> None:
    """Register individuals: publish each with its photo, and print what Kafka acknowledged.

    Lists have the columns individual_id and photo (a URI, or a path from where the list is), and may have
    collection, revision (1) and detector (hog, cnn); any further column is kept as an attribute.
    """
    from producers.submit.entries import read_paths
    from producers.submit.publish import submit as publish

    console = Terminal(stderr=True)
    entries = list(read_paths(paths, collection))
    with servers_expected(), console.status("") as status:
        count = 0

        def advance() -> None:
            nonlocal count
            count += 1
            status.update(f"{count} of {len(entries)}")

        report = publish(kafka_expected(read_settings(), may_be_away=True), entries, inline, timeout, advance)
    Terminal().plain(f"{report.acknowledged} of {len(entries)} registrations acknowledged")
    for name, problem in report.failed:
        Terminal(stderr=True).plain(f"not submitted: {name}: {problem}")
    if report.failed:
        raise typer.Exit(1)
