"""What `facematch status` prints."""

from datetime import UTC, datetime
from itertools import islice

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.views.individuals import count_conflicting, count_states
from consumers.views.pairs import count_different, count_pairs
from deploy.letters.report import print_open_letters
from deploy.local.targets import ask_targets
from deploy.setup.topics import WrongTopicsError, check_topics
from deploy.status.candidates import too_many_strangers
from deploy.status.outbox import print_outbox
from deploy.status.workers import GalleryStatus, galleries, lags
from runtime.servers.postgres import reading_engine
from schemas.settings import Settings
from schemas.shard import Shard

_SILENT_S = 60  # a matcher writes its vitals every few seconds
LARGEST = 20  # collections that are shown
_STATES = ("registered", "encoded", "checked", "rejected", "erased")


def print_status(console: Console, settings: Settings, everything: bool = False) -> None:
    """Print individuals and pairs of each collection, galleries, the lag of each group, dead letters, the outbox.

    Of the LARGEST collections, and of the others the sums, unless `everything` is asked for.
    """
    largest = None if everything else LARGEST
    engine = reading_engine(settings)
    with engine.connect() as connection:
        counts = count_states(connection)
        pairs = count_pairs(connection)
        conflicting = count_conflicting(connection)
        different = count_different(connection)
    _print_individuals(console, counts, pairs, largest)
    for collection, count in islice(conflicting.items(), largest):
        console.print(
            f"[red]{escape(collection)}: {count} registered with different contents at one revision, "
            "see `facematch conflicts`[/]"
        )
    _print_topics(console, settings)
    held = galleries(settings)
    _print_galleries(console, held, largest)
    for line in too_many_strangers(held, different):
        console.print(f"[bold red]too many strangers:[/] {escape(line)}", soft_wrap=True)
    groups = Table("consumer group", "behind by", "oldest unprocessed", title="workers", title_justify="left")
    found = lags(settings)
    for lag in found:
        age = "-" if lag.oldest_age_s is None else f"{lag.oldest_age_s:.0f} s ago"
        groups.add_row(lag.group, str(lag.records), age)
    console.print(groups)
    for lag in found:
        if lag.removed:
            console.print(
                f"[bold red]removed unread:[/] {lag.removed} records that {lag.group} has not read and never will; "
                "see docs/runbook.md, Records removed",
                soft_wrap=True,
            )
    print_open_letters(console, settings)
    print_outbox(console, settings)
    _print_workers(console, settings)


def _print_individuals(
    console: Console, counts: dict[str, dict[str, int]], pairs: dict[str, tuple[int, int]], largest: int | None
) -> None:
    table = Table(title="individuals", title_justify="left", padding=(0, 0))
    table.add_column("collection", overflow="fold")
    for name in (*_STATES, "to review", "decided"):  # whole on a terminal of 80 columns
        table.add_column(name, no_wrap=name != "to review", justify="right")
    rows = {
        collection: (*(by_state.get(state, 0) for state in _STATES), *pairs.get(collection, (0, 0)))
        for collection, by_state in counts.items()
    }
    by_size = sorted(rows, key=lambda collection: sum(rows[collection]), reverse=True)
    for collection in sorted(by_size[:largest]):
        table.add_row(escape(collection), *map(str, rows[collection]))
    if largest is not None and (others := by_size[largest:]):
        sums = map(sum, zip(*(rows[collection] for collection in others), strict=True))
        table.add_row(f"[dim]{len(others)} others: --all[/]", *map(str, sums))
    console.print(table)


def _print_topics(console: Console, settings: Settings) -> None:
    """What is wrong with the topics, if anything. Raises MissingTopicsError."""
    try:
        check_topics(settings)
    except WrongTopicsError as error:
        console.print(f"[bold red]topics are wrong:[/] {escape(str(error))}", soft_wrap=True)


def _print_workers(console: Console, settings: Settings) -> None:
    table = Table("worker", "state", "metrics at", title="on this machine", title_justify="left")
    for one in ask_targets(settings.data_folder):
        table.add_row(one.worker, one.answer, f"{one.url}/metrics")
    if table.row_count:
        console.print(table)


def _print_galleries(console: Console, found: list[GalleryStatus], largest: int | None) -> None:
    if largest is not None and len(found) > largest:
        shown = {id(one) for one in sorted(found, key=lambda one: one.vitals.people, reverse=True)[:largest]}
        left_out, found = len(found) - largest, [one for one in found if id(one) in shown]
    else:
        left_out = 0
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
        name += f"\n[dim]threshold {vitals.threshold or 'none'}[/]"
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
    if left_out:
        console.print(f"and {left_out} smaller galleries: facematch status --all")
