"""The command line: `facematch --help` reads like a map of the system."""

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.console import Console

from schemas.settings import Settings
from schemas.shard import Shard

app = typer.Typer(
    help="Finds the same person registered twice: photos go in as events, candidates for review come out in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may hold photos or embeddings
)
TRY, PRODUCE, SEE, OPERATE, WORK = "Try it", "Put individuals in", "See what came out", "Run it", "The workers"

Collection = Annotated[str | None, typer.Option(help="Only this collection.")]


class UserError(typer.BadParameter):
    """What the user can put right: shown without a traceback, exit status 2."""

    def format_message(self) -> str:
        """The message alone: it need not be about a value."""
        return self.message


@app.callback()
def main(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More log lines.")] = False,
) -> None:
    """Configure the log: lines on standard error, for workers their progress, else warnings only."""
    is_worker = context.invoked_subcommand in {"encode", "match", "sink", "outbox"}
    level = logging.INFO if verbose or is_worker else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("faust", "arroyo", "mode", "alembic"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.ERROR)
    for clients in ("aiokafka", "librdkafka"):  # dozens of lines a second while a broker is away
        logging.getLogger(clients).setLevel(logging.INFO if verbose else logging.CRITICAL)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"FACEMATCH_{str(problem['loc'][0]).upper()}: {' › '.join(map(str, problem['loc'][1:]))} {problem['msg']}"
            for problem in error.errors(include_input=False)
        )
        raise UserError(f"a setting is wrong: {problems}. `facematch settings` lists them all") from None


def _settings_with_key() -> Settings:
    """Those of whoever must not let an erased person come back."""
    from schemas.erased import ErasureKey, ErasureKeyError

    found = _settings()
    try:
        ErasureKey(found.erasure_key)
    except ErasureKeyError as error:
        raise UserError(str(error)) from None
    return found


def _shard(text: str | Shard) -> Shard:
    try:
        return Shard.parse(str(text))
    except ValueError as error:
        raise UserError(str(error)) from None


@contextmanager
def _servers_expected() -> Iterator[None]:
    """Turn a server that does not answer into an error that says what to do."""
    from confluent_kafka import KafkaException
    from redis.exceptions import ConnectionError as RedisConnectionError
    from sqlalchemy.exc import OperationalError, ProgrammingError

    hint = "is it running (`facematch up`), and are the addresses right (`facematch settings`)?"
    try:
        yield
    except OperationalError:
        raise UserError(f"Postgres does not answer: {hint}") from None
    except ProgrammingError:
        raise UserError("the tables are not there: `facematch setup` creates them") from None
    except KafkaException as error:
        raise UserError(f"Kafka does not answer ({error.args[0].str()}): {hint}") from None
    except RedisConnectionError:
        raise UserError(f"Redis does not answer: {hint}") from None


@app.command(rich_help_panel=TRY)
def demo(
    photos: Annotated[
        Path | None, typer.Option(help="A folder of your own photos.", exists=True, file_okay=False)
    ] = None,
) -> None:
    """The whole system on real servers and photos: start, submit, watch duplicates arrive, sum up, stop."""
    from deploy.demo import DemoFailedError, run_demo
    from producers.manifest import ManifestError

    console = Console()
    try:
        run_demo(console, _settings().data_folder, photos)
    except ManifestError as error:
        raise UserError(str(error)) from None
    except DemoFailedError as error:
        console.print(f"[bold red]failed:[/] {error}")
        raise typer.Exit(1) from None


@app.command(rich_help_panel=TRY)
def up() -> None:
    """Start servers and workers on this machine and keep them running; Ctrl-C stops them."""
    from deploy.local.stack import StackBusyError
    from deploy.local.up import run_up
    from deploy.schedule import Schedule, ScheduleError

    settings = _settings()
    try:
        Schedule.parse(settings.compact_at, settings.time_zone)
    except ScheduleError as error:
        raise UserError(f"FACEMATCH_COMPACT_AT or FACEMATCH_TIME_ZONE is wrong: {error}") from None
    try:
        run_up(Console(), settings.data_folder)
    except StackBusyError as error:
        raise UserError(f"{error}: stop it first, or use it as it is") from None


@app.command(rich_help_panel=TRY)
def down(
    erase: Annotated[bool, typer.Option("--erase", help="Remove all data of the local stack as well.")] = False,
) -> None:
    """Stop the stack that `facematch up` runs on this machine."""
    from deploy.local.stack import stop_running

    folder = _settings().data_folder
    stopped = stop_running(folder)
    typer.echo("stopped" if stopped else f"no stack is running in {folder}")
    if erase and folder.exists():
        shutil.rmtree(folder)
        typer.echo(f"erased {folder}")


@app.command(rich_help_panel=PRODUCE)
def submit(
    paths: Annotated[
        list[Path], typer.Argument(help="Photos, folders of photos, .csv and .jsonl files.", metavar="PATH…")
    ],
    collection: Annotated[str, typer.Option(help="Of those that name none themselves.")] = "default",
    inline: Annotated[bool, typer.Option("--inline", help="Send the photos inside the events.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until what is not acknowledged has failed.")] = 60.0,
) -> None:
    """Register individuals: publish each with its photo, and say what Kafka acknowledged.

    Lists have the columns individual_id and photo (a URI, or a path from where the list is), and may have
    collection, revision (1) and detector (hog, cnn); any further column is kept as an attribute.
    """
    from producers.manifest import ManifestError, read_paths
    from producers.submit import submit as publish

    console = Console(stderr=True)
    try:
        entries = list(read_paths(paths, collection))
    except ManifestError as error:
        raise UserError(str(error)) from None
    with _servers_expected(), console.status("") as status:
        count = 0

        def advance() -> None:
            nonlocal count
            count += 1
            status.update(f"{count} of {len(entries)}")

        report = publish(_settings(), entries, inline, timeout, advance)
    typer.echo(f"{report.acknowledged} of {len(entries)} registrations acknowledged")
    for name, problem in report.failed:
        typer.echo(f"not submitted: {name}: {problem}", err=True)
    if report.failed:
        raise typer.Exit(1)


@app.command(rich_help_panel=SEE)
def status() -> None:
    """Individuals by state, pairs, what the matchers hold, how far each consumer group is behind, and the outbox."""
    from deploy.report import print_status

    with _servers_expected():
        print_status(Console(), _settings())


@app.command(rich_help_panel=SEE)
def duplicates(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones as they arrive.")] = False,
    collection: Collection = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    decided: Annotated[bool, typer.Option("--decided", help="Those too on which a reviewer has decided.")] = False,
) -> None:
    """Pairs of registrations that look like the same person: candidates for review, never verdicts."""
    from deploy.report import print_duplicates

    with _servers_expected():
        print_duplicates(Console(), _settings(), collection, follow, as_json, decided)


@app.command(rich_help_panel=SEE)
def certificates(
    collection: Collection = None,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """What each compaction found and built: people, recall, pairs put right, the checksum of the index."""
    from deploy.certificates import print_certificates

    with _servers_expected():
        print_certificates(Console(), _settings(), collection, limit, as_json)


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
    from deploy.decision import UnknownPairError
    from deploy.decision import decide as publish

    try:
        pair_id = str(UUID(pair))
    except ValueError:
        raise UserError(f"{pair}: a pair's id is a UUID; `facematch duplicates` shows them") from None
    try:
        with _servers_expected():
            event = publish(_settings(), pair_id, verdict, by, note)
    except UnknownPairError:
        raise UserError(f"no pair {pair_id} was ever found; `facematch duplicates` shows their ids") from None
    except ValidationError as error:
        raise UserError("; ".join(f"--{one['loc'][0]}: {one['msg']}" for one in error.errors())) from None
    what = "one person" if verdict == "same" else "two people"
    typer.echo(f"decided: {event.a} and {event.b} in {event.collection} are {what}")


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
    from deploy.erasure import Erasure, StalledErasureError, UnknownIndividualError, print_receipt

    console = Console()
    try:
        with _servers_expected(), console.status("") as status:
            receipt = Erasure(_settings_with_key(), collection, individual, status.update).erase(revision, timeout)
    except UnknownIndividualError:
        raise UserError(
            f"nobody of id {individual} is known in collection {collection}. If events about them may be under way or "
            "come again, say up to which revision they are to be erased: --revision"
        ) from None
    except StalledErasureError as error:
        console.print(f"[bold red]not finished:[/] the erasure is published, but {error}; then `facematch erased`")
        raise typer.Exit(1) from None
    print_receipt(console, receipt)


@app.command(rich_help_panel=SEE)
def erased(
    individual: Annotated[str, typer.Argument(help="The individual's id.", metavar="ID")],
    collection: Annotated[str, typer.Option(help="The collection that the individual was in.")] = "default",
) -> None:
    """Whether an individual was erased: the receipt, with what is there now."""
    from deploy.erasure import Erasure, NotErasedError, print_receipt

    console = Console()
    try:
        with _servers_expected(), console.status("") as status:
            receipt = Erasure(_settings_with_key(), collection, individual, status.update).again()
    except NotErasedError:
        typer.echo(f"nobody of id {individual} was erased from collection {collection}")
        raise typer.Exit(1) from None
    print_receipt(console, receipt)


@app.command(rich_help_panel=OPERATE)
def settings() -> None:
    """Every setting: its environment variable, its value here, what it means."""
    from deploy.report import print_settings

    print_settings(Console(), _settings())


@app.command(rich_help_panel=OPERATE)
def setup() -> None:
    """Create the topics and tables that are not there yet; workers wait for them."""
    from deploy.tables import create_tables
    from deploy.topics import create_topics

    with _servers_expected():
        create_topics(_settings())
        create_tables(_settings())
    typer.echo("topics and tables are there")


@app.command(rich_help_panel=OPERATE)
def compact(
    collection: Collection = None,
    encoder: Annotated[str | None, typer.Option(help="Only embeddings of this encoder.")] = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            parser=_shard, metavar="NUMBER/COUNT", help="Only this shard. Default: all that matchers speak of."
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
) -> None:
    """Build the index of every collection anew from the log alone, put its pairs right, and certify it.

    The matchers take the index up without stopping.
    """
    from deploy.compact import UnknownEncoderError, run_compaction
    from deploy.schedule import Schedule, ScheduleError, keep
    from schemas.stopping import stop_in_any_case
    from streams.compactor import Plan, UnknownCollectionError

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
        logging.getLogger().setLevel(logging.INFO)  # a worker like the others
        keep(_ready(tables=False), when, threads)
        return
    plan = Plan(collection, encoder, dry_run, threshold, recall_floor)
    os.nice(10)  # whatever else runs on the machine goes first
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stop_in_any_case()
        stopping.set()  # so that the lease is given back

    signal.signal(signal.SIGTERM, stop)
    try:
        with _servers_expected():
            is_done = run_compaction(Console(), _settings_with_key(), plan, shard, threads, stopping)
    except UnknownCollectionError as error:
        raise UserError(f"nobody was ever registered in collection {error}; `facematch status` lists them") from None
    except UnknownEncoderError as error:
        where = f"in collection {collection}" if collection else "anywhere"
        raise UserError(f"nobody has an embedding of encoder {error} {where}; `facematch status` lists them") from None
    if not is_done:
        raise typer.Exit(1)


@app.command(rich_help_panel=WORK)
def encode(
    pool: Annotated[
        Literal["cpu", "gpu"], typer.Option(help="cpu: finds faces by HOG; gpu: by CNN, what the CPU pool could not.")
    ],
) -> None:
    """An encoder: photo → face → embedding. Start as many as there is work for."""
    from consumers.encoder import run
    from consumers.encoder_process import Pool

    run(_ready(tables=False), Pool(pool))


encoder = typer.Typer(no_args_is_help=True)
app.add_typer(
    encoder,
    name="encoder",
    rich_help_panel=OPERATE,
    help="`encoder verify` compares the encoder with face_recognition.",
)


@encoder.callback()
def _encoder() -> None:
    """What turns photos into embeddings."""


@encoder.command()
def verify(
    photos: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="A folder of photos, each of its subfolders one person. Default: the demo's photos."
        ),
    ] = None,
) -> None:
    """Compare the encoder with the face_recognition package; exit status 1 beyond its limits."""
    from deploy.photos import fetch_demo_photos
    from deploy.verify import verify as run
    from producers.manifest import photos_in

    found = _settings()
    folder = photos or fetch_demo_photos(found.data_folder / "photos")
    if not folder.is_dir() or not photos_in(folder):
        raise UserError(f"{folder}: no folder with photos in it")
    try:
        good = run(Console(), found, folder)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is the reference, and not installed: pip install 'facematch[dev]'") from None
    raise typer.Exit(0 if good else 1)


@app.command(rich_help_panel=WORK)
def match(
    shard: Annotated[
        Shard,
        typer.Option(
            parser=_shard,
            metavar="NUMBER/COUNT",
            help="Which of several matchers this is, for more vectors than one holds: 1/8, 2/8 … 8/8, all of them.",
        ),
    ] = Shard(),
) -> None:
    """The matcher: compares every new embedding with all before it."""
    # OpenBLAS reads it when numpy is loaded. Its threads spin while they wait for each other, on cores that are needed.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from streams.matcher import run

    run(_ready(tables=False), shard)


@app.command(rich_help_panel=WORK)
def sink() -> None:
    """The sink: writes individuals, rejections and duplicates into Postgres."""
    from consumers.sink import run

    run(_ready(tables=True))


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

    from deploy.outbox import wait_for_outbox
    from producers.outbox import run
    from producers.outbox_table import create_outbox

    if create:
        with _servers_expected():
            try:
                create_outbox(_settings())
            except ProgrammingError as error:
                raise UserError(f"Postgres refuses to create the outbox: {error.orig}") from None
        typer.echo("the outbox table is there")
        return
    found = _ready(tables=False)
    wait_for_outbox(found)
    run(found)


def _ready(tables: bool) -> Settings:
    """The settings, once the topics are there, and for who writes to them the tables."""
    from deploy.topics import wait_for_topics

    found = _settings_with_key()
    wait_for_topics(found)
    if tables:
        from deploy.tables import wait_for_tables

        wait_for_tables(found)
    return found


if __name__ == "__main__":
    app()
