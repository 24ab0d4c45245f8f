"""What all commands share: the application, its log, settings, and errors that say what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from typer.core import TyperCommand

from deploy.commands.disk import disk_problem
from deploy.terminal import harmless
from runtime.telemetry import logs
from schemas.faults import UserFault
from schemas.settings import LogFormat, Settings
from schemas.shard import Shard

F = TypeVar("F", bound=Callable[..., Any])


class UserError(typer.BadParameter):
    """What the user can put right: shown without a traceback, exit status 2."""

    def __init__(self, message: str, ctx: Any = None) -> None:
        super().__init__(harmless(message), ctx)

    def format_message(self) -> str:
        """The message alone: it need not be about a value."""
        return self.message


class Command(TyperCommand):
    """A command that shows the text of a UserFault as its own error; a disk that is full or closed is one, too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserFault as fault:
            raise UserError(str(fault), ctx) from None
        except OSError as error:
            if problem := disk_problem(error):
                raise UserError(problem, ctx) from None
            raise


class Application(typer.Typer):
    """Commands, or a group of them, whose UserFaults are shown without a traceback."""

    def command(self, *arguments: Any, **options: Any) -> Callable[[F], F]:
        """See typer.Typer."""
        return super().command(*arguments, cls=Command, **options)


app = Application(
    help="Finds the same person registered twice: photos go in as events, candidates for review come out in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # they may hold photos or embeddings
)
TRY, PRODUCE, SEE, OPERATE, WORK = "Try it", "Put individuals in", "See what came out", "Run it", "The workers"

Collection = Annotated[str | None, typer.Option(help="Only this collection.")]


@app.callback()
def main(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="More log lines: of workers one for each individual.")
    ] = False,
) -> None:
    """Configure the log: lines on standard error, warnings only until a worker begins."""
    logs.configure(logs.LogStyle(_chosen_format(), verbose=verbose))


def _chosen_format() -> LogFormat | None:
    try:
        return Settings().log
    except (ValidationError, SettingsError, UserFault):
        return None  # whatever is wrong with the settings, the command reports it


def read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(_problem(one["loc"], one["msg"]) for one in error.errors(include_input=False))
        raise UserError(f"a setting is wrong: {problems}. `facematch settings` lists them all") from None
    except SettingsError as error:
        raise UserError(f'a setting is wrong: {error}. Lists and tables are JSON: ["a", "b"], {{"a": 1}}') from None


def _problem(where: tuple[int | str, ...], what: str) -> str:
    what = what.removeprefix("Value error, ")
    if not where:  # of several settings, which the text names
        return what
    return " ".join(filter(None, (f"FACEMATCH_{str(where[0]).upper()}:", " › ".join(map(str, where[1:])), what)))


def settings_with_key() -> Settings:
    """Settings with the erasure key: without it erased people would come back."""
    from schemas.erased import ErasureKey

    found = read_settings()
    ErasureKey(found.erasure_key)
    return found


def parse_shard(text: str | Shard) -> Shard:
    try:
        return Shard.parse(str(text))
    except ValueError as error:
        raise UserError(str(error)) from None


@contextmanager
def servers_expected() -> Iterator[None]:
    """Turn a server that does not answer, or refuses, into an error that says what to do."""
    from confluent_kafka import KafkaException
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import NoPermissionError
    from redis.exceptions import TimeoutError as RedisTimeoutError
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from runtime.servers.postgres import is_too_slow, postgres_url
    from runtime.servers.publisher import PublishError
    from runtime.servers.refusals import refused_by_kafka, refused_by_postgres, refused_by_redis

    hint = "is it running (`facematch up`), and are the addresses right (`facematch settings`)?"
    try:
        yield
    except (OperationalError, ProgrammingError) as error:
        found = read_settings()
        if is_too_slow(error):
            raise UserError("Postgres is slow, or something is locked: see Postgres slow in docs/runbook.md") from None
        refusal = refused_by_postgres(postgres_url(found), error, found.postgres_ca)
        if refusal is None and isinstance(error, ProgrammingError):
            raise UserError("the tables are not there: `facematch setup` creates them") from None
        raise UserError(str(refusal or f"Postgres does not answer: {hint}")) from None
    except KafkaException as error:
        refusal = refused_by_kafka(read_settings(), error.args[0])
        raise UserError(str(refusal or f"Kafka does not answer ({error.args[0].str()}): {hint}")) from None
    except PublishError as error:
        raise UserError(f"{error}. If it is a right that is missing, see `facematch grants`") from None
    except (RedisConnectionError, RedisTimeoutError, NoPermissionError) as error:
        refusal = refused_by_redis(read_settings(), error)
        raise UserError(str(refusal or f"Redis does not answer: {hint}")) from None


def kafka_expected(found: Settings, may_be_away: bool = False) -> Settings:
    """The settings, if the broker answers and nobody refuses: clients would wait. Within `servers_expected`."""
    from confluent_kafka import KafkaException

    from runtime.servers.refusals import ask_kafka

    try:
        ask_kafka(found, times=1 if may_be_away else 5)
    except KafkaException:
        if not may_be_away:
            raise
    return found


def topics_expected(found: Settings) -> Settings:
    """The settings, if besides all topics are there as they must be. Within `servers_expected`."""
    from deploy.setup.topics import check_topics

    check_topics(kafka_expected(found))
    return found


def ready(worker: str, tables: bool = False, redis: bool = False) -> Settings:
    """Settings of a worker, once the topics are there, and the tables and Redis where it needs them.

    Before it waits, the worker begins to serve health and metrics, if FACEMATCH_METRICS is set, and to watch its loop:
    one that hangs ends the process.
    """
    from deploy.setup.database import wait_for_claim
    from deploy.setup.tables import wait_for_tables
    from deploy.setup.topics import wait_for_topics
    from deploy.setup.waiting import wait_for_redis
    from runtime.process.watchdog import end_when_hung
    from runtime.telemetry.serving import serve

    found = settings_with_key()
    logs.become_worker(worker, found.namespace)
    end_when_hung()
    if found.http is not None:
        serve(found.http, worker)
    wait_for_topics(found)
    if redis:
        wait_for_redis(found)
    if tables:
        wait_for_tables(found)
        wait_for_claim(found, f"{worker}-claim")
    return found
