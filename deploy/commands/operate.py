"""Commands for who runs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.app import (
    OPERATE,
    UserError,
    app,
    kafka_expected,
    read_settings,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.terminal import Terminal

if TYPE_CHECKING:
    from deploy.erasure.file import Leaving


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
    new_database: Annotated[
        bool, typer.Option("--new-database", help="The database takes the place of the one before, which is gone.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(help="The encoder of a new deployment. Unset: sface, where its weights are here.", metavar="NAME"),
    ] = None,
) -> None:
    """Create the topics and tables that are not there yet; workers wait for them.

    Refused where a topic that is there is not as it must be, or where the namespace belongs to another database.
    """
    from deploy.setup.everything import set_up

    with servers_expected():
        chosen = set_up(kafka_expected(read_settings()), configure, new_database, encoder)
    Terminal().plain(f"topics and tables are there; photos are encoded by {chosen}")


@app.command(rich_help_panel=OPERATE)
def erase(
    individual: Annotated[str | None, typer.Argument(help="The individual's id.", metavar="ID")] = None,
    collection: Annotated[str, typer.Option(help="The collection that the individual is in.")] = "default",
    file: Annotated[
        Path | None,
        typer.Option(
            help="Erase everybody in a file: a line each, collection/individual or, as CSV, "
            "collection,individual[,revision]."
        ),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(help="Erase revisions up to this one. Default: one more than Postgres knows.", min=1)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without progress until it has failed.")] = 120.0,
) -> None:
    """Erase an individual, wait until it is so everywhere, and print a receipt: what was where, and what still is.

    A registration under a higher revision is a new one, and welcome. Many people in one file take little longer than
    one: topics and Redis are searched for all of them at once.
    """
    from deploy.erasure.erase import ErasureRun, print_receipts
    from deploy.erasure.file import Leaving
    from deploy.erasure.topics import Person
    from deploy.erasure.waiting import StalledErasureError

    if (individual is None) == (file is None) or (file is not None and revision is not None):
        raise UserError("give the id of one individual, or --file, which names collections and revisions itself")
    people = [Leaving(Person(collection, individual or ""), revision)] if file is None else _people_in(file)
    console = Terminal()
    try:
        with servers_expected(), console.status("") as status:
            receipts = ErasureRun(topics_expected(settings_with_key()), people, status.update).erase(timeout)
    except StalledErasureError as error:
        console.print(f"[bold red]not finished:[/] the erasure is published, but {error}; then `facematch erased`")
        raise typer.Exit(1) from None
    print_receipts(console, receipts)


def _people_in(file: Path) -> "list[Leaving]":
    from deploy.erasure.file import read_lines

    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            found = read_lines(lines)
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    if not found:
        raise UserError(f"{file} names nobody")
    return found
