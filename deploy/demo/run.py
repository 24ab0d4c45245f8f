"""`facematch demo`: the whole system, from photos to duplicates in Postgres, on a stack of its own or a running one."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sqlalchemy import select, text
from sqlalchemy.engine import Connection

from consumers.views.individuals import count_states
from consumers.views.pairs import CurrentPair, PairSelection, current_pairs
from deploy.compaction.run import run_compaction
from deploy.demo.photos import fetch_demo_photos, pairs_to_find
from deploy.local.stack import Stack, StackBusyError, hold
from producers.submit.entries import Entry, read_paths
from producers.submit.publish import submit
from runtime.servers.postgres import postgres_engine
from schemas.settings import Settings
from schemas.tables import individual_duplicates
from streams.compaction.compactor import CompactionPlan

_PROCESSED = ("checked", "rejected")
_SHOWN = 20
_PATIENCE_S = 120.0  # without any progress


class DemoFailedError(Exception):
    """The demo did not show what it should. The text says what is missing."""


def run_demo(console: Console, folder: Path, photos: Path | None, encoder: str | None = None) -> None:
    """Submit photos, show each duplicate as it arrives in Postgres, sum up, compact. Raises DemoFailedError."""
    chosen = photos or fetch_demo_photos(folder / "photos")
    collection = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    entries = list(read_paths([chosen], collection))
    with _running_stack(console, folder, encoder) as settings:
        engine = postgres_engine(settings)
        with engine.connect() as connection:
            pairs = _submit_and_watch(console, settings, connection, entries, collection)
            _summary(console, connection, collection, len(entries), len(pairs))
            is_anyone_encoded = count_states(connection).get(collection, {}).get("checked", 0) > 0
        if is_anyone_encoded:
            _compact(console, settings, collection)
        engine.dispose()
    if photos is None:
        ids = [entry.registration.individual_id for entry in entries if entry.registration]
        missing = pairs_to_find(ids) - {(pair.individual_a, pair.individual_b) for pair in pairs}
        if missing:
            raise DemoFailedError(f"pairs of the same person that were not found: {sorted(missing)}")
    console.print(
        f"\nIts data stays in {folder}. Where to look next ([bold]source .venv/bin/activate[/] first):\n"
        "  [bold]facematch up[/]              servers and workers in the foreground; beside it, in another terminal:\n"
        "  [bold]facematch status[/]          individuals by state, how far each worker is, and where its metrics are\n"
        f"  [bold]facematch duplicates --collection {collection}[/]\n"
        "  [bold]facematch certificates[/]    what each compaction found\n"
        "Metrics: each worker serves them at an address of its own, which status shows and Prometheus reads in "
        f"{folder / 'targets.json'};\n"
        "deploy/monitoring/grafana/facematch.json is a board of them, "
        "deploy/monitoring/prometheus/alerts.yaml says when somebody must look.",
        soft_wrap=True,
        highlight=False,
    )


@contextmanager
def _running_stack(console: Console, folder: Path, encoder: str | None) -> Iterator[Settings]:
    """Settings of a stack with workers: the one that runs in the folder, or one for the time of the demo."""
    try:
        with hold(folder):
            (folder / "demo.log").touch(mode=0o600)
            log = (folder / "demo.log").open("a", buffering=1)
            stack = Stack(folder, lambda name, line: print(f"{name}: {line}", file=log))
            begun = time.monotonic()
            try:
                with console.status("") as status:
                    stack.start_servers(lambda doing: status.update(f"{doing} …"))
                    os.environ.update(stack.environment)
                    settings = Settings()
                    status.update("creating topics and tables, starting workers …")
                    chosen = stack.start_workers(settings, all_kinds=False, encoder=encoder)
                    stack.wait_for_workers(settings)
                console.print(
                    f"Kafka, PostgreSQL and Valkey run on 127.0.0.1, with {len(stack.workers)} workers; photos are "
                    f"encoded by {chosen} "
                    f"({time.monotonic() - begun:.0f} s; their log lines: {log.name})",
                    soft_wrap=True,
                )
                yield settings
            finally:
                stack.stop()
                log.close()
    except StackBusyError:
        console.print(f"Using the stack that is running in {folder}")
        yield Settings()


def _submit_and_watch(
    console: Console, settings: Settings, connection: Connection, entries: list[Entry], collection: str
) -> list[CurrentPair]:
    seen: dict[str, CurrentPair] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        submitted = progress.add_task("submitted", total=len(entries))
        processed = progress.add_task("processed", total=len(entries))
        report = submit(settings, entries, on_progress=lambda: progress.advance(submitted))
        if report.failed:
            raise DemoFailedError("not acknowledged: " + "; ".join(f"{name}: {why}" for name, why in report.failed))
        done, changed = 0, time.monotonic()
        while True:
            states = count_states(connection).get(collection, {})
            now_done = sum(states.get(state, 0) for state in _PROCESSED)
            for pair in current_pairs(connection, PairSelection(collection)):
                if pair.pair_id not in seen:
                    seen[pair.pair_id] = pair
                    progress.console.print(describe(pair), soft_wrap=True, highlight=False)
            connection.rollback()
            if now_done != done:
                done, changed = now_done, time.monotonic()
                progress.update(processed, completed=done)
            if done == len(entries):
                return list(seen.values())
            if time.monotonic() - changed > _PATIENCE_S:
                raise DemoFailedError(
                    f"{len(entries) - done} of {len(entries)} photos are not processed, and nothing moved for "
                    f"{_PATIENCE_S:.0f} s; the workers' log lines say why"
                )
            time.sleep(0.1)


def describe(pair: CurrentPair) -> str:
    """A pair, for people: the two individuals and their distance, their photos in a second line."""
    return (
        f"duplicate  [bold]{escape(pair.individual_a)}[/] looks like [bold]{escape(pair.individual_b)}[/], "
        f"distance {pair.distance:.3f}\n"
        f"           [dim]{escape(_short(pair.photo_a))}  {escape(_short(pair.photo_b))}[/]"
    )


def _short(uri: str | None) -> str:
    if uri is None or urlsplit(uri).scheme != "file":
        return str(uri)
    path = Path(unquote(urlsplit(uri).path))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _summary(console: Console, connection: Connection, collection: str, submitted: int, pairs: int) -> None:
    states = count_states(connection).get(collection, {})
    rejections = _rejections(connection, collection)
    table = Table(title=f"collection {collection}", show_header=False, title_justify="left")
    table.add_row("submitted", str(submitted))
    table.add_row("encoded and checked", str(states.get("checked", 0)))
    table.add_row("rejected", str(states.get("rejected", 0)))
    for reason, count in Counter(reason for _, reason, _ in rejections).items():
        table.add_row(f"  {reason}", str(count))
    table.add_row("pairs found", str(pairs))
    times = _times(connection, collection)
    if times is not None:
        table.add_row("submission → row in Postgres, p50", f"{times[0]:.2f} s")
        table.add_row("submission → row in Postgres, p99", f"{times[1]:.2f} s")
    console.print(table)
    for individual_id, _, detail in rejections[:_SHOWN]:
        console.print(f"rejected   [bold]{escape(individual_id)}[/]: {escape(detail)}", soft_wrap=True, highlight=False)
    if len(rejections) > _SHOWN:
        console.print(f"… and {len(rejections) - _SHOWN} more")


def _compact(console: Console, settings: Settings, collection: str) -> None:
    """What happens every night: the index built anew, the pairs put right, and a certificate of it."""
    console.print()
    if not run_compaction(console, settings, CompactionPlan(collection)):
        raise DemoFailedError("the compaction went wrong")


def _times(connection: Connection, collection: str) -> tuple[float, float] | None:
    """From the submission of the later of two individuals to the row of the pair, in seconds: p50 and p99."""
    query = text(
        """
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
               percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds)
        FROM (
            SELECT extract(epoch FROM d.recorded_at - greatest(a.registered_at, b.registered_at)) AS seconds
            FROM duplicates AS d
            JOIN individuals AS a ON a.collection = d.collection AND a.individual_id = d.individual_a
            JOIN individuals AS b ON b.collection = d.collection AND b.individual_id = d.individual_b
            WHERE d.collection = :collection
        ) AS times
        """
    )
    p50, p99 = connection.execute(query, {"collection": collection}).one()
    return None if p50 is None else (float(p50), float(p99))


def _rejections(connection: Connection, collection: str) -> list[tuple[str, str, str]]:
    """(individual, reason, detail) of those that stand rejected."""
    view = individual_duplicates.c
    query = select(view.individual_id, view.rejection_reason, view.rejection_detail)
    query = query.where(view.collection == collection, view.state == "rejected").order_by(view.individual_id)
    return [row._tuple() for row in connection.execute(query)]
