"""`facematch what-if`: what matching, or a compaction, would find with other settings."""

import os
import re
from typing import Annotated

import typer

from deploy.commands.app import (
    OPERATE,
    Collection,
    UserError,
    app,
    read_settings,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.commands.compaction import run_plan
from deploy.commands.times import TIME_HELP, parse_period
from deploy.terminal import Terminal


@app.command("what-if", rich_help_panel=OPERATE)
def what_if(
    threshold: Annotated[float | None, typer.Option(help="Suppose this threshold, above 0 and below 2.")] = None,
    candidates_per_newcomer: Annotated[
        float | None,
        typer.Option(help="Suppose this review budget, above 0, and no plain threshold.", metavar="COUNT"),
    ] = None,
    findings_limit: Annotated[
        int | None, typer.Option(help="Suppose that so many pairs at most are published of a newcomer.", min=1)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Suppose that only embeddings of this encoder had come. With --whole: its index.", metavar="ENCODER"
        ),
    ] = None,
    collection: Collection = None,
    offsets: Annotated[
        str | None,
        typer.Option(help="With --collection: only who stands at these offsets of its partition.", metavar="BEGIN:END"),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help=f"Only who was encoded at this time or later. {TIME_HELP}", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only who was encoded before this time.", metavar="TIME")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Each pair gained or lost, one JSON object a line.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="What a compaction of the whole gallery would do instead.")
    ] = False,
    recall_floor: Annotated[
        float | None, typer.Option(help="With --whole: suppose this recall floor, above 0 and below 1.")
    ] = None,
) -> None:
    """Which pairs would be gained and lost with other settings: nothing is published, nothing is stored.

    Everyone in a part of the log is matched as they came, with all before them, twice: by the settings as they are, and
    by those supposed. Everything is compared exactly, without an index.

    With --whole the index is built anew of everyone living now, and compared with the pairs as they are.
    """
    from deploy.what_if import Supposed, compare, print_report
    from schemas.thresholds import Thresholds
    from streams.compaction.compactor import CompactionPlan
    from streams.matching.what_if import LogSlice

    if threshold is not None and not 0 < threshold < 2:
        raise UserError(f"--threshold {threshold}: a threshold is above 0 and below 2")
    if candidates_per_newcomer is not None and not 0 < candidates_per_newcomer <= 1000:
        raise UserError(f"--candidates-per-newcomer {candidates_per_newcomer:g}: a budget is above 0 and at most 1000")
    if threshold is not None and candidates_per_newcomer is not None:
        raise UserError("suppose a threshold or a budget: from --candidates-per-newcomer the threshold follows")
    if recall_floor is not None and not 0 < recall_floor < 1:
        raise UserError(f"--recall-floor {recall_floor}: a recall floor is above 0 and below 1")
    if whole:
        if findings_limit or offsets or since or until or as_json:
            raise UserError(
                "--whole goes with --threshold, --candidates-per-newcomer, --recall-floor, --encoder and --collection "
                "alone"
            )
        supposed_thresholds = Thresholds(read_settings(), candidates_per_newcomer)
        run_plan(Terminal(), CompactionPlan(collection, encoder, True, threshold, recall_floor, supposed_thresholds))
        return
    if recall_floor is not None:
        raise UserError("--recall-floor goes with --whole: without it everything is compared exactly")
    supposed = Supposed(threshold, candidates_per_newcomer, findings_limit, encoder)
    if supposed == Supposed():
        raise UserError("suppose something: --threshold, --candidates-per-newcomer, --findings-limit or --encoder")
    begin, end = _parse_offsets(offsets, collection)
    part = LogSlice(collection, begin, end, *parse_period(since, until))
    settings, console = settings_with_key(), Terminal()
    os.nice(10)  # whatever else runs on the machine goes first
    with servers_expected():
        topics_expected(settings)
        report = compare(Terminal(stderr=True), settings, supposed, part)
    print_report(console, report, as_json)


def _parse_offsets(text: str | None, collection: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    if collection is None:
        raise UserError("--offsets are those of one partition: name it with --collection")
    parts = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
    if parts is None or int(parts[1]) >= int(parts[2]):
        raise UserError(f"--offsets {text}: write the first and the one behind the last, as 100:200")
    return int(parts[1]), int(parts[2])
