"""What `facematch status` prints of the outbox: how many rows wait, and which have a problem."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import OperationalError

from deploy.printable import printable
from producers.outbox.table import counts, has_outbox, outbox_engine
from schemas.settings import Settings

_LATEST = 10
_MARKED = text("""
    SELECT position, left(key, 100) AS key, problem FROM facematch_outbox
    WHERE problem IS NOT NULL ORDER BY position DESC LIMIT :latest
""")


def print_outbox(console: Console, settings: Settings) -> None:
    """Print how many rows wait and which are marked with a problem; nothing where there is no outbox."""
    try:
        with outbox_engine(settings).connect() as connection:
            if has_outbox(connection):
                _print(console, connection)
    except OperationalError:
        console.print("[red]the Postgres database that has the outbox does not answer[/]")


def _print(console: Console, connection: Connection) -> None:
    found = counts(connection)
    table = Table("rows waiting", "oldest", "rows with a problem", title="outbox", title_justify="left")
    oldest = "-" if found.oldest_age_s is None else f"{found.oldest_age_s:.0f} s ago"
    table.add_row(str(found.waiting), oldest, str(found.marked))
    console.print(table)
    if found.marked:
        _print_marked(console, connection.execute(_MARKED, {"latest": _LATEST}).all())


def _print_marked(console: Console, rows: Sequence[Row[tuple[int, str, str]]]) -> None:
    table = Table("position", title=f"rows with a problem, the latest {_LATEST} at most", title_justify="left")
    for name in ("individual", "problem"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(str(row.position), printable(row.key), printable(row.problem))
    console.print(table)
