"""What `facematch conflicts` prints."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.views.individuals import conflicting_individuals
from runtime.servers.postgres import postgres_engine
from schemas.settings import Settings


def print_conflicts(console: Console, settings: Settings, collection: str | None, limit: int, as_json: bool) -> None:
    """Print whose latest revision was registered with more than one content: as a table, or JSON lines."""
    with postgres_engine(settings).connect() as connection:
        found = conflicting_individuals(connection, collection, limit)
    if as_json:
        for one in found:
            text = json.dumps(asdict(one), ensure_ascii=False)
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        return
    table = Table("collection", title="conflicting registrations", title_justify="left")
    table.add_column("individual", overflow="fold")
    table.add_column("revision", justify="right")
    table.add_column("photo that counts", overflow="fold")
    for one in found:
        table.add_row(escape(one.collection), escape(one.individual_id), str(one.revision), escape(one.photo))
    console.print(table)
    console.print("each was registered with different contents at one revision: register them again under a higher one")
