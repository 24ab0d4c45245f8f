"""Commands for who runs it."""

from typing import Annotated

import typer

from deploy.commands.app import (
    OPERATE,
    app,
    kafka_expected,
    read_settings,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.terminal import Terminal


@app.command(rich_help_panel=OPERATE)
def settings() -> None:
    """Every setting: its environment variable, its value here, what it means."""
    from deploy.status.settings import print_settings

    print_settings(Terminal(), read_settings())


@app.command(rich_help_panel=OPERATE)
def setup(
    configure: Annotated[
        bool, typer.Option("--configure", help="Set how topics that are there are kept, where they differ.")
    ] = False,
) -> None:
    """Create the topics and tables that are not there yet; workers wait for them.

    Refused where a topic that is there is not as it must be: see [bold]docs/operating.md[/].
    """
    from deploy.setup.tables import create_tables
    from deploy.setup.topics import create_topics

    with servers_expected():
        create_topics(kafka_expected(read_settings()), configure)
        create_tables(read_settings())
    Terminal().plain("topics and tables are there")


@app.command(rich_help_panel=OPERATE)
def erase(
    individual: Annotated[str, typer.Argument(help="The individual's id.", metavar="ID")],
    collection: Annotated[str, typer.Option(help="The collection that the individual is in.")] = "default",
    revision: Annotated[
        int | None, typer.Option(help="Erase revisions up to this one. Default: one more than Postgres knows.", min=1)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until what is not done yet has failed.")] = 120.0,
) -> None:
    """Erase an individual, wait until it is so everywhere, and print a receipt: what was where, and what still is.

    A registration under a higher revision is a new one, and welcome.
    """
    from deploy.erasure.erase import ErasureRun, StalledErasureError, print_receipt

    console = Terminal()
    try:
        with servers_expected(), console.status("") as status:
            receipt = ErasureRun(topics_expected(settings_with_key()), collection, individual, status.update).erase(
                revision, timeout
            )
    except StalledErasureError as error:
        console.print(f"[bold red]not finished:[/] the erasure is published, but {error}; then `facematch erased`")
        raise typer.Exit(1) from None
    print_receipt(console, receipt)
