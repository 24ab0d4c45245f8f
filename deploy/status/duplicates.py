"""What `facematch duplicates` prints."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.views.pairs import CurrentPair, PairSelection, current_pairs, follow_pairs
from runtime.servers.postgres import reading_engine
from schemas.settings import Settings


def print_duplicates(console: Console, settings: Settings, which: PairSelection, follow: bool, as_json: bool) -> None:
    """Print current pairs as a table, or as JSON; a line each while following, when all of a collection are shown."""
    engine = reading_engine(settings)
    with engine.connect() as connection:
        if follow:
            for new in follow_pairs(connection, which.collection):
                if new is not None:
                    console.print(_json(new) if as_json else _line(new), soft_wrap=True, highlight=False, markup=False)
        pairs = current_pairs(connection, which)
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
    of_whom = "" if which.decided else " on which nobody has decided"
    console.print(f"{len(pairs)} pairs{of_whom}: candidates for a person to review, never verdicts")


def _line(pair: CurrentPair) -> str:
    return (
        f"{pair.collection}: {pair.individual_a} = {pair.individual_b}, distance {pair.distance:.3f} "
        f"({pair.photo_a}, {pair.photo_b})"
    )


def _json(pair: CurrentPair) -> str:
    return json.dumps({**asdict(pair), "recorded_at": pair.recorded_at.isoformat()}, ensure_ascii=False)
