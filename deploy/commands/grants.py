"""`facematch grants`: who needs what of the servers."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from deploy.commands.app import OPERATE, app, read_settings
from deploy.terminal import Terminal
from schemas.settings import Settings

if TYPE_CHECKING:
    from deploy.access.roles import Role

_HOW = {
    "kafka": """\
    facematch grants kafka | sh -s -- --bootstrap-server HOST:PORT --command-config admin.properties
Then each user's password, on a machine whose process list nobody else sees:
    kafka-configs.sh --bootstrap-server HOST:PORT --command-config admin.properties --alter \\
        --entity-type users --entity-name USER --add-config 'SCRAM-SHA-512=[password=PASSWORD]'""",
    "postgres": """\
    facematch grants postgres | psql -v ON_ERROR_STOP=1 -h HOST -U SUPERUSER postgres
once before `facematch setup` and once after it, and after every upgrade. A user without a password cannot log in:
    psql -h HOST -U SUPERUSER -c '\\password USER' postgres""",
    "outbox": """\
    facematch grants outbox | psql -v ON_ERROR_STOP=1 -h HOST -U OWNER postgres
once producers/outbox/outbox.sql has made the table.
A user without a password cannot log in: '\\password USER', as above.""",
    "redis": """\
    facematch grants redis | REDISCLI_AUTH=$(cat PASSWORD-FILE) redis-cli -h HOST --user ADMIN
Then each user's password, and have the server keep them (ACL SAVE, or CONFIG REWRITE):
    ACL SETUSER USER >PASSWORD
The user that needs no password must be off: ACL SETUSER default off""",
}


@app.command(rich_help_panel=OPERATE)
def grants(
    server: Annotated[
        Literal["kafka", "postgres", "outbox", "redis"] | None,
        typer.Argument(
            metavar="[SERVER]",
            help="What is to be run at kafka, postgres, redis, or outbox: the registration system's Postgres.",
        ),
    ] = None,
) -> None:
    """Which users there are, and the least that each must be allowed; of a server, as commands for its own tool.

    The commands go to standard output, how to run them to standard error. No password is in them: whoever administers
    the server sets those, and workers read them from files.
    """
    from deploy.access import grants as of

    settings = read_settings()
    lines: dict[str, Callable[[Settings], Iterator[str]]] = {
        "kafka": of.kafka_lines,
        "postgres": of.postgres_lines,
        "outbox": of.outbox_lines,
        "redis": of.redis_lines,
    }
    if server is None:
        _print_users(settings)
        return
    for line in lines[server](settings):
        Terminal().plain(line)
    Terminal(stderr=True).plain(f"Run it so:\n{_HOW[server]}")


def _print_users(settings: Settings) -> None:
    from deploy.access.roles import ROLES, user_of

    table = Table(title="users", title_justify="left", show_lines=True)
    table.add_column("user, and what runs as it", overflow="fold")
    table.add_column("needs", overflow="fold")
    for role in ROLES:
        table.add_row(f"[bold]{user_of(settings, role)}[/]\n{role.uses.replace('`', '')}", "\n".join(_needs(role)))
    console = Terminal()
    console.print(table)
    console.print(
        "Exactly, and ready to be run: facematch grants kafka, postgres, outbox, redis. Whoever runs facematch says as "
        "whom by FACEMATCH_KAFKA_USER, FACEMATCH_POSTGRES_USER and FACEMATCH_REDIS_USER.",
        soft_wrap=True,
        highlight=False,
    )


def _needs(role: "Role") -> Iterator[str]:
    if role.creates:
        yield "Kafka: creates topics"
    for what, topics in (("reads", role.reads), ("writes", role.writes)):
        if topics:
            yield f"Kafka: {what} {', '.join(topic.name for topic in topics)}"
    if role.sees_groups:
        yield "Kafka: sees how far consumer groups are"
    if role.owns:
        yield "Postgres: creates tables"
    for where, privileges in (("Postgres", role.tables), ("outbox", role.outbox)):
        alike = defaultdict(list)
        for table, rights in privileges.items():
            alike[rights].append(table)
        for rights, tables in alike.items():
            yield f"{where}: {', '.join(rights).lower()} on {', '.join(tables)}"
    for what, keys in (("writes", role.keys), ("reads", role.keys_read)):
        if keys:
            yield f"Redis: {what} {', '.join(key.rpartition('}:')[2] for key in keys)}"
