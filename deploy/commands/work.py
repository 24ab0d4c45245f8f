"""The workers."""

import os
from typing import Annotated, Literal

import typer

from deploy.commands.app import WORK, UserError, app, parse_shard, read_settings, ready, servers_expected
from deploy.terminal import Terminal
from schemas.shard import Shard


@app.command(rich_help_panel=WORK)
def encode(
    pool: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="cpu: finds faces by HOG; gpu: by CNN, what the CPU pool could not.")
    ],
) -> None:
    """An encoder: photo → face → embedding. Start as many as there is work for."""
    from consumers.encoder.process import Pool
    from consumers.encoder.worker import run

    run(ready(f"encoder-{pool}"), Pool(pool))


@app.command(rich_help_panel=WORK)
def match(
    shard: Annotated[
        Shard,
        typer.Option(
            parser=parse_shard,
            metavar="NUMBER/COUNT",
            help="Which of several matchers this is, for more vectors than one holds: 1/8, 2/8 … 8/8, all of them.",
        ),
    ] = Shard(),
) -> None:
    """The matcher: compares every new embedding with all before it."""
    # OpenBLAS reads it when numpy is loaded. Its threads spin while they wait for each other, on cores that are needed.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from schemas.topics import matcher_of
    from streams.matcher.worker import run

    run(ready(matcher_of(shard).name, redis=True), shard)


@app.command(rich_help_panel=WORK)
def sink() -> None:
    """The sink: writes individuals, rejections and duplicates into Postgres."""
    from consumers.sink.worker import run

    run(ready("sink", tables=True))


@app.command(rich_help_panel=WORK)
def outbox(
    create: Annotated[
        bool, typer.Option("--create", help="Create the table, or what is missing of it, and do no more.")
    ] = False,
) -> None:
    """The outbox's relay: publishes what a registration system writes into a table of its own Postgres.

    FACEMATCH_OUTBOX says which database. Start several if you like: each individual's rows stay in order.
    """
    from sqlalchemy.exc import ProgrammingError

    from deploy.setup.outbox import wait_for_outbox
    from producers.outbox.relay import run
    from producers.outbox.table import create_outbox

    if create:
        with servers_expected():
            try:
                create_outbox(read_settings())
            except ProgrammingError as error:
                raise UserError(f"Postgres refuses to create the outbox: {error.orig}") from None
        Terminal().plain("the outbox table is there")
        return
    found = ready("outbox")
    with servers_expected():
        wait_for_outbox(found)
    run(found)
