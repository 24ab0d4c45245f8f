"""`facematch replay`: prints what it would send, writes it into a file, or sends it."""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from pathlib import Path

from rich.console import Console

from deploy.replay.bar import ReplayBar, bar_on
from deploy.replay.report import Summary, print_left_out, print_sent
from producers.replay.chooser import ChosenEvent
from producers.replay.file import line_of
from producers.replay.groups import Groups, Watch
from producers.replay.pace import Pace
from producers.replay.plan import ReplayPlan, keep, new_id
from producers.replay.selection import Selection
from producers.replay.sending import Sender, Sent, check_file, ends_of, sent_before
from producers.replay.survey import Survey
from runtime.process.stopping import on_stop_signal
from schemas.settings import Settings


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast to send: at most `most` events/s, None without limit; `at_once`: without waiting for any consumer."""

    most: float | None = None
    at_once: bool = False


def dry_run(console: Console, settings: Settings, selection: Selection) -> None:
    """Print what would be sent, and what would change by it. Nothing is sent."""
    with bar_on(console) as bar, closing(Survey(settings, selection, bar)) as survey:
        summary = Summary()
        for one in survey.chosen():
            summary.add(one)
        outcomes = survey.outcomes(summary.to_encode())
    summary.print(console, outcomes, selection.origin)
    print_left_out(console, survey)
    if summary.events:
        console.print("the same command with [bold]--yes[/] sends them")


def write(console: Console, settings: Settings, selection: Selection, path: Path) -> None:
    """Write the chosen events into a new file that only this user may read. Raises FileExistsError."""
    count = 0
    with bar_on(console) as bar, closing(Survey(settings, selection, bar)) as survey:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            for one in survey.chosen():
                file.write(line_of(one.record) + "\n")
                count += 1
    print_left_out(console, survey)
    console.print(f"{count} events, with ids and inline photos, are in {path}; nothing was sent", soft_wrap=True)


def send(console: Console, settings: Settings, selection: Selection, speed: Speed) -> bool:
    """Begin a replay. Returns whether every chosen event is acknowledged. Raises UnservedError."""
    with bar_on(console) as bar, closing(Survey(settings, selection, bar)) as survey:
        plan = ReplayPlan(
            replay_id=new_id(),
            began_at=datetime.now(UTC),
            selection=selection,
            source=survey.source,
            digest=survey.digest,
            ends=ends_of(settings, survey.topics),
        )
        return _go(console, settings, plan, survey, speed, set(), bar)


def resume(console: Console, settings: Settings, plan: ReplayPlan, speed: Speed) -> bool:
    """Resume a replay. Returns whether every chosen event is acknowledged. Raises TooOldError, UnservedError."""
    already = sent_before(settings, plan)
    with bar_on(console) as bar, closing(Survey(settings, plan.selection, bar, plan.source)) as survey:
        check_file(plan, survey.digest)
        console.print(f"sent before: {len(already)} events")
        return _go(console, settings, plan, survey, speed, already, bar)


def _go(
    console: Console,
    settings: Settings,
    plan: ReplayPlan,
    survey: Survey,
    speed: Speed,
    already: set[str],
    bar: ReplayBar,
) -> bool:
    pace = Pace(speed.most, watched=not speed.at_once)
    chosen = survey.chosen("sending")
    if plan.selection.individuals:  # an unknown one shows at the end of reading: then nothing may have been sent
        chosen = iter(list(chosen))
    first = next(chosen, None)
    if first is None:
        print_left_out(console, survey)
        console.print("nothing is chosen: nothing was sent")
        return True
    watch = None if speed.at_once else Watch(Groups(settings, survey.topics), _observer(pace, bar))
    keep(settings.data_folder, plan)
    console.print(f"replay {plan.replay_id}")
    sent = _send(settings, plan.replay_id, chain([first], chosen), already, pace, watch, bar)
    print_left_out(console, survey)
    return print_sent(console, plan.replay_id, sent)


def _send(
    settings: Settings,
    replay_id: str,
    chosen: Iterable[ChosenEvent],
    already: set[str],
    pace: Pace,
    watch: Watch | None,
    bar: ReplayBar,
) -> Sent:
    stopping = threading.Event()
    on_stop_signal(stopping.set)

    def check() -> None:
        bar.tick()
        if watch is not None:
            watch.check()

    sender = Sender(settings, replay_id, pace, stopping, check)
    bar.watch(sender)
    with watch or nullcontext():
        return sender.send(chosen, already)


def _observer(pace: Pace, bar: ReplayBar) -> Callable[[dict[str, float]], None]:
    def observe(delays: dict[str, float]) -> None:
        bar.slowest = max(delays.items(), key=itemgetter(1))
        pace.observe(bar.slowest[1])

    return observe
