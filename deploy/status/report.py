"""What `facematch status` prints."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.views.individuals import count_conflicting, count_states
from consumers.views.pairs import count_pairs
from deploy.letters.report import print_open_letters
from deploy.local.targets import ask_targets
from deploy.setup.topics import WrongTopicsError, check_topics
from deploy.status.outbox import print_outbox
from deploy.status.workers import GalleryStatus, galleries, lags
from runtime.servers.postgres import postgres_engine
from schemas.settings import Settings
from schemas.shard import Shard

_SILENT_S = 60  # a matcher writes its vitals every few seconds
_STATES = ("registered", "encoded", "checked", "rejected", "erased")


def print_status(console: Console, settings: Settings) -> None:
    """Print individuals and pairs of each collection, galleries, the lag of each group, dead letters, the outbox."""
    engine = postgres_engine(settings)
    with engine.connect() as connection:
        counts = count_states(connection)
        pairs = count_pairs(connection)
        conflicting = count_conflicting(connection)
    columns = (*_STATES, "to review", "decided")  # whole on a terminal of 80 columns
    collections = Table(title="individuals", title_justify="left", padding=(0, 0))
    collections.add_column("collection", overflow="fold")
    for name in columns:
        collections.add_column(name, no_wrap=name != "to review", justify="right")
    for collection, by_state in counts.items():
        numbers = [*(by_state.get(state, 0) for state in _STATES), *pairs.get(collection, (0, 0))]
        collections.add_row(escape(collection), *(str(number) for number in numbers))
    console.print(collections)
    for collection, count in conflicting.items():
        console.print(
            f"[red]{escape(collection)}: {count} registered with different contents at one revision, "
            "see `facematch conflicts`[/]"
        )
    _print_topics(console, settings)
    _print_galleries(console, galleries(settings))
    groups = Table("consumer group", "behind by", "oldest unprocessed", title="workers", title_justify="left")
    for lag in lags(settings):
        age = "-" if lag.oldest_age_s is None else f"{lag.oldest_age_s:.0f} s ago"
        groups.add_row(lag.group, str(lag.records), age)
    console.print(groups)
    print_open_letters(console, settings)
    print_outbox(console, settings)
    _print_workers(console, settings)


def _print_topics(console: Console, settings: Settings) -> None:
    """What is wrong with the topics, if anything. Raises MissingTopicsError."""
    try:
        check_topics(settings)
    except WrongTopicsError as error:
        console.print(f"[bold red]topics are wrong:[/] {escape(str(error))}", soft_wrap=True)


def _print_workers(console: Console, settings: Settings) -> None:
    table = Table("worker", "says", "metrics at", title="on this machine", title_justify="left")
    for one in ask_targets(settings.data_folder):
        table.add_row(one.worker, one.answer, f"{one.url}/metrics")
    if table.row_count:
        console.print(table)


def _print_galleries(console: Console, found: list[GalleryStatus]) -> None:
    table = Table(title="galleries", title_justify="left")
    segments = Table(title="segments", title_justify="left")
    for one in (table, segments):
        one.add_column("collection", overflow="fold")
    for name in ("people", "segments", "delta", "matched offset", "lag", "last compacted"):
        table.add_column(name)
    for name in ("rows", "recall", "M", "ef_construction", "ef"):
        segments.add_column(name)
    for gallery in found:
        vitals = gallery.vitals
        age = (datetime.now(UTC) - gallery.at).total_seconds()
        name = f"{vitals.collection}\n[dim]{vitals.encoder}[/]"
        if gallery.shard != str(Shard()):
            name += f"\n[dim]shard {gallery.shard}[/]"
        if age > _SILENT_S:
            name += f"\n[red]its matcher has not reported for {age:.0f} s[/]"
        table.add_row(
            name,
            str(vitals.people),
            str(len(vitals.segments)),
            str(vitals.delta),
            str(gallery.matched),
            str(gallery.lag),
            f"{vitals.compacted_at:%Y-%m-%d %H:%M}" if vitals.compacted_at else "never",
        )
        for segment in vitals.segments:
            quality = segment.quality
            numbers = (segment.rows, f"{quality.recall:.4f}", quality.m, quality.ef_construction, quality.ef)
            segments.add_row(name.partition("\n[red]")[0], *map(str, numbers))
    console.print(table)
    if segments.row_count:
        console.print(segments)
