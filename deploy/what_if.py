"""`facematch what-if`: a part of the log matched twice, with the settings as they are and with supposed ones."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from runtime.servers.erasures import ErasureLog
from runtime.servers.log import Span, TopicLog
from schemas.envelope import StoredRecord
from schemas.erased import Erased
from schemas.faults import UserFault
from schemas.settings import Settings
from schemas.thresholds import Thresholds
from schemas.topics import ENCODINGS
from streams.matching.match import Rules
from streams.matching.what_if import LogSlice, PairChange, SupposedOutcome, SupposedRun, batches, changes

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Supposed:
    """Supposed settings; None: unchanged. `encoder`: as if only its embeddings had come.

    With `candidates_per_newcomer` no plain threshold counts of encoders that have operating points.
    """

    threshold: float | None = None
    candidates_per_newcomer: float | None = None
    findings_limit: int | None = None
    encoder: str | None = None

    def rules(self, settings: Settings, erased: Erased) -> Rules:
        """The rules of matching with these settings."""
        threshold = self.threshold
        return Rules(
            Thresholds(settings, self.candidates_per_newcomer).of if threshold is None else lambda *_: threshold,
            self.findings_limit or settings.findings_limit,
            erased,
        )


class NoSuchPartError(UserFault):
    """The log has no such part, or nobody in it. The text says which."""


class WhatIfReport(NamedTuple):
    """The outcomes with the settings as they are, and with the supposed ones."""

    now: SupposedOutcome
    then: SupposedOutcome


def compare(console: Console, settings: Settings, supposed: Supposed, part: LogSlice) -> WhatIfReport:
    """Run both over the part, partition after partition; with a collection its partition alone, whose offsets count.

    Raises NoSuchPartError, TooManyPairsError, ErasureKeyError, and what a broker raises that does not answer.
    """
    with ErasureLog(settings, "what-if") as erasures:
        erased = erasures.catch_up().erased
    report, has_anyone, has_encoder = WhatIfReport(SupposedOutcome(), SupposedOutcome()), False, False
    with TopicLog(settings, ENCODINGS, "what-if") as log, Progress(console=console, transient=True) as bar:
        spans = log.spans()
        if part.collection is not None:
            spans = {(at := log.partition_of(part.collection)): spans[at]}
        for partition, span in spans.items():
            _check(part, partition, span)
            now = SupposedRun(Supposed().rules(settings, erased))
            then = SupposedRun(supposed.rules(settings, erased), supposed.encoder)
            task = bar.add_task(f"partition {partition}", total=span.size)
            with closing(log.read({partition: span})) as read:
                records = _counted(read, partial(bar.update, task))
                has_anyone |= _run(now, then, part.split(records), settings.match_batch)
            has_encoder |= then.has_seen_encoder
            report.now.add(now.outcome())
            report.then.add(then.outcome())
            bar.remove_task(task)
    if part.collection is not None and not has_anyone:
        raise NoSuchPartError(f"nobody was registered in collection {part.collection} by then")
    if not has_encoder:
        raise NoSuchPartError(f"nobody has an embedding of encoder {supposed.encoder} there")
    return report


def _check(part: LogSlice, partition: int, span: Span) -> None:
    if part.end is not None and not span.begin <= part.begin < part.end <= span.end:
        raise NoSuchPartError(
            f"there are no offsets {part.begin} to {part.end}: partition {partition}, in which collection "
            f"{part.collection} is, has {span.begin} to {span.end}"
        )


def _counted(batches_read: Iterable[list[StoredRecord]], report: Callable[..., None]) -> Iterator[StoredRecord]:
    for batch in batches_read:
        yield from batch
        report(advance=len(batch))


def _run(now: SupposedRun, then: SupposedRun, records: Iterable[tuple[StoredRecord, bool]], most: int) -> bool:
    """Whether there was any record."""
    has_anyone = False
    for is_in_part, group in groupby(records, key=itemgetter(1)):
        has_anyone = True
        stream = (record for record, _ in group)
        for batch in batches(stream, most):
            for run in (now, then):
                (run.match if is_in_part else run.apply)(batch)
    return has_anyone


def print_report(console: Console, report: WhatIfReport, as_json: bool) -> None:
    """Print pairs by collection, and the nearest of those gained and lost; as JSON all of these, a line each."""
    found = changes(*report)
    if as_json:
        for change in found:
            console.print(_json(change), soft_wrap=True, highlight=False, markup=False)
        return
    now, then = report
    table = Table(title="what if; nothing is changed", title_justify="left", padding=(0, 0))
    table.add_column("collection", overflow="fold")
    for name in ("newcomers", "pairs now", "pairs then", "gained", "lost", "truncated now", "truncated then"):
        table.add_column(name, justify="right")
    pairs_now, pairs_then = (Counter(pair.collection for pair in one.pairs) for one in report)
    gained, lost = (Counter(one.pair.collection for one in found if one.gained is which) for which in (True, False))
    for collection in sorted(now.newcomers.keys() | then.newcomers.keys()):
        counts = (now.newcomers, pairs_now, pairs_then, gained, lost, now.truncated, then.truncated)
        table.add_row(escape(collection), *(str(count[collection]) for count in counts))
    console.print(table)
    if found:
        _print_changes(console, found)


def _print_changes(console: Console, found: Sequence[PairChange]) -> None:
    table = Table("", "collection", "distance", title="pairs gained and lost, the nearest", title_justify="left")
    for name in ("individual", "looks like"):
        table.add_column(name, overflow="fold")
    for change in found[:_SHOWN]:
        what = "[green]gained[/]" if change.gained else "[red]lost[/]"
        names = (change.pair.collection, f"{change.found.distance:.3f}", change.pair.a, change.pair.b)
        table.add_row(what, *map(escape, names))
    console.print(table)
    if len(found) > _SHOWN:
        console.print(f"{_SHOWN} of {len(found)} are shown: --json writes all")


def _json(change: PairChange) -> str:
    line = {"change": "gained" if change.gained else "lost", **change.pair._asdict(), **change.found._asdict()}
    return json.dumps(line, ensure_ascii=False)
