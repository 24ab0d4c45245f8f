"""The progress bar of a replay: progress, rate, and the consumer group that it waits for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from producers.replay.pace import TARGET_S
from producers.replay.sending import Sender

_REFRESHED_EVERY_S = 0.2


class ReplayBar:
    """A progress bar as the callback `bar(what, done, total)`. `slowest`: the group most behind, and by how many s."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, note="")
        self._what = ""
        self._sender: Sender | None = None
        self._began_at = self._refreshed_at = time.monotonic()
        self.slowest = ("", 0.0)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what = what
            self._progress.reset(self._task, description=what, total=total)
        self._progress.update(self._task, completed=done)

    def watch(self, sender: Sender) -> None:
        """Show the progress of a sender from now on."""
        self._sender, self._began_at = sender, time.monotonic()

    def tick(self) -> None:
        """Refresh the note, at most every 0.2 s."""
        now = time.monotonic()
        if self._sender is None or now - self._refreshed_at < _REFRESHED_EVERY_S:
            return
        self._refreshed_at = now
        count = self._sender.sent.acknowledged
        note = f"{count} sent, {count / (now - self._began_at):.0f}/s"
        name, delay = self.slowest
        if delay > TARGET_S:
            note += f", waiting: {name} " + (f"is {delay:.1f} s behind" if isfinite(delay) else "does not answer")
        self._progress.update(self._task, note=note)


@contextmanager
def bar_on(console: Console) -> Iterator[ReplayBar]:
    """A progress bar that is removed afterwards."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    ) as progress:
        yield ReplayBar(progress)
