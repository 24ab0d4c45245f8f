"""What `facematch status`, `duplicates` and `settings` print."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.letter_report import print_open_letters
from deploy.local.targets import ask_targets
from deploy.outbox import print_outbox
from deploy.queries import Gallery, Pair, count_pairs, count_states, current_pairs, follow_pairs, galleries, lags
from deploy.topics import check_topics
from schemas.postgres import postgres_engine
from schemas.settings import SECRETS, SECRETS_FOLDER, Settings, secrets_folder
from schemas.shard import Shard

_SILENT_S = 60  # a matcher speaks every few seconds
_STATES = ("registered", "encoded", "checked", "rejected", "erased")


def print_status(console: Console, settings: Settings) -> None:
    """Individuals of each collection by state, what matchers hold, each group's lag, dead letters, the outbox."""
    engine = postgres_engine(settings)
    with engine.connect() as connection:
        counts = count_states(connection)
        pairs = count_pairs(connection)
    columns = (*_STATES, "to review", "decided")  # whole on a terminal of 80 columns
    collections = Table(title="individuals", title_justify="left", padding=(0, 0))
    collections.add_column("collection", overflow="fold")
    for name in columns:
        collections.add_column(name, no_wrap=name != "to review", justify="right")
    for collection, by_state in counts.items():
        numbers = [*(by_state.get(state, 0) for state in _STATES), *pairs.get(collection, (0, 0))]
        collections.add_row(escape(collection), *(str(number) for number in numbers))
    console.print(collections)
    check_topics(settings)
    _print_galleries(console, galleries(settings))
    groups = Table("consumer group", "behind by", "oldest unprocessed", title="workers", title_justify="left")
    for lag in lags(settings):
        age = "-" if lag.oldest_age_s is None else f"{lag.oldest_age_s:.0f} s ago"
        groups.add_row(lag.group, str(lag.records), age)
    console.print(groups)
    print_open_letters(console, settings)
    print_outbox(console, settings)
    _print_workers(console, settings)


def _print_workers(console: Console, settings: Settings) -> None:
    table = Table("worker", "says", "metrics at", title="on this machine", title_justify="left")
    for one in ask_targets(settings.data_folder):
        table.add_row(one.worker, one.answer, f"{one.url}/metrics")
    if table.row_count:
        console.print(table)


def _print_galleries(console: Console, found: list[Gallery]) -> None:
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
            name += f"\n[red]no word of its matcher for {age:.0f} s[/]"
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


def print_duplicates(
    console: Console, settings: Settings, collection: str | None, follow: bool, as_json: bool, decided: bool
) -> None:
    """Pairs as a table, or a line each while following or as JSON; those on which somebody decided if asked for."""
    engine = postgres_engine(settings)
    with engine.connect() as connection:
        if follow:
            for new in follow_pairs(connection, collection):
                if new is not None:
                    console.print(_json(new) if as_json else _line(new), soft_wrap=True, highlight=False, markup=False)
        pairs = current_pairs(connection, collection, decided=decided)
    if as_json:
        for pair in pairs:
            console.print(_json(pair), soft_wrap=True, highlight=False, markup=False)
        return
    table = Table("pair", "distance", "recorded", title="duplicates", title_justify="left")
    table.columns[0].overflow = "fold"
    for name in ("individual", "looks like"):
        table.add_column(name, overflow="fold")
    for pair in pairs:
        recorded = f"{pair.recorded_at:%Y-%m-%d %H:%M:%S}"
        sides = ((pair.individual_a, pair.photo_a), (pair.individual_b, pair.photo_b))
        cells = (f"{escape(who)}\n[dim]{escape(str(photo))}[/]" for who, photo in sides)
        name = f"{escape(pair.collection)}\n[dim]{pair.pair_id}[/]"
        if pair.verdict is not None:
            name += f"\n[bold]{pair.verdict}[/], says {escape(str(pair.decided_by))}"
        table.add_row(name, f"{pair.distance:.3f}", recorded, *cells)
    console.print(table)
    of_whom = "" if decided else " on which nobody has decided"
    console.print(f"{len(pairs)} pairs{of_whom}: candidates for a person to review, never verdicts")


def print_settings(console: Console, settings: Settings) -> None:
    """A table of all settings, without the secrets, and where they may come from."""
    table = Table("environment variable and value", "meaning", show_lines=True)
    table.columns[0].overflow = "fold"
    for name, field in Settings.model_fields.items():
        value = escape(settings.shown(name))
        table.add_row(f"FACEMATCH_{name.upper()}\n[bold]{value}[/]", escape(field.description or ""))
    console.print(table)
    folder = secrets_folder()
    console.print(
        f"Each may come from a file instead, facematch_<setting> (facematch_kafka_password, say), in the folder that "
        f"{SECRETS} names; unset: {SECRETS_FOLDER}, if it is there. Read now: {folder or 'none'}.",
        soft_wrap=True,
        highlight=False,
    )


def _line(pair: Pair) -> str:
    return (
        f"{pair.collection}: {pair.individual_a} = {pair.individual_b}, distance {pair.distance:.3f} "
        f"({pair.photo_a}, {pair.photo_b})"
    )


def _json(pair: Pair) -> str:
    return json.dumps({**asdict(pair), "recorded_at": pair.recorded_at.isoformat()}, ensure_ascii=False)
