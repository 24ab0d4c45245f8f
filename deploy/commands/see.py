"""Commands for who wants to see what came out, and for reviewers."""

from typing import Annotated, Literal
from uuid import UUID

import typer
from pydantic import ValidationError

from deploy.commands.app import (
    SEE,
    Collection,
    UserError,
    app,
    kafka_expected,
    read_settings,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.terminal import Terminal


@app.command(rich_help_panel=SEE)
def status(
    everything: Annotated[bool, typer.Option("--all", help="Every collection, and not the largest alone.")] = False,
) -> None:
    """Individuals by state, pairs, what the matchers hold, each consumer group's lag, dead letters, and the outbox."""
    from deploy.status.report import print_status

    with servers_expected():
        print_status(Terminal(), read_settings(), everything)


@app.command(rich_help_panel=SEE)
def duplicates(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they arrive.")] = False,
    collection: Collection = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    decided: Annotated[bool, typer.Option("--decided", help="Those too on which a reviewer has decided.")] = False,
    limit: Annotated[int | None, typer.Option(help="At most so many, the first that were found.", min=1)] = None,
    after: Annotated[
        str | None, typer.Option(help="Those found after this pair: the last of the page before.", metavar="PAIR")
    ] = None,
) -> None:
    """Pairs of registrations that look like the same person: candidates for review, never verdicts."""
    from consumers.views.pairs import PairSelection
    from deploy.status.duplicates import print_duplicates

    if follow and (limit is not None or after is not None):
        raise UserError("--follow has neither --limit nor --after: it goes on without end")
    last = None if after is None else _pair_id(after)
    which = PairSelection(collection, decided=decided, after=last, limit=limit)
    with servers_expected():
        print_duplicates(Terminal(), read_settings(), which, follow, as_json)


@app.command(rich_help_panel=SEE)
def conflicts(
    collection: Collection = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Individuals who were registered with different contents at one revision: a mistake of the producer."""
    from deploy.status.conflicts import print_conflicts

    with servers_expected():
        print_conflicts(Terminal(), read_settings(), collection, limit, as_json)


@app.command(rich_help_panel=SEE)
def certificates(
    collection: Collection = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What each compaction found and built: people, recall, pairs put right, the checksum of the index."""
    from deploy.compaction.certificates import print_certificates

    with servers_expected():
        print_certificates(Terminal(), read_settings(), collection, limit, as_json)


@app.command(rich_help_panel=SEE)
def decide(
    pair: Annotated[str, typer.Argument(help="The pair's id, as `facematch duplicates` shows it.", metavar="PAIR")],
    verdict: Annotated[Literal["same", "different"], typer.Argument(help="Whether both are one person.")],
    by: Annotated[str, typer.Option(help="Who decided.", metavar="WHO")],
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Say whether a pair is one person. It holds through updates, replays, rebuilds, and for every encoder.

    Who decides again is right: the later decision counts, and all are kept.
    """
    from deploy.decision import decide as publish

    pair_id = _pair_id(pair)
    try:
        with servers_expected():
            event = publish(kafka_expected(read_settings()), pair_id, verdict, by, note)
    except ValidationError as error:
        raise UserError("; ".join(f"--{one['loc'][0]}: {one['msg']}" for one in error.errors())) from None
    what = "one person" if verdict == "same" else "two people"
    Terminal().plain(f"decided: {event.a} and {event.b} in {event.collection} are {what}")


def _pair_id(text: str) -> str:
    """Raises UserError of what is none."""
    try:
        return str(UUID(text))
    except ValueError:
        raise UserError(f"{text}: a pair's id is a UUID; `facematch duplicates` shows them") from None


@app.command(rich_help_panel=SEE)
def erased(
    individual: Annotated[str, typer.Argument(help="The individual's id.", metavar="ID")],
    collection: Annotated[str, typer.Option(help="The collection that the individual was in.")] = "default",
) -> None:
    """Whether an individual was erased: the receipt, with what is there now."""
    from deploy.erasure.erase import ErasureRun, NotErasedError, print_receipts
    from deploy.erasure.file import Leaving
    from deploy.erasure.topics import Person

    console = Terminal()
    try:
        with servers_expected(), console.status("") as status:
            people = [Leaving(Person(collection, individual))]
            receipts = ErasureRun(topics_expected(settings_with_key()), people, status.update).again()
    except NotErasedError:
        Terminal().plain(f"nobody of id {individual} was erased from collection {collection}")
        raise typer.Exit(1) from None
    print_receipts(console, receipts)
